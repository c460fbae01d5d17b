"""Plain NumPy references, written from docs/method.md and independent of the package."""

import numpy as np


def cosine_alpha_bar(num_steps, offset=0.008, max_beta=0.999):
    alpha_bar, out = 1.0, []
    f = lambda i: np.cos((i / num_steps + offset) / (1 + offset) * np.pi / 2) ** 2
    for i in range(num_steps):
        alpha_bar *= 1 - min(1 - f(i + 1) / f(i), max_beta)
        out.append(alpha_bar)
    return np.array(out)


def posterior(alpha_bar, t, x_0, x_t):
    """Bayes for q(x_{t-1} | x_t, x_0): product of two Gaussians in x_{t-1}."""
    previous = alpha_bar[t - 1] if t > 0 else 1.0
    alpha = alpha_bar[t] / previous
    if t == 0:
        return x_0, 0.0
    prior_precision = 1 / (1 - previous)
    likelihood_precision = alpha / (1 - alpha)
    variance = 1 / (prior_precision + likelihood_precision)
    mean = variance * (
        prior_precision * np.sqrt(previous) * x_0
        + likelihood_precision * x_t / np.sqrt(alpha)
    )
    return mean, variance


def gaussian_score(mean, covariance, alpha_bar, x_t):
    total = alpha_bar * covariance + (1 - alpha_bar) * np.eye(len(mean))
    return -np.linalg.solve(total, x_t - np.sqrt(alpha_bar) * mean)


def alignment(reward, x, target, weight, mask, step=1e-3):
    """Alignment loss by central differences of the reward."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        e = np.zeros_like(x)
        e[i] = step
        gradient[i] = (reward(x + e) - reward(x - e)) / (2 * step)
    return weight * np.sum((gradient - target) ** 2 * mask) / mask.sum()

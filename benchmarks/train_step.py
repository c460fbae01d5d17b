"""How long does one optimiser step of a diffusion model take?

    python -m benchmarks.train_step [hopper] [maze2d] [--repeats 10] [--json FILE]

Draws levels and noise, predicts x_0, differentiates, updates by Adam, on both sides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.common import Case, count_flops, main
from diffreward.diffusion import cosine, denoising_loss, draw_levels
from diffreward.networks import TemporalUnet

LEARNING_RATE = 2e-4


def ours(
    batch: int, horizon: int, dim: int, mults: Sequence[int], num_steps: int
) -> Callable[[], Any]:
    """The project's step, as a function without arguments."""
    schedule = cosine(num_steps)
    net: Any = TemporalUnet(dim_mults=mults)
    tx = optax.adam(LEARNING_RATE)
    x_0 = jax.random.normal(jax.random.key(0), (batch, horizon, dim))
    params = jax.jit(net.init)(jax.random.key(1), x_0[0], jnp.int32(0))

    def loss(params, t, eps):
        predict = lambda x_t, t: net.apply(params, x_t, t)
        one = lambda x, t, e: denoising_loss(predict, schedule, x, t, e)[0]
        return jax.vmap(one)(x_0, t, eps).mean()

    def update(state, key):
        params, opt_state = state
        t_key, eps_key = jax.random.split(key)
        t = draw_levels(t_key, batch, num_steps)
        eps = jax.random.normal(eps_key, x_0.shape)
        value, grads = jax.value_and_grad(loss)(params, t, eps)
        updates, opt_state = tx.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    update = jax.jit(update, donate_argnums=0)
    state, count = (params, tx.init(params)), 0

    def step():
        nonlocal state, count
        count += 1
        state, value = update(state, jax.random.key(count))
        return value

    return step


def in_torch(
    batch: int, horizon: int, dim: int, mults: Sequence[int], num_steps: int
) -> Callable[[], Any]:
    """The same step in PyTorch."""
    import numpy as np
    import torch

    from benchmarks.torch_models import TemporalUnet

    schedule = cosine(num_steps)
    a, s = (torch.tensor(np.asarray(c)) for c in (schedule.sqrt_alpha_bar, schedule.sigma))
    net = TemporalUnet(dim, dim_mults=mults)
    optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    x_0 = torch.randn(batch, horizon, dim)

    def step():
        t = torch.randint(0, num_steps, (batch,))
        x_t = a[t][:, None, None] * x_0 + s[t][:, None, None] * torch.randn_like(x_0)
        optimiser.zero_grad()
        loss = torch.mean((net(x_t, t) - x_0) ** 2)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def case(name: str, target: float, *shape: Any) -> Case:
    """One row of the report."""
    theirs = in_torch(*shape)
    return Case(name, ours(*shape), theirs, count_flops(theirs), target)


CASES = {
    "hopper": lambda: case("hopper H32 B32", 0.6, 32, 32, 14, (1, 2, 4, 8), 20),
    "maze2d": lambda: case("maze2d H256 B128", 0.9, 128, 256, 6, (1, 4, 8), 100),
}

if __name__ == "__main__":
    main(str(__doc__), CASES)

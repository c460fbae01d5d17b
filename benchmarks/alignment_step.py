"""How long does one optimiser step of a reward take?

    python -m benchmarks.alignment_step [hopper] [maze2d] [--repeats 10] [--json FILE]

Draws levels and noise, runs both frozen U-Nets, differentiates the reward by its input
and the loss by its parameters, updates by Adam, on both sides.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.common import Case, count_flops, main
from diffreward.diffusion import cosine, draw_levels, q_sample, to_eps
from diffreward.networks import (
    SingleStepRewardMLP,
    TemporalUnet,
    ValueFunction,
    WindowReward,
)
from diffreward.reward import Pair, align, alignment_loss, value_scale

LEARNING_RATE = 2e-4
HIDDEN, WINDOW = (128, 64, 32), 4


class Setting(NamedTuple):
    """Shapes of one case."""

    batch: int
    horizon: int
    dim: int
    mults: tuple[int, ...]
    num_steps: int
    windows: bool
    """A small MLP over windows as reward, instead of the ValueFunction."""


HOPPER = Setting(128, 32, 14, (1, 2, 4, 8), 20, windows=False)
MAZE2D = Setting(256, 256, 6, (1, 4, 8), 100, windows=True)


def ours(setting: Setting) -> Callable[[], Any]:
    """The project's step, as a function without arguments."""
    schedule = cosine(setting.num_steps)
    net: Any = TemporalUnet(dim_mults=setting.mults)
    reward: Any = ValueFunction()
    if setting.windows:
        reward = WindowReward(SingleStepRewardMLP(HIDDEN, WINDOW), WINDOW)
    tx = optax.adam(LEARNING_RATE)
    shape = (setting.batch, setting.horizon, setting.dim)
    x_0 = jax.random.normal(jax.random.key(0), shape)
    init = lambda module, seed: jax.jit(module.init)(
        jax.random.key(seed), x_0[0], jnp.int32(0)
    )
    frozen = init(net, 1), init(net, 2)

    def loss(params, frozen, t, eps):
        def eps_fn(net_params):
            return lambda x_t, t: to_eps(
                schedule, "x_0", x_t, t, net.apply(net_params, x_t, t)
            )

        pair = Pair(eps_fn(frozen[0]), eps_fn(frozen[1]), schedule)

        def rho(x_t, t):
            return value_scale(schedule, "score", t) * reward.apply(params, x_t, t)

        def one(x_0, t, eps):
            part = align(pair, q_sample(schedule, x_0, t, eps), t)
            return alignment_loss(rho, part.point, t, part.target, weight=part.weight)[0]

        return jax.vmap(one)(x_0, t, eps).mean()

    def update(state, frozen, key):
        params, opt_state = state
        t_key, eps_key = jax.random.split(key)
        t = draw_levels(t_key, setting.batch, setting.num_steps)
        eps = jax.random.normal(eps_key, shape)
        value, grads = jax.value_and_grad(loss)(params, frozen, t, eps)
        updates, opt_state = tx.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    update = jax.jit(update, donate_argnums=0)
    params = init(reward, 3)
    state, count = (params, tx.init(params)), 0

    def step():
        nonlocal state, count
        count += 1
        state, value = update(state, frozen, jax.random.key(count))
        return value

    return step


def in_torch(setting: Setting) -> Callable[[], Any]:
    """The same step in PyTorch."""
    import numpy as np
    import torch

    from benchmarks import torch_models

    schedule = cosine(setting.num_steps)
    a, s = (torch.tensor(np.asarray(c)) for c in (schedule.sqrt_alpha_bar, schedule.sigma))
    base, expert = (
        torch_models.TemporalUnet(setting.dim, dim_mults=setting.mults).requires_grad_(
            False
        )
        for _ in range(2)
    )
    if setting.windows:
        act = torch.nn.Mish()
        reward = torch_models.WindowReward(setting.dim, WINDOW, HIDDEN, act)
    else:
        reward = torch_models.ValueFunction(setting.dim, setting.horizon)
    optimiser = torch.optim.Adam(reward.parameters(), LEARNING_RATE)
    x_0 = torch.randn(setting.batch, setting.horizon, setting.dim)

    def step():
        t = torch.randint(0, setting.num_steps, (setting.batch,))
        a_t, s_t = a[t][:, None, None], s[t][:, None, None]
        x_t = a_t * x_0 + s_t * torch.randn_like(x_0)
        scale = a_t / s_t**2
        with torch.no_grad():
            target = scale * (expert(x_t, t) - base(x_t, t))
        x_t.requires_grad_()
        value = reward(x_t, t).sum()
        (gradient,) = torch.autograd.grad(value, x_t, create_graph=True)
        optimiser.zero_grad()
        loss = torch.mean((s_t / a_t * (scale * gradient - target)) ** 2)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def case(name: str, target: float, setting: Setting) -> Case:
    """One row of the report."""
    theirs = in_torch(setting)
    return Case(name, ours(setting), theirs, count_flops(theirs), target)


CASES = {
    "hopper": lambda: case("hopper H32 B128", 0.5, HOPPER),
    "maze2d": lambda: case("maze2d H256 B256", 0.8, MAZE2D),
}

if __name__ == "__main__":
    main(str(__doc__), CASES)

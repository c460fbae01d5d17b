"""How long does one guided plan take (hopper, H=32, 20 denoising steps)?

    python -m benchmarks.guided_plan [batch1] [batch64] [--repeats 10] [--json FILE]

Every step runs the base U-Net and the input gradient of the ValueFunction.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.common import Case, count_flops, main
from diffreward.diffusion import cosine, pinned_observations, to_eps
from diffreward.networks import TemporalUnet, ValueFunction
from diffreward.reward import value_scale
from diffreward.steer import guide, plan

HORIZON, ACT_DIM, OBS_DIM, NUM_STEPS = 32, 3, 11, 20
DIM = ACT_DIM + OBS_DIM


def ours(batch: int) -> Callable[[], Any]:
    """Plans of the project, as a function without arguments."""
    schedule = cosine(NUM_STEPS)
    net: Any = TemporalUnet()
    reward: Any = ValueFunction()
    known = jax.random.normal(jax.random.key(0), (batch, HORIZON, DIM))
    init = lambda module, seed: jax.jit(module.init)(
        jax.random.key(seed), known[0], jnp.int32(0)
    )
    params, reward_params = init(net, 1), init(reward, 2)
    pinned = pinned_observations(HORIZON, ACT_DIM, OBS_DIM)

    @jax.jit
    def run(params, reward_params, key):
        def eps_fn(x_t, t):
            return to_eps(schedule, "x_0", x_t, t, net.apply(params, x_t, t))

        def rho(x_t, t):
            scale = value_scale(schedule, "score", t)
            return scale * reward.apply(reward_params, x_t, t)

        guided = guide(eps_fn, rho, schedule, 1.0, pinned=pinned)
        return plan(guided, schedule, key, known, pinned)

    count = 0

    def step():
        nonlocal count
        count += 1
        return run(params, reward_params, jax.random.key(count))

    return step


def in_torch(batch: int) -> Callable[[], Any]:
    """The same plans in PyTorch."""
    import numpy as np
    import torch

    from benchmarks import torch_models

    schedule = cosine(NUM_STEPS)
    c = {name: torch.tensor(np.asarray(v)) for name, v in schedule._asdict().items()}
    net = torch_models.TemporalUnet(DIM).requires_grad_(False)
    reward = torch_models.ValueFunction(DIM, HORIZON).requires_grad_(False)
    known = torch.randn(batch, ACT_DIM + OBS_DIM)

    def pin(x):
        x[:, 0, ACT_DIM:] = known[:, ACT_DIM:]
        return x

    def step():
        x = pin(torch.randn(batch, HORIZON, DIM))
        for i in range(NUM_STEPS - 1, -1, -1):
            t = torch.full((batch,), i)
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(reward(x, t).sum(), x)
            x = x.detach()
            gradient[:, 0, ACT_DIM:] = 0
            # rho is sqrt(alpha_bar) / sigma^2 times the network, so eps - sigma grad rho
            # adds the network's own gradient to x_0.
            x_0 = net(x, t) + gradient
            mean = c["posterior_x_0"][i] * x_0 + c["posterior_x_t"][i] * x
            std = c["posterior_variance"][i].sqrt()
            x = pin(mean + std * torch.randn_like(x))
        return x

    return step


def case(name: str, target: float, batch: int) -> Case:
    """One row of the report."""
    theirs = in_torch(batch)
    return Case(name, ours(batch), theirs, count_flops(theirs), target)


CASES = {
    "batch1": lambda: case("plan, batch 1", 0.15, 1),
    "batch64": lambda: case("plan, batch 64", 0.5, 64),
}

if __name__ == "__main__":
    main(str(__doc__), CASES)

"""The rows of the table: every way to act that is compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from diffreward.diffusion import Condition
from diffreward.learn import energy_reward
from diffreward.networks import EnergyDenoiser
from diffreward.reward import Pair, posterior_means
from diffreward.steer import Sampler, guide, guide_by_difference, smc_sample
from diffreward.types import EpsFn, Params, RewardFn
from experiments.baselines import members, scalar_fn
from experiments.locomotion.record import Run, Trained

MEANING = {
    "unsteered": "the base alone",
    "discriminator": "steered by a classifier's logit",
    "value": "steered by returns (Diffuser's guide; sees true rewards)",
    "means": "steered as published by a reward of the published loss",
    "means-exact": "steered as published along the exact difference",
    "score": "steered by the learned reward, scale 1",
    "score-chosen": "the same, scale chosen on validation episodes",
    "best-of-n": "best of several unsteered plans by the learned reward",
    "energies": "steered by the difference of two energies (no training), scale 1",
    "difference": "steered by the score difference itself, scale 1",
    "expert": "the expert alone",
    "best-steered": "best of several steered plans by the learned reward",
    "smc": "particles that follow the steered base, weighted by the learned reward",
}
"""Rows of the table, in its order, and what each is. New ones come last: the place of a row
is the seed of its intervals."""
NEEDED = ("unsteered", "score", "expert")
"""Rows of every table: without them there is nothing to compare."""
ON_REQUEST = ("energies", "difference")
"""Rows that ``evaluation.rows`` must name: samplers that are the expert's in exact
arithmetic, each in its own noise."""


PUBLISHED: dict[str, Any] = {"space": "input", "scale_by_variance": False}
"""Guidance as published: the reward has the variance of a step absorbed."""


def wanted(run: Run) -> set[str]:
    """Rows that a run is asked for, whether or not its pair has them."""
    return {*NEEDED, *(run.config.evaluation.rows or MEANING.keys() - set(ON_REQUEST))}


Steered = Callable[[Params, Any, Any], EpsFn]
"""A noise prediction of (parameters, scale, last level that is guided)."""


class Method(NamedTuple):
    """One way to act: its models, and how its guidance is set."""

    eps_fn: Steered
    """Of (parameters, scale, last level that is guided)."""
    params: list[Params]
    """One per seed."""
    scale: float | None
    """Fixed scale; None: chosen on validation episodes."""
    t_stops: tuple[int, ...] = (0,)
    """Last levels that are guided: the one, or those that are chosen from likewise."""
    rank_by: Callable[[Params], RewardFn] | None = None
    """Of parameters: what picks the best of ``evaluation.candidates`` plans."""
    sampler: Callable[[Params, EpsFn], Sampler] | None = None
    """Of parameters and the models' prediction: how a plan is drawn instead."""


def difference_of_means(pair: Pair) -> RewardFn:
    """What a reward of the published loss would be at best: the gradient is exact."""

    def rho(x_t: Array, t: Array) -> Array:
        base, expert = posterior_means(pair, x_t, t)
        return jnp.vdot(jax.lax.stop_gradient(expert - base), x_t)

    return rho


def steered(run: Run, reward_fn: Callable[[Params], RewardFn], **options: Any) -> Steered:
    """The base steered by a reward, of ((base, reward), scale, last level)."""
    model = run.denoiser

    def eps_fn(params: Params, scale: Any, t_stop: Any) -> EpsFn:
        eps, reward = model.eps_fn(params[0]), reward_fn(params[1])
        known = {"t_stop": t_stop, "pinned": model.pinned}
        return guide(eps, reward, model.schedule, scale, **known, **options)

    return eps_fn


def methods(run: Run, trained: Trained) -> dict[str, Method]:
    """The rows of the table, all unless ``evaluation.rows`` names some."""
    e, model = run.config.evaluation, run.denoiser
    pinned, schedule = model.pinned, model.schedule
    base, expert = trained.base, trained.expert

    def seeds(stacked: Params) -> list[Params]:
        return [(base, params) for params in members(stacked)]

    def alone(params: Params, scale: Any, t_stop: Any) -> EpsFn:
        del scale, t_stop
        return model.eps_fn(params)

    def expert_alone(params: Params, scale: Any, t_stop: Any) -> EpsFn:
        del scale, t_stop
        return model.of_expert.eps_fn(params)

    def by_difference(params: Params, scale: Any, t_stop: Any) -> EpsFn:
        del t_stop
        own, other = model.pair(*params)[:2]
        return guide_by_difference(own, other, scale, pinned=pinned)

    def by_energies(params: Params, scale: Any, t_stop: Any) -> EpsFn:
        eps, reward = model.eps_fn(params[0]), energy_reward(model, *params)
        return guide(eps, reward, schedule, scale, t_stop=t_stop, pinned=pinned)

    def by_means(params: Params, scale: Any, t_stop: Any) -> EpsFn:
        pair = model.pair(*params)
        rho = difference_of_means(pair)
        return guide(
            pair.base, rho, schedule, scale, t_stop=t_stop, pinned=pinned, **PUBLISHED
        )

    def particles(params: Params, follow: EpsFn) -> Sampler:
        """One plan of a cloud that follows the steered base."""

        def draw(key: Array, shape: tuple[int, ...], condition: Condition) -> Array:
            cloud_key, pick_key = jax.random.split(key)
            cloud = smc_sample(
                model.eps_fn(params[0]),
                learned.reward_fn(params[1]),
                schedule,
                cloud_key,
                shape,
                e.candidates,
                proposal=follow,
                condition=condition,
            )
            return cloud.x_0[jax.random.categorical(pick_key, cloud.log_weights)]

        return draw

    def scalar(network: nn.Module) -> Callable[[Params], RewardFn]:
        return lambda params: scalar_fn(network, params)

    learned, aligned = run.rewards["rewards"], seeds(trained.rewards["rewards"])
    score = steered(run, learned.reward_fn)
    published = steered(run, run.rewards["paper_rewards"].reward_fn, **PUBLISHED)
    known = {"scale": e.paper_scale, "t_stops": (e.paper_t_stop,)}
    asked = wanted(run)
    rows = {
        "unsteered": Method(alone, [base], 0.0),
        "expert": Method(expert_alone if model.expert else alone, [expert], 0.0),
        "difference": Method(by_difference, [(base, expert)], 1.0),
        "score": Method(score, aligned, 1.0),
        "score-chosen": Method(score, aligned, None),
        "means": Method(
            published,
            seeds(trained.rewards["paper_rewards"]),
            None,
            e.paper_t_stops or tuple(sorted({0, e.paper_t_stop})),
        ),
        "means-exact": Method(by_means, [(base, expert)], **known),
    }
    for name, network in (("discriminator", run.discriminator), ("value", run.value)):
        if name in asked:
            params = seeds(trained.baselines[name])
            rows[name] = Method(steered(run, scalar(network)), params, None)
    if e.candidates > 1:
        best = lambda params: learned.reward_fn(params[1])
        unguided = lambda params, scale, t_stop: alone(params[0], scale, t_stop)
        rows["best-of-n"] = Method(unguided, aligned, 0.0, rank_by=best)
        rows["best-steered"] = Method(score, aligned, 1.0, rank_by=best)
        rows["smc"] = Method(score, aligned, 1.0, sampler=particles)
    if isinstance(model.network, EnergyDenoiser) and model.expert is None:
        rows["energies"] = Method(by_energies, [(base, expert)], 1.0)
    return {name: method for name, method in rows.items() if name in asked}

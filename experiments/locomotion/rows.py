"""The rows of the table: every way to act that is compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn

from diffreward.learn import energy_reward
from diffreward.networks import EnergyDenoiser
from diffreward.steer import guide, guide_by_difference
from diffreward.types import EpsFn, Params, RewardFn
from experiments.baselines import members, scalar_fn
from experiments.locomotion.record import Run, Trained

MEANING = {
    "unsteered": "the base alone",
    "discriminator": "steered by a classifier's logit",
    "value": "steered by returns (Diffuser's guide; sees true rewards)",
    "paper": "steered by the reward of the `paper` preset",
    "score": "steered by the reward of the `score` preset, scale 1",
    "score-chosen": "the same, scale chosen on validation episodes",
    "best-of-n": "best of several unsteered plans by the reward of the `score` preset",
    "energies": "steered by the difference of two energies (no training), scale 1",
    "difference": "steered by the score difference itself",
    "expert": "the expert alone",
}
"""Rows of the table, in its order, and what each is."""
NEEDED = ("unsteered", "score", "expert")
"""Rows of every table: without them there is nothing to compare."""


class Method(NamedTuple):
    """One way to act: its models, and how its guidance scale is set."""

    eps_fn: Callable[[Params, float], EpsFn]
    """Of (parameters, scale)."""
    params: list[Params]
    """One per seed."""
    scale: float | None
    """Fixed scale; None: chosen on validation episodes."""
    rank_by: Callable[[Params], RewardFn] | None = None
    """Of parameters: what picks the best of ``evaluation.candidates`` plans."""


def methods(run: Run, trained: Trained) -> dict[str, Method]:
    """The rows of the table, all unless ``evaluation.rows`` names some."""
    e, model = run.config.evaluation, run.denoiser
    pinned, schedule = model.pinned, model.schedule
    base, expert = trained.base, trained.expert

    def seeds(stacked: Params) -> list[Params]:
        return [(base, params) for params in members(stacked)]

    def steered(reward_fn: Callable[[Params], RewardFn], **options: Any) -> Callable:
        def eps_fn(params: Params, scale: float) -> EpsFn:
            eps = model.eps_fn(params[0])
            reward = reward_fn(params[1])
            return guide(eps, reward, schedule, scale, pinned=pinned, **options)

        return eps_fn

    def alone(params: Params, scale: float) -> EpsFn:
        del scale
        return model.eps_fn(params)

    def expert_alone(params: Params, scale: float) -> EpsFn:
        del scale
        return model.of_expert.eps_fn(params)

    def by_difference(params: Params, scale: float) -> EpsFn:
        own, other = params
        return guide_by_difference(
            model.eps_fn(own), model.of_expert.eps_fn(other), scale, pinned=pinned
        )

    def by_energies(params: Params, scale: float) -> EpsFn:
        reward = energy_reward(model, *params)
        return guide(model.eps_fn(params[0]), reward, schedule, scale, pinned=pinned)

    def scalar(network: nn.Module) -> Callable[[Params], RewardFn]:
        return lambda params: scalar_fn(network, params)

    learned, aligned = run.rewards["rewards"], seeds(trained.rewards["rewards"])
    score = steered(learned.reward_fn)
    published = steered(
        run.rewards["paper_rewards"].reward_fn,
        space="input",
        scale_by_variance=False,
        t_stop=e.paper_t_stop,
    )
    rows = {
        "unsteered": Method(alone, [base], 0.0),
        "expert": Method(alone if model.expert is None else expert_alone, [expert], 0.0),
        "difference": Method(by_difference, [(base, expert)], 1.0),
        "score": Method(score, aligned, 1.0),
        "score-chosen": Method(score, aligned, None),
        "paper": Method(published, seeds(trained.rewards["paper_rewards"]), e.paper_scale),
        "discriminator": Method(
            steered(scalar(run.discriminator)), seeds(trained.discriminator), None
        ),
        "value": Method(steered(scalar(run.value)), seeds(trained.value), None),
    }
    if e.candidates > 1:
        best = lambda params: learned.reward_fn(params[1])
        unguided = lambda params, scale: alone(params[0], scale)
        rows["best-of-n"] = Method(unguided, aligned, 0.0, rank_by=best)
    if isinstance(model.network, EnergyDenoiser) and model.expert is None:
        rows["energies"] = Method(by_energies, [(base, expert)], 1.0)
    wanted = {*NEEDED, *(e.rows or rows)}
    return {name: method for name, method in rows.items() if name in wanted}

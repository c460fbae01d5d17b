"""What a locomotion config may hold; everything is checked before the first stage."""

from configs.common import ConfigDict, choose
from diffreward import data as d
from diffreward.data.snapshots import KINDS
from diffreward.learn import WEIGHTINGS
from experiments import limits
from experiments.locomotion.record import REWARDS
from experiments.locomotion.rollouts import TEST, VALIDATION
from experiments.locomotion.rows import MEANING

STAGES = ("base", "expert", "start", *REWARDS, "discriminator", "value")


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later.

    Names of networks and presets are refused by what builds them, right after.
    """
    choose("task", config.task, d.LOCOMOTION)
    limits.check_seed(config.seed)
    limits.check_model(config.model)
    if 0 not in config.model.pinned:
        raise ValueError(
            f"model.pinned is {tuple(config.model.pinned)}; a plan starts at what is "
            "observed, so put 0 in it"
        )
    for name in REWARDS:
        choose(f"{name}.source", config[name].source, limits.REWARD_SOURCES)
        if config.model.policy and config[name].source == "models":
            raise ValueError(
                f"{name}.source='models' goes on from states inside a plan, and a policy's "
                "plans have none; use base, expert, mixed or crossed"
            )
        limits.check_window(config[name], name, config.model.horizon)
    choose("rewards.weighting", config.rewards.weighting, WEIGHTINGS)
    limits.at_least(config.rewards, "rewards", rounds=0, visits=1)
    if config.rewards.rounds and config.rewards.source != "crossed":
        raise ValueError(
            "rewards.rounds adds what the steered base met to crossed states; set "
            "rewards.source='crossed', or rewards.rounds=0"
        )
    if config.rewards.rounds:
        met = config.rewards.copy_and_resolve_references()
        with met.unlocked():
            met.source = "steered"
        limits.check_batch(met, "rewards")  # of rounds, which have one more set
    choose("expert.init", config.expert.init, ("base", "scratch"))
    limits.check_network(config.expert_model, "expert_model")
    differs = [k for k, v in config.expert_model.items() if v != config.model[k]]
    if differs and config.expert.init == "base":
        raise ValueError(
            f"expert_model.{differs[0]} is not the base's, so the expert cannot start "
            "there; set expert.init='scratch'"
        )
    limits.check_training(config, *STAGES)
    limits.at_least(config.discriminator, "discriminator", batch_size=2)
    limits.shares(config.value, "value", "discount")
    check_evaluation(config)
    limits.at_least(config.data, "data", transitions=1, limit=0, processes=0, base_noise=0)
    for name in ("base", "expert"):
        check_source(config, name)
    d.make_locomotion(config.task).close()


def check_evaluation(config: ConfigDict) -> None:
    """Refuses rollouts of no episode, of no step or at no scale."""
    e = config.evaluation
    limits.at_least(e, "evaluation", episodes=2)  # an interval needs two
    names = ("max_steps", "batch", "windows", "num_actions")
    limits.at_least(e, "evaluation", **dict.fromkeys(names, 1))
    names = ("candidates", "num_evaluations", "films", "paper_t_stop")
    limits.at_least(e, "evaluation", **dict.fromkeys(names, 0))
    for row in e.rows:
        choose("evaluation.rows", row, MEANING)
    most = TEST - VALIDATION
    if not 2 <= e.validation_episodes <= most:
        raise ValueError(
            f"evaluation.validation_episodes is {e.validation_episodes}; use 2 or more, "
            f"and at most {most:,}, after which the reported episodes begin"
        )
    if e.num_actions > config.model.horizon:
        raise ValueError(
            f"evaluation.num_actions={e.num_actions} is more than the model.horizon="
            f"{config.model.horizon} steps of a plan; use at most as many"
        )
    limits.check_scales(e.scales)
    limits.finite(e, "evaluation", "paper_scale")
    limits.check_levels(e.paper_t_stops, config.model.num_steps, "evaluation.paper_t_stops")
    if e.num_evaluations > config.model.num_steps:
        raise ValueError(
            f"evaluation.num_evaluations={e.num_evaluations} is more than the "
            f"model.num_steps={config.model.num_steps} levels; use at most as many"
        )


def check_source(config: ConfigDict, name: str) -> None:
    """Refuses a dataset by its name, before anything is read or collected."""
    spec = config.data[name]
    kind, rest = d.parse_source(spec)
    if kind == "collect":
        task, _, what = rest.partition("/")
        d.read_index(task)
        choose(f"kind of data.{name}", what, KINDS)
    other = d.source_task(spec)
    if other not in (None, config.task):
        raise ValueError(
            f"data.{name}={spec!r} are data of {other}, but the task is {config.task}; "
            f"use data of {config.task}"
        )

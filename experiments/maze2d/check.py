"""What a config of a maze run may hold; checked before the first stage."""

from configs.common import ConfigDict, choose
from diffreward import data as d
from experiments import limits
from experiments.build import build_objective
from experiments.maze2d.build import REWARDS


def check(config: ConfigDict) -> None:
    """Refuses values that a stage would only meet much later."""
    choose("maze", config.maze, d.MAZE_NAMES)
    goals = list(config.goals)
    known = [g for g in goals if type(g) is int and 1 <= g <= 8]
    if not goals or len(set(known)) < len(goals):
        raise ValueError(f"goals must be different numbers from 1 to 8, got {goals}")
    limits.check_seed(config.seed)
    limits.check_model(config.model)
    for name in REWARDS:
        choose(f"{name}.source", config[name].source, limits.REWARD_SOURCES)
        limits.check_window(config[name], name, config.model.horizon)
    limits.check_training(config, "base", "experts", "start", *REWARDS)
    if config.conditioned:
        check_conditioned(config)
    check_data(config)
    check_evaluation(config)
    choose("experts.init", config.experts.init, ("base", "scratch"))


def check_conditioned(config: ConfigDict) -> None:
    """Refuses what would show a goal with noise, or sample without one."""
    for name in REWARDS:
        section = config[name]
        if not build_objective(section.preset).conditioned:
            raise ValueError(
                f"{name}.preset={section.preset!r} shows a reward its conditions with "
                "noise, a goal among them; use preset='score' with conditioned experts"
            )
        if section.source == "models":
            raise ValueError(
                f"{name}.source='models' samples from first states only, conditioned "
                "experts are told a goal at every step; use base, expert, mixed or crossed"
            )


def check_data(config: ConfigDict) -> None:
    """Refuses datasets without rows, or of no episode."""
    names = ("base_transitions", "expert_transitions", "frame_skip", "max_steps")
    limits.at_least(config.data, "data", **dict.fromkeys(names, 1))
    limits.at_least(config.data, "data", action_noise=0, hold=0, processes=0, limit=0)


def check_evaluation(config: ConfigDict) -> None:
    """Refuses measurements of nothing."""
    e, name = config.evaluation, "evaluation"
    names = ("episodes", "windows", "noises", "plans", "map_episodes", "map_min_count")
    limits.at_least(e, name, **dict.fromkeys(names, 1), map_smoothing=0, replan=0)
    limits.positive(e, name, "reach", "map_bin")
    limits.shares(e, name, "map_quantile")
    limits.check_scales(e.scales)
    choose("evaluation.space", e.space, ("eps", "mean", "input"))

"""What a config of policies from scratch may hold; checked before the first stage."""

from configs.common import ConfigDict, choose
from experiments import limits
from experiments.maze2d.check import check as check_maze
from experiments.rl.pay import FORMS

STATES = ("base", "experts", "start", "rewards", "discriminator")
"""Training sections of ``states``."""


def check(config: ConfigDict) -> None:
    """Refuses values that would only fail after hours."""
    check_maze(config.maze2d)
    if config.maze2d.conditioned:
        raise ValueError(
            "maze2d.conditioned=True has one expert of all goals, policies are paid by the "
            "reward of their own goal's; set maze2d.conditioned=False"
        )
    if not config.run:
        raise ValueError("run is empty; name the folder of a maze run")
    limits.check_seed(config.seed)
    counts = ("seeds", "window_levels", "episode_steps", "steps", "evaluate_every")
    limits.at_least(
        config, "", **dict.fromkeys(counts, 1), evaluation_episodes=1, first_seed=0
    )
    limits.at_least(
        config.ppo, "ppo", num_envs=1, rollout=1, batch_size=2, epochs=1, entropy=0
    )
    limits.positive(config.ppo, "ppo", "learning_rate")
    limits.shares(config.ppo, "ppo", "gamma", "gae_lambda")
    if config.window_levels > config.maze2d.model.num_steps:
        raise ValueError(
            f"window_levels={config.window_levels} is more than the maze2d.model.num_steps="
            f"{config.maze2d.model.num_steps} levels of the models; use at most as many"
        )
    for name in ("rewards", "goals"):
        if not config[name] or len(set(config[name])) < len(config[name]):
            raise ValueError(f"{name} is {config[name]!r}; name different ones")
    for kind in config.rewards:
        choose("reward", kind, FORMS)
    check_states(config.states)
    if "true" not in config.rewards:
        raise ValueError("rewards must include 'true': returns are shares of its return")
    if missing := set(config.goals) - set(config.maze2d.goals):
        raise ValueError(f"goal {min(missing)} has no expert in the maze run")
    per_update = config.ppo.num_envs * config.ppo.rollout
    for name in ("steps", "evaluate_every"):
        if config[name] % per_update:
            raise ValueError(
                f"{name}={config[name]} is not a multiple of the {per_update} steps "
                "between updates; choose one"
            )


def check_states(section: ConfigDict) -> None:
    """Refuses models of states that could not be trained or read."""
    limits.check_model(section.model, "states.model")
    if section.model.pinned:
        raise ValueError(
            f"states.model.pinned is {section.model.pinned!r}; what is pinned has no "
            "reward of its own, so leave it empty"
        )
    limits.check_training(section, *STATES, prefix="states")
    limits.check_window(section.rewards, "states.rewards", section.model.horizon)
    if not section.model.conservative:
        raise ValueError(
            "states.model.conservative is False; the penalty of 'regularised' needs the "
            "base's log density, so leave it True"
        )
    limits.at_least(section, "states", beta=0)
    levels, most = section.levels, section.model.num_steps
    limits.check_levels(levels, most, "states.levels")
    if not levels:
        raise ValueError("states.levels is empty; name one or more, such as (0,)")

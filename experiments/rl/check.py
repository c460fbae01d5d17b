"""What a config of policies from scratch may hold; checked before the first stage."""

from configs.common import ConfigDict, choose
from experiments import limits
from experiments.maze2d.check import check as check_maze

KINDS = ("true", "extracted", "random")
CREDITS = ("state", "window")


def check(config: ConfigDict) -> None:
    """Refuses values that would only fail after hours."""
    check_maze(config.maze2d)
    if not config.run:
        raise ValueError("run is empty; name the folder of a maze run")
    limits.check_seed(config.seed)
    counts = ("seeds", "levels", "episode_steps", "steps", "evaluate_every")
    limits.at_least(config, "", **dict.fromkeys(counts, 1), evaluation_episodes=1)
    limits.at_least(
        config.ppo, "ppo", num_envs=1, rollout=1, batch_size=2, epochs=1, entropy=0
    )
    limits.positive(config.ppo, "ppo", "learning_rate")
    limits.shares(config.ppo, "ppo", "gamma", "gae_lambda")
    if config.levels > config.maze2d.model.num_steps:
        raise ValueError(
            f"levels={config.levels} is more than the maze2d.model.num_steps="
            f"{config.maze2d.model.num_steps} levels of the models; use at most as many"
        )
    for name in ("rewards", "goals"):
        if not config[name] or len(set(config[name])) < len(config[name]):
            raise ValueError(f"{name} is {config[name]!r}; name different ones")
    for kind in config.rewards:
        choose("reward", kind, KINDS)
    choose("credit", config.credit, CREDITS)
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

"""Policies trained from scratch on an extracted reward, the true one, and others.

    python -m experiments.rl --config=configs/rl.py:umaze --workdir=runs/rl/umaze

Reads the window reward of the Maze2D run in ``--config.run`` (by default the one of
``make demo``) and trains what is missing there, a pair over single states among it. Needs
``pip install -e '.[rl]'``.
Switches after the colon: a maze (umaze, open, medium, large) and a preset:

    cpu    (default) six goals, five seeds each, every form of pay; settings were chosen
           with seeds from 10 on of the other two goals, 3 and 6
    smoke  one goal, two seeds, a few thousand steps; checks the path, not the figures

Any key below can be overridden: ``--config.seeds=10``.
"""

from configs import maze2d
from configs.common import ConfigDict, parse_switches, training

# Steps of an episode (enough to cross the maze and stay), and of a training.
MAZES = {
    "umaze": (100, 65_536),
    "open": (100, 65_536),
    "medium": (150, 262_144),
    "large": (200, 524_288),
}
PRESETS = ("cpu", "smoke")


def get_config(argument: str = "umaze") -> ConfigDict:
    """Builds the config of one maze and preset."""
    switches = parse_switches(argument, maze=MAZES, preset=PRESETS)
    maze, preset = switches["maze"], switches["preset"]
    c = ConfigDict()
    # The run that the reward comes from: its folder and its config.
    c.run = f"runs/{maze}"
    c.maze2d = maze2d.get_config(f"{maze},{preset}")
    c.seed = 0
    c.goals = (1, 2, 4, 5, 7, 8)
    c.seeds = 5  # policies per goal and reward
    c.first_seed = 0  # of them
    c.rewards = (
        "true",
        "states",
        "regularised",
        "counting",
        "discriminator",
        "map",
        "ranks",
        "windows",
        "random",
    )
    c.window_levels = 4  # noise levels that "windows" are averaged over
    c.states = _states(c.maze2d, preset)
    c.episode_steps, c.steps = MAZES[maze]
    c.evaluate_every = 16_384
    c.evaluation_episodes = 128

    c.ppo = p = ConfigDict()
    p.num_envs = 128
    p.rollout = 32  # steps per agent between updates
    p.batch_size = 512
    p.epochs = 10
    p.learning_rate = 1e-3
    p.gamma = 0.99
    p.gae_lambda = 0.95
    p.entropy = 0.0

    if preset == "smoke":
        c.rewards = ("true", "states", "regularised", "random")
        c.goals, c.seeds = (1,), 2
        c.steps, c.evaluate_every, c.evaluation_episodes = 8_192, 4_096, 32
    return c.lock()


def _states(maze: ConfigDict, preset: str) -> ConfigDict:
    """The pair over states: the maze's models without actions and without conditions."""
    c = ConfigDict()
    c.model = ConfigDict(maze.model.to_dict())
    c.model.horizon, c.model.pinned = 1, ()  # states in a row
    c.model.conservative = True  # so that the base has a log density
    c.beta = 0.3  # of the penalty of leaving the base, with "regularised"
    # Noise levels that a state's value is averaged over: where there is little noise, a
    # ratio is least blurred over what neither model has seen.
    c.levels = (1,)
    c.base = training(steps=4000, batch_size=256, learning_rate=1e-3)
    c.experts = training(steps=1000, batch_size=128, learning_rate=1e-3)
    c.experts.init = "base"
    c.start = ConfigDict(maze.start.to_dict())
    c.rewards = ConfigDict(maze.rewards.to_dict())
    c.rewards.steps = 2000
    c.discriminator = training(steps=2000, batch_size=128, learning_rate=1e-3)
    c.discriminator.width, c.discriminator.depth, c.discriminator.time_width = 192, 2, 0
    if preset == "smoke":
        for t in (c.base, c.experts, c.start, c.rewards, c.discriminator):
            t.steps, t.batch_size, t.checkpoint_every = 300, 64, 100
    return c

"""Policies trained from scratch on an extracted, the true and a random reward.

    python -m experiments.rl --config=configs/rl.py:umaze --workdir=runs/rl/umaze

Reads the window reward of the Maze2D run in ``--config.run`` (by default the one of
``make demo``) and trains what is missing there. Needs ``pip install -e '.[rl]'``.
Switches after the colon: a maze (umaze, open, medium, large) and a preset:

    cpu    (default) two goals, three rewards, five seeds each
    smoke  one goal, two seeds, a few thousand steps; checks the path, not the figures

Any key below can be overridden: ``--config.seeds=10``.
"""

from configs import maze2d
from configs.common import ConfigDict, parse_switches

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
    c.goals = (1, 5)
    c.seeds = 5  # policies per goal and reward
    c.rewards = ("true", "extracted", "random")
    c.credit = "state"  # who earns a window's reward: "state" (its place) or "window"
    c.ranked = True  # with credit = "state": the place's rank is paid, not its value
    c.levels = 4  # noise levels the reward is averaged over with credit = "window"
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
        c.goals, c.seeds = (1,), 2
        c.steps, c.evaluate_every, c.evaluation_episodes = 8_192, 4_096, 32
    return c.lock()

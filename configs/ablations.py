"""Locomotion with one thing changed at a time: every study of its config, in one table.

    python -m experiments.ablations --config=configs/ablations.py:halfcheetah

Switches after the colon, in any order:

    task    halfcheetah, hopper, walker2d, or a further entry of data.LOCOMOTION
    preset  cpu (default, hours on two cores), smoke (minutes; checks the path)
    about   published (default: the pair, and the published loss), steering (the learned
            reward: its loss, its steps, its states, and how plans are drawn)

Every study is a run of experiments.locomotion in a folder of its own, smaller than the
default one; base and expert are trained once for all studies that leave them alone.
"""

from configs import locomotion
from configs.common import ConfigDict, parse_switches

TASKS = locomotion.TASKS
PRESETS = ("cpu", "smoke")
STUDIES = {
    "published": tuple(s for s in locomotion.STUDIES if s not in locomotion.STEERING),
    "steering": locomotion.STEERING,
}
"""By what they are about; names of configs/locomotion.py."""


def get_config(argument: str = "halfcheetah") -> ConfigDict:
    """Builds the config of one task and preset."""
    switches = parse_switches(argument, task=TASKS, preset=PRESETS, about=STUDIES)
    c = ConfigDict()
    c.task, c.preset = switches["task"], switches["preset"]
    c.seed = 0
    c.studies = STUDIES[switches["about"]]

    # Of every study, unless that is what it changes; see configs/locomotion.py.
    c.shared = s = ConfigDict()
    s.reward_steps = 4_000
    s.seeds = 2  # of rewards
    s.episodes = 20  # per seed of a reward
    s.validation_episodes = 4
    s.scales = (0.03, 0.1, 0.3, 0.5, 1.0)
    s.rows = ("means", "means-exact")
    s.transitions = 150_000
    if switches["about"] == "steering":
        s.rows = ("score-chosen", "best-of-n", "best-steered", "smc")
        s.scales, s.validation_episodes = (0.3, 0.5, 1.0), 10
    if c.preset == "smoke":
        s.reward_steps = 20
        s.episodes, s.validation_episodes, s.scales = 2, 2, (0.5,)
        s.transitions = locomotion.get_config(f"{c.task},smoke").data.transitions
    return c.lock()

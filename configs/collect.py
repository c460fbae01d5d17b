r"""Locomotion data made here: a SAC agent's replay buffer and its final policy.

    python -m experiments.collect --config=configs/collect.py:hopper \
        --workdir=runs/collect/hopper

Needs the extra ``rl``: ``pip install -e '.[rl]'``. Switches: a task (an entry of
data.LOCOMOTION) and a preset (``full``, the default, hours on two cores; ``smoke``, a
minute).
"""

from configs.common import ConfigDict, parse_switches
from diffreward.data import LOCOMOTION

TASKS = LOCOMOTION
PRESETS = ("full", "smoke")


def get_config(argument: str = "hopper") -> ConfigDict:
    """Builds the config of one task and preset."""
    switches = parse_switches(argument, task=TASKS, preset=PRESETS)
    c = ConfigDict()
    c.task = switches["task"]
    c.seed = 0
    c.steps = 700_000  # of the simulator
    c.learning_rate = 3e-4
    c.batch_size = 128
    c.learning_starts = 10_000  # uniformly random steps before the first update
    c.steps_per_dispatch = 8  # simulator steps, and as many updates, at a time
    c.policy_delay = 2  # critic updates per actor update
    c.evaluate_every = 20_000  # also saves a snapshot and a checkpoint
    c.evaluation_episodes = 5
    c.medium_score = 40.0  # medium-replay is everything seen until this score
    c.expert_transitions = 300_000
    if switches["preset"] == "smoke":
        c.steps, c.learning_starts, c.evaluate_every = 4_000, 500, 1_000
        c.evaluation_episodes, c.expert_transitions = 2, 2_000
    return c.lock()

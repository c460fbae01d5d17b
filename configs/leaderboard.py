"""Every extractor on every pair with a known reward, at equal compute.

    python -m experiments.leaderboard --config=configs/leaderboard.py

Presets after the colon:

    cpu    (default) every extractor on every pair, under 20 minutes on two cores
    smoke  a few extractors on two pairs, few steps; checks the path, not the figures

Trained extractors get the same steps, batch and network width; the others train nothing
and are listed with the network evaluations that one value costs. Expected: gradient
alignment within 5 % of the exact relative score on every closed-form pair.
"""

from configs.common import ConfigDict, parse_switches

PRESETS = ("cpu", "smoke")


def get_config(argument: str = "cpu") -> ConfigDict:
    """Builds the config of one preset."""
    preset = parse_switches(argument, preset=PRESETS)["preset"]
    c = ConfigDict()
    c.seed = 0
    c.pairs = ()  # names; all by default
    c.extractors = ()  # rows of the table; all by default
    c.num_steps = 40  # noise levels T, cosine
    c.samples = 16_384  # of each law, to learn from

    c.training = t = ConfigDict()
    t.steps = 2000
    t.batch_size = 128
    t.learning_rate = 3e-3
    t.width = 64
    t.depth = 2

    c.noises = 16  # per level or path, of the training-free
    c.probes = 0  # of the divergence; 0 for the exact one
    c.beta = 1.0  # of the dpo weights

    c.maze = m = ConfigDict()  # data with a known clean reward, models learned
    m.transitions = 30_000
    m.horizon = 8  # control steps of a window of positions
    m.beta = 0.3  # temperature of exp(reward / beta), metres
    m.steps = 3000  # of both denoisers
    m.width = 128

    c.test_samples = 64  # of each law, at every level

    if preset == "smoke":
        c.pairs = ("gaussians", "maze")
        c.extractors = ("gradient_alignment", "loss_gap:integral", "discriminator")
        c.num_steps = 16
        c.samples = 1024
        c.noises = 4
        t.steps = m.steps = 60
        t.width = m.width = 32
        m.transitions = 4000
        c.test_samples = 8
    return c.lock()

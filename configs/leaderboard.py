"""Every extractor on every pair with a known reward, at equal steps, batch and width.

    python -m experiments.leaderboard --config=configs/leaderboard.py

Presets after the colon:

    cpu    (default) every extractor on every pair
    smoke  a few extractors on two pairs, few steps; checks the path, not the figures

Trained extractors get the same steps, batch and network width, which is not the same
compute: gradient alignment asks three networks per sample where the others ask one. The
page lists the evaluations of each, to fit and per value. Expected: gradient alignment
within 5 % of the exact relative score on every closed-form pair.
"""

from configs.common import ConfigDict, parse_switches

PRESETS = ("cpu", "smoke")


def get_config(argument: str = "cpu") -> ConfigDict:
    """Builds the config of one preset."""
    preset = parse_switches(argument, preset=PRESETS)["preset"]
    c = ConfigDict()
    c.seed = 0  # the first of
    c.seeds = 3  # of all that is learned: data, models, extractors
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
    m.transitions = 48_000
    m.horizon = 8  # control steps of a window of positions
    m.beta = 0.3  # temperature of exp(reward / beta), metres
    m.steps = 3000  # of both denoisers
    m.width = 128
    m.held_out = 1024  # windows to judge on, at least; of whole episodes
    m.cells = 16  # per side of the grid on which visits are counted
    # Values of training-free rewards are dear; they are means over levels besides.
    m.noises = 4
    m.probes = 2

    c.test_samples = 64  # of each law, at every level

    if preset == "smoke":
        c.pairs = ("gaussians", "maze")
        c.extractors = ("gradient_alignment", "loss_gap:integral", "discriminator")
        c.seeds, c.num_steps = 2, 16
        c.samples = 1024
        c.noises = 4
        t.steps = m.steps = 60
        t.width = m.width = 32
        m.transitions, m.held_out = 4000, 64
        c.test_samples = 8
    return c.lock()

"""Maze2D: base and eight goal experts of one maze, their rewards, maps and steering.

    python -m experiments.maze2d --config=configs/maze2d.py:umaze --workdir=runs/umaze

Switches after the colon: a maze (umaze, open, medium, large), whether there is one expert
(and one reward) per goal (separate, the default) or one that is told the goal
(conditioned), and a preset:

    cpu    (default) all eight goals in about ten minutes on two cores (U-maze)
    smoke  every stage, two goals, two minutes; checks the path, not the figures
    gpu    the cpu preset with larger networks, batches and more steps
    paper  the published settings: temporal U-Net, H=256, T=100, LeakyReLU window
           reward, base-mean evaluation (days on two cores)

Any key below can be overridden: ``--config.rewards.steps=4000``. Expected results of
``umaze``, ``medium`` and ``large`` at the cpu preset stand in the README with their
commands.
"""

from configs.common import ConfigDict, parse_switches, training

# Control steps per plan, and physics steps (of 10 ms) per control step: a plan must be
# long enough to cross its maze.
MAZES = {"umaze": (40, 6), "open": (24, 6), "medium": (64, 8), "large": (96, 8)}
PRESETS = ("cpu", "smoke", "gpu", "paper")
EXPERTS = ("separate", "conditioned")


def get_config(argument: str = "umaze") -> ConfigDict:
    """Builds the config of one maze and preset."""
    switches = parse_switches(argument, maze=MAZES, preset=PRESETS, experts=EXPERTS)
    maze, preset = switches["maze"], switches["preset"]
    horizon, frame_skip = MAZES[maze]
    c = ConfigDict()
    c.maze = maze
    c.seed = 0
    c.goals = tuple(range(1, 9))  # which of the maze's eight goals have an expert
    # One expert and one reward for all goals, each told the goal at every step.
    c.conditioned = switches["experts"] == "conditioned"

    c.data = d = ConfigDict()
    d.base_transitions = 300_000
    d.expert_transitions = 80_000  # per goal
    d.frame_skip = frame_skip
    d.action_noise = 0.3  # std added to the controller's action before clipping
    d.hold = horizon  # control steps an episode goes on after reaching its target
    d.max_steps = 300  # an episode that has not arrived by then is dropped
    d.limit = (
        0  # transitions of each dataset that models learn from; 0: all but the held-out
    )
    d.processes = 2

    c.model = m = ConfigDict()
    m.horizon = horizon
    m.pad = False  # also windows that run past the end of an episode
    m.mask_padding = True  # rows past the end of an episode are left out of losses
    m.pinned = (0,)  # steps whose observation is a condition
    m.num_steps = 32  # noise levels T
    m.schedule = "cosine"
    m.network = "mlp"  # or "unet"
    m.conservative = False  # predict x_0 as the gradient of an energy
    m.width = 256
    m.depth = 3
    m.time_width = 0  # of the mlp's time path; 0: as wide as the rest
    m.dim_mults = (1, 4, 8)  # of the unet
    m.attention = False  # of the unet
    m.clip = 0.0  # clamp of the predicted clean sample; 0 for none
    m.action_weight = 1.0  # of the first action, in the loss

    c.base = training(steps=4000, batch_size=256, learning_rate=1e-3)
    c.experts = training(steps=1000, batch_size=128, learning_rate=5e-4)
    c.experts.init = "base"  # or "scratch"

    # The energy that a base without one is distilled into, for residual rewards.
    c.start = training(steps=4000, batch_size=256, learning_rate=1e-3)

    c.rewards = r = training(steps=1000, batch_size=128, learning_rate=1e-3)
    r.preset = "score"  # or "paper"
    r.network = "inner"  # inner, scalar, squares, value, single_step, residual
    r.width = 192
    r.depth = 2
    r.time_width = 0
    r.window = 0  # 0: one network over the whole horizon
    r.strided = False
    r.source = "mixed"  # where x_0 comes from: base, expert, mixed, models or crossed
    r.samples = 8_192  # of each model at the other's states, for "crossed"
    r.seeds = 1

    c.window_rewards = w = training(steps=800, batch_size=128, learning_rate=1e-3)
    w.preset = "score"
    w.network = "inner"
    w.width = 96
    w.depth = 2
    w.time_width = 0
    w.window = 8
    w.strided = False
    w.source = "mixed"
    w.samples = 8_192
    w.seeds = 1

    c.evaluation = e = ConfigDict()
    e.episodes = 200  # test episodes per class, for AUROC and correlations
    e.windows = 200  # held-out windows per class
    e.noises = 2  # noises per level
    e.plans = 200  # start states for steering
    e.scales = (0.5, 1.0, 2.0)
    e.replan = 8  # control steps until a plan is made anew; 0: such plans are left out
    e.space = "eps"
    e.reach = 0.5  # metres (half a cell) from the goal that count as reached
    e.map_episodes = 400
    e.map_bin = 0.2  # metres
    e.map_quantile = 0.9  # of the values in a bin; 0: their mean, as published
    e.map_smoothing = 1.0  # bins
    e.map_min_count = 20  # positions a bin needs to be shown

    if preset == "smoke":
        _smoke(c)
    elif preset == "gpu":
        _gpu(c)
    elif preset == "paper":
        _paper(c)
    if c.conditioned:
        # As many samples as one expert of each of eight goals sees.
        for t in (c.experts, c.rewards, c.window_rewards):
            t.steps, t.batch_size = 4 * t.steps, 2 * t.batch_size
    return c.lock()


def _smoke(c: ConfigDict) -> None:
    c.goals = (1, 8)
    # Enough held-out episodes (some 190) for a map.
    c.data.base_transitions, c.data.expert_transitions = 100_000, 20_000
    c.model.width = 128
    c.base.steps, c.experts.steps, c.start.steps = 600, 300, 300
    c.rewards.steps, c.window_rewards.steps = 300, 300
    c.rewards.width = c.window_rewards.width = 64
    for t in (c.base, c.experts, c.rewards, c.window_rewards):
        t.batch_size = 64
        t.checkpoint_every = 100
    c.evaluation.episodes = c.evaluation.windows = c.evaluation.plans = 48
    # The tails of rewards trained this little are noise: over five seeds the upper decile
    # has the peak of goal 1 up to 0.8 m away; the median, over eight, at most 0.28 m.
    c.evaluation.map_quantile = 0.5
    c.evaluation.noises = 1


def _gpu(c: ConfigDict) -> None:
    c.data.base_transitions, c.data.expert_transitions = 4_000_000, 1_000_000
    c.model.width, c.rewards.width, c.window_rewards.width = 1024, 1024, 256
    c.model.num_steps = 64
    c.base.steps, c.experts.steps, c.start.steps = 50_000, 20_000, 50_000
    c.rewards.steps, c.window_rewards.steps = 20_000, 10_000
    for t in (c.base, c.experts, c.rewards, c.window_rewards):
        t.batch_size = 512
        t.steps_per_dispatch = 500
        t.checkpoint_every = 5000
    c.rewards.seeds = 3


def _paper(c: ConfigDict) -> None:
    """Settings of the published code; the shared normaliser and split stay ours."""
    c.data.base_transitions = c.data.expert_transitions = 10_000_000
    c.data.frame_skip, c.data.hold, c.data.max_steps = 1, 0, 1000
    c.data.action_noise = 0.0
    m = c.model
    m.horizon, m.num_steps, m.pinned, m.clip = 256, 100, (0, -1), 1.0
    m.network, m.mask_padding = "unet", False
    for t, steps, batch_size, rate in (
        (c.base, 500_000, 128, 2e-4),
        (c.experts, 500_000, 128, 2e-4),
        (c.rewards, 100_000, 256, 5e-5),
        (c.window_rewards, 100_000, 256, 5e-5),
    ):
        t.steps, t.batch_size, t.learning_rate = steps, batch_size, rate
        t.schedule, t.clip_norm, t.ema_decay = "constant", 0.0, 0.995
        t.checkpoint_every = 5000
    c.experts.init = "scratch"
    for r, window in ((c.rewards, 256), (c.window_rewards, 4)):
        r.preset, r.network, r.source = "paper", "single_step", "base"
        r.window, r.strided = window, True
    c.evaluation.space, c.evaluation.map_quantile = "input", 0.0

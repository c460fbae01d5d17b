r"""Locomotion: base and expert Diffuser, rewards, baselines, rollouts, one table.

    python -m experiments.locomotion --config=configs/locomotion.py:hopper \
        --workdir=runs/hopper

Switches after the colon, in any order:

    task    halfcheetah, hopper, walker2d, or a further entry of data.LOCOMOTION
    preset  cpu (default, within the hour on two cores), smoke (a minute), gpu, paper
    source  collect (default: data made here by the shipped policies), d4rl, minari
    model   diffuser (default: plans of actions and observations), policy (actions alone,
            under the observation; two of each plan are executed)
    study   none (default), transfer (rewards judged on a base of another seed),
            medium-base (a base of medium data), small-data (a tenth of the transitions),
            no-data (rewards from samples of the two models alone), high-rate, low-rate
            (learning rate of the rewards times 5, by 5), clipped (their gradients clipped
            per entry, as in the published sweep), scratch-expert (an expert that did not
            start at the base), unet-expert (one of another network, and no gradient of
            an energy), no-energy (as that, and the base is no gradient either),
            clipped-weights, l2 (of the rewards of the published loss, as swept), noised
            (a base of data in fixed noise), short-base (a tenth of its steps), grid (last
            levels and scales of the published guidance, as swept), inner (rewards that
            start at nothing), longer (three times the steps of the reward), wsd (constant
            rate, then decay), chain-kl, relative (other weights of its loss), visited (two
            rounds of training on what the steered base met), ten-evaluations, all-levels
            (of the network per plan), candidates (best of eight plans, and particles)

Any key below can be overridden: ``--config.rewards.steps=4000``.
"""

from typing import NamedTuple

from configs.common import ConfigDict, parse_switches, training
from diffreward.data import LOCOMOTION

TASKS = LOCOMOTION
PRESETS = ("cpu", "smoke", "gpu", "paper")
SOURCES = ("collect", "d4rl", "minari")
MODELS = ("diffuser", "policy")
STEERING = (
    "inner",
    "longer",
    "wsd",
    "chain-kl",
    "relative",
    "visited",
    "ten-evaluations",
    "all-levels",
    "candidates",
)
"""Studies of the learned reward: its loss, steps and states, and how plans are drawn."""
STUDIES = (
    "none",
    "transfer",
    "medium-base",
    "small-data",
    "no-data",
    "high-rate",
    "low-rate",
    "clipped",
    "scratch-expert",
    "unet-expert",
    "no-energy",
    "clipped-weights",
    "l2",
    "noised",
    "short-base",
    "grid",
    *STEERING,
)


EXPERT_KEYS = (
    "network",
    "conservative",
    "width",
    "depth",
    "time_width",
    "dim_mults",
    "attention",
)
"""What may differ between the networks of expert and base."""


class Settings(NamedTuple):
    """What differs between tasks; the defaults serve any other."""

    paper_horizon: int = 32
    """Of a plan, in the paper's settings."""
    horizon: int = 4
    """Of a plan, in ours for two cores."""
    paper_scale: float = 0.5
    """Of the published guidance."""
    paper_t_stop: int = 5
    """Last level that is guided as published."""
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    """Of the unet."""
    attention: bool = False
    """Of the unet."""
    smoke_transitions: int = 8_000
    """Where no episode ends early, each of six policies needs a second one of 1,000
    steps, or there are too few to split."""


SETTINGS = {
    "halfcheetah": Settings(4, dim_mults=(1, 4, 8), attention=True),
    "hopper": Settings(32, 8, 0.2, 10, smoke_transitions=4_000),
    "walker2d": Settings(32, smoke_transitions=4_000),
}


def get_config(argument: str = "hopper") -> ConfigDict:
    """Builds the config of one task, preset, source and study."""
    switches = parse_switches(
        argument,
        task=TASKS,
        preset=PRESETS,
        source=SOURCES,
        model=MODELS,
        study=STUDIES,
    )
    task, preset, source = (switches[k] for k in ("task", "preset", "source"))
    own = SETTINGS.get(task, Settings())
    c = ConfigDict()
    c.task = task
    c.seed = 0

    c.data = d = ConfigDict()
    d.base, d.expert = {
        "collect": (f"collect:{task}/medium-replay", f"collect:{task}/expert"),
        "d4rl": (f"d4rl:{task}-medium-replay-v2", f"d4rl:{task}-expert-v2"),
        "minari": (f"minari:mujoco/{task}/medium-v0", f"minari:mujoco/{task}/expert-v0"),
    }[source]
    d.folder = ""  # where d4rl and minari files lie; empty: their usual cache
    d.transitions = 150_000  # to collect, per dataset
    d.limit = 0  # use only the first so many transitions; 0: all
    d.base_noise = 0.0  # fixed and Gaussian, in deviations, on what the base learns from
    d.processes = 2

    c.model = m = ConfigDict()
    m.horizon = own.horizon
    m.pad = True
    m.mask_padding = True
    m.pinned = (0,)
    # Actions under the first observation, which is shown at every step; no observation is
    # a part of the plan.
    m.policy = switches["model"] == "policy"
    m.num_steps = 20
    m.schedule = "cosine"
    m.network = "mlp"  # or "unet"
    m.conservative = True  # predict x_0 as the gradient of an energy
    m.width = 256
    m.depth = 3
    m.time_width = 64  # of the mlp's time path
    m.dim_mults, m.attention = own.dim_mults, own.attention  # of the unet
    m.clip = 0.0
    m.action_weight = 1.0  # of the first action, in the loss

    c.base = training(steps=12_000, batch_size=256, learning_rate=1e-3)
    c.expert = training(steps=12_000, batch_size=256, learning_rate=1e-3)
    c.expert.init = "base"  # or "scratch"

    # Of the expert, where its network is another one; what is not set follows the base's.
    c.expert_model = x = ConfigDict()
    for key in EXPERT_KEYS:
        x[key] = m.get_oneway_ref(key)

    # The energy that a base without one is distilled into, for residual rewards.
    c.start = training(steps=12_000, batch_size=256, learning_rate=1e-3)

    c.rewards = r = training(steps=12_000, batch_size=128, learning_rate=1e-3)
    r.preset = "score"
    r.network = "residual"  # inner, scalar, squares, value, single_step, residual
    r.width, r.depth, r.time_width = 256, 3, 64  # not used by the residual network
    r.window = 0
    r.strided = False
    r.source = "crossed"  # base, expert, mixed, models, crossed
    r.weighting = "plain"  # of noised states: or chain_kl, relative
    r.rounds = 0  # of training anew on what the steered base met as well
    r.visits = 10  # episodes per seed and round
    r.samples = 32_768  # of each model at the other's states, for "crossed"
    r.seeds = 5

    c.paper_rewards = p = training(steps=2_000, batch_size=64, learning_rate=2e-4)
    p.preset = "paper"
    p.network = "value"
    p.width, p.depth, p.time_width = 256, 3, 64  # not used by the value network
    p.window = 0
    p.strided = False
    p.source = "mixed"
    p.samples = 32_768
    p.seeds = 5

    c.discriminator = training(steps=4_000, batch_size=128, learning_rate=2e-4)
    c.discriminator.width, c.discriminator.depth = 256, 3
    c.discriminator.time_width = 64
    c.discriminator.seeds = 5

    c.value = training(steps=3_000, batch_size=128, learning_rate=1e-3)
    c.value.width, c.value.depth, c.value.time_width = 256, 3, 64
    c.value.discount = 0.99
    c.value.seeds = 1

    c.evaluation = e = ConfigDict()
    e.episodes = 50  # per seed of a reward; rows without seeds get as many in all
    # Of the table besides unsteered, score and expert; () for all but "energies" and
    # "difference", which are the expert's sampler in exact arithmetic.
    e.rows = ()
    e.validation_episodes = 4  # per seed of a reward, for the choice of a scale
    # Tried on validation episodes; a classifier's best is below those of the others.
    e.scales = (0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
    e.max_steps = 1000
    e.batch = 128  # episodes at once
    e.candidates = 0  # plans per step of the row "best-of-n"; 0: no such row
    e.num_actions = 2 if m.policy else 1  # of a plan, executed before the next is made
    e.num_evaluations = 5  # network evaluations per plan by DDIM; 0: every level
    e.paper_scale, e.paper_t_stop = own.paper_scale, own.paper_t_stop
    e.paper_t_stops = ()  # last levels to choose from; (): 0 and paper_t_stop
    e.paper_stop_below = False  # end an episode at a return of -50, as published
    e.windows = 256  # held-out windows per class, for FVU and AUROC
    e.films = 1  # episodes per method to record

    if preset == "smoke":
        _smoke(c, own)
    elif preset == "gpu":
        _gpu(c)
    elif preset == "paper":
        _paper(c, task, own)
    c.other_base = False  # judge rewards on a base of another seed
    _study(c, switches["study"])
    return c.lock()


def _study(c: ConfigDict, study: str) -> None:
    rewards = (c.rewards, c.paper_rewards)
    if study == "transfer":
        c.other_base = True
    elif study == "medium-base":
        c.data.base = c.data.base.replace("medium-replay", "medium")
    elif study == "small-data":
        c.data.limit = max(c.data.transitions // 10, 2_000)
    elif study == "no-data":
        c.rewards.source = "models"
    elif study in ("high-rate", "low-rate"):
        for r in rewards:
            r.learning_rate *= 5.0 if study == "high-rate" else 0.2
    elif study == "scratch-expert":
        c.expert.init = "scratch"
    elif study in ("unet-expert", "no-energy"):
        c.model.conservative = study == "unet-expert"
        x = c.expert_model
        x.network, x.dim_mults, x.attention, x.conservative = "unet", (1, 4), False, False
        c.expert.init = "scratch"
    elif study == "clipped":
        for r in rewards:
            r.clip_value = 0.2
    elif study == "clipped-weights":
        c.paper_rewards.clip_weights = 3.0
    elif study == "l2":
        c.paper_rewards.l2 = 2e-4
    elif study == "noised":
        c.data.base_noise = 0.5
    elif study == "short-base":
        c.base.steps = max(c.base.steps // 10, 1)
    elif study == "inner":
        c.rewards.network = "inner"
    elif study == "longer":
        c.rewards.steps *= 3
    elif study == "wsd":
        c.rewards.schedule = "wsd"
    elif study in ("chain-kl", "relative"):
        c.rewards.weighting = study.replace("-", "_")
    elif study == "visited":
        c.rewards.rounds = 2
    elif study == "ten-evaluations":
        c.evaluation.num_evaluations = min(10, c.model.num_steps)
    elif study == "all-levels":
        c.evaluation.num_evaluations = 0
    elif study == "candidates":
        c.evaluation.candidates = 8
    elif study == "grid":
        swept = (0, 1, 2, 5, 8, 10)
        c.evaluation.paper_t_stops = tuple(t for t in swept if t < c.model.num_steps)
        c.evaluation.scales = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)


def _stages(c: ConfigDict) -> tuple[ConfigDict, ...]:
    trained = (c.base, c.expert, c.start, c.rewards, c.paper_rewards)
    return *trained, c.discriminator, c.value


def _smoke(c: ConfigDict, own: Settings) -> None:
    c.data.transitions = own.smoke_transitions
    c.model.width, c.model.depth, c.model.num_steps = 64, 2, 5
    for t in _stages(c):
        t.steps, t.batch_size, t.checkpoint_every = 100, 32, 50
    for t in (c.rewards, c.paper_rewards, c.discriminator):
        t.seeds = 2
    c.rewards.width = c.discriminator.width = c.value.width = 32
    c.paper_rewards.network, c.paper_rewards.width = "scalar", 32
    c.rewards.samples = 256
    e = c.evaluation
    e.episodes, e.validation_episodes, e.scales, e.max_steps = 2, 2, (0.5, 1.0), 30
    e.windows = 16


def _gpu(c: ConfigDict) -> None:
    c.data.transitions = 1_000_000
    c.model.width, c.rewards.width = 1024, 1024
    for t, steps in ((c.base, 200_000), (c.expert, 200_000), (c.rewards, 100_000)):
        t.steps, t.batch_size = steps, 512
        t.steps_per_dispatch, t.checkpoint_every = 500, 10_000
    c.paper_rewards.steps, c.paper_rewards.batch_size = 100_000, 128
    c.discriminator.steps, c.value.steps = 20_000, 50_000
    e = c.evaluation
    e.episodes, e.validation_episodes, e.batch = 100, 100, 512


def _paper(c: ConfigDict, task: str, own: Settings) -> None:
    """Settings of the published code; the shared normaliser and split stay ours."""
    m = c.model
    m.horizon, m.network, m.mask_padding = own.paper_horizon, "unet", False
    m.conservative = False
    m.action_weight = 10.0
    for t in (c.base, c.expert):
        t.steps, t.batch_size, t.learning_rate = 1_000_000, 32, 2e-4
        t.schedule, t.clip_norm, t.ema_decay = "constant", 0.0, 0.995
        t.checkpoint_every = 10_000
    c.expert.init = "scratch"
    p = c.paper_rewards
    p.steps, p.learning_rate = (50_000, 1e-3) if task == "walker2d" else (100_000, 2e-4)
    p.batch_size, p.schedule, p.clip_norm, p.ema_decay = 128, "constant", 0.0, 0.995
    p.clip_value = 0.2 if task == "hopper" else 0.0
    c.rewards.network, c.rewards.steps = "inner", 100_000  # no energy of a U-Net
    c.discriminator.steps, c.discriminator.batch_size = 100_000, 32
    e = c.evaluation
    e.episodes, e.validation_episodes, e.batch = 512, 128, 512
    e.paper_stop_below, e.num_evaluations = True, 0

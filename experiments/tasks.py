"""What the training loop is given: denoising tasks and reward tasks.

Only here do networks, diffusion and reward meet the trainer. Every experiment builds its
models with :class:`Model` and :class:`Reward`, so all of them share losses and sampling.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from configs.common import ConfigDict, choose
from diffreward.data import draw
from diffreward.diffusion import (
    Condition,
    Schedule,
    clip_x_0,
    cosine,
    denoising_loss,
    draw_levels,
    linear,
    pin,
    pinned_observations,
    q_sample,
    to_eps,
)
from diffreward.networks import (
    DifferenceOfSquares,
    EnergyDenoiser,
    InnerProductReward,
    ScalarReward,
    SingleStepRewardMLP,
    TemporalUnet,
    TrajectoryMLP,
    ValueFunction,
    WindowReward,
)
from diffreward.reward import (
    LatentStandards,
    Pair,
    align,
    align_latents,
    alignment_loss,
    latent_reward,
    steps_left,
    value_scale,
)
from diffreward.train import Task, make_optimiser
from diffreward.types import EpsFn, Params, RewardFn

SCHEDULES = {"cosine": cosine, "linear": linear}
NETWORKS = ("mlp", "unet")
REWARDS = ("inner", "scalar", "squares", "value", "single_step")
SOURCES = {
    "base": ("base",),
    "expert": ("expert",),
    "mixed": ("base", "expert"),
    "models": ("base", "expert"),
    "crossed": ("base", "expert", "base_at_expert", "expert_at_base"),
}
"""Sets of windows that x_0 is drawn from, in equal parts."""


def apply(network: Any, params: Params, x_t: Array, t: Array, *context: Array) -> Array:
    """Runs a network in the precision of its parameters; float32 in and out."""
    dtype = jax.tree.leaves(params)[0].dtype
    rest = (c.astype(dtype) for c in context)
    return network.apply(params, x_t.astype(dtype), t, *rest).astype(x_t.dtype)


class Model(NamedTuple):
    """A denoiser without its parameters."""

    network: Any
    schedule: Schedule
    pinned: Array
    first_action: Array
    """Mask of the entries that ``action_weight`` multiplies."""
    action_weight: float
    mask_padding: bool
    clip: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample: horizon and dim of a trajectory."""
        return self.pinned.shape

    def eps_fn(self, params: Params) -> EpsFn:
        """Noise prediction under given parameters."""

        def eps(x_t: Array, t: Array) -> Array:
            x_0 = apply(self.network, params, x_t, t)
            return to_eps(self.schedule, "x_0", x_t, t, x_0)

        return clip_x_0(eps, self.schedule, self.clip) if self.clip else eps

    def condition(self, x_0: Array) -> Condition:
        """The condition that a clean trajectory fulfils."""
        return Condition(self.pinned, x_0)


class Reward(NamedTuple):
    """A reward network without its parameters, in the units of one preset."""

    network: Any
    schedule: Schedule
    preset: Any
    num_windows: int

    def reward_fn(self, params: Params, *context: Array) -> RewardFn:
        """Reward of a whole noised trajectory: the sum over its windows.

        A network that reads a prompt is given its encoding as ``context``.
        """
        return self._scaled(params, self.num_windows, *context)

    def window_fn(self, params: Params) -> RewardFn:
        """Reward of one window alone, its share of that sum."""
        return self._scaled(params, 1)

    def record_loss(
        self,
        params: Params,
        *,
        x_t: Array,
        t: Array,
        base: Array,
        difference: Array,
        context: tuple[Array, ...],
    ) -> tuple:
        """Alignment at one recorded state."""
        known = Pair(lambda x, t: base, lambda x, t: base + difference, self.schedule)
        part = align(known, x_t, t, self.preset)
        rho = self.reward_fn(params, *context)
        return alignment_loss(rho, part.point, t, part.target, weight=part.weight)

    def _scaled(self, params: Params, windows: int, *context: Array) -> RewardFn:
        # The network is a mean over windows. In score units the sum is what adds up to
        # a log density ratio; the published code keeps the mean.
        count = 1 if self.preset == "paper" else windows

        def rho(x_t: Array, t: Array) -> Array:
            factor = count * value_scale(self.schedule, self.preset, t)
            return factor * apply(self.network, params, x_t, t, *context)

        return rho


class LatentReward(NamedTuple):
    """A reward network without its parameters, of latents as published."""

    network: Any
    standards: LatentStandards

    def reward_fn(self, params: Params, *context: Array) -> RewardFn:
        """Reward of a noised latent."""
        return latent_reward(self.standards, self._read(params, *context))

    def record_loss(
        self,
        params: Params,
        *,
        x_t: Array,
        t: Array,
        base: Array,
        difference: Array,
        context: tuple[Array, ...],
    ) -> tuple:
        """Alignment at one recorded state."""
        del base  # both models' next latents share what it adds
        part = align_latents(self.standards, x_t, t, difference)
        rho, left = self._read(params, *context), steps_left(self.standards, t)
        return alignment_loss(rho, part.point, left, part.target)

    def _read(self, params: Params, *context: Array) -> Callable[[Array, Array], Array]:
        return lambda x, t: apply(self.network, params, x, t, *context)


AnyReward = Reward | LatentReward


def trunk(config: ConfigDict, out_dim: int | None = None) -> TrajectoryMLP:
    """The perceptron described by a section of the config."""
    return TrajectoryMLP(
        config.width, config.depth, out_dim=out_dim, time_width=config.time_width
    )


def build_model(config: ConfigDict, act_dim: int, obs_dim: int) -> Model:
    """Denoiser described by ``config.model``."""
    horizon, dim = config.horizon, act_dim + obs_dim
    choose("model.network", config.network, NETWORKS)
    network: Any
    if config.network == "mlp":
        network = trunk(config)
    else:
        network = TemporalUnet(
            dim_mults=tuple(config.dim_mults), attention=config.attention
        )
    if config.conservative:
        network = EnergyDenoiser(network)
    make_schedule = SCHEDULES[choose("model.schedule", config.schedule, SCHEDULES)]
    first_action = jnp.zeros((horizon, dim), bool).at[0, :act_dim].set(True)
    return Model(
        network=network,
        schedule=make_schedule(config.num_steps),
        pinned=pinned_observations(horizon, act_dim, obs_dim, tuple(config.pinned)),
        first_action=first_action,
        action_weight=config.action_weight,
        mask_padding=config.mask_padding,
        clip=config.clip,
    )


def build_reward(config: ConfigDict, model: Model) -> Reward:
    """Reward network described by ``config.rewards`` or ``config.window_rewards``."""
    horizon = model.shape[0]
    window = config.window or horizon
    choose("network of the reward", config.network, REWARDS)
    choose("preset of the reward", config.preset, ("score", "paper"))
    activation = "leaky_relu" if config.preset == "paper" else "mish"
    if config.network == "inner":
        net = InnerProductReward(trunk(config))
    elif config.network == "scalar":
        net = ScalarReward(trunk(config))
    elif config.network == "squares":
        net = DifferenceOfSquares(trunk(config, out_dim=8))
    elif config.network == "value":
        net = ValueFunction(activation=activation)
    else:
        net = SingleStepRewardMLP(
            hidden=(128, 64, 32), window=window, activation=activation
        )
    if window < horizon:
        net = WindowReward(net, window, strided=config.strided)
    return Reward(net, model.schedule, config.preset, horizon // window)


def optimiser(config: ConfigDict) -> Any:
    """Optax chain of one training section."""
    return make_optimiser(
        config.learning_rate,
        steps=config.steps,
        warmup=config.warmup,
        schedule=config.schedule,
        clip_norm=config.clip_norm or None,
        clip_value=config.clip_value or None,
    )


def denoising_task(
    model: Model,
    batch_size: int,
    initial: Params | None = None,
    draw_samples: Callable[[Any, Array], Any] | None = None,
) -> Task:
    """Trains a denoiser; ``initial`` parameters are fine-tuned if given.

    Batches are windows of trajectories unless ``draw_samples`` (data, key) makes others:
    a dict of ``x_0`` and ``valid``.
    """

    def init(key: Array) -> Params:
        if initial is not None:
            return initial
        x, t = jnp.zeros(model.shape), jnp.zeros((), jnp.int32)
        return model.network.init(key, x, t)

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        del frozen

        def one(x_0: Array, valid: Array, t: Array, eps: Array) -> tuple:
            weight = jnp.where(model.first_action, model.action_weight, 1.0)
            if model.mask_padding:
                weight = weight * valid[:, None]
            return denoising_loss(
                lambda x_t, t: apply(model.network, params, x_t, t),
                model.schedule,
                x_0,
                t,
                eps,
                weight=weight,
                pinned=model.pinned,
            )

        x_0 = batch["x_0"]
        t, eps = draw_noise(key, x_0, model.schedule)
        value, metrics = jax.vmap(one)(x_0, batch["valid"], t, eps)
        return value.mean(), jax.tree.map(jnp.mean, metrics)

    def batch(data: Any, key: Array) -> Any:
        return draw(data, key, batch_size, model.shape[0])

    return Task(init=init, loss=loss, draw=draw_samples or batch)


def reward_task(model: Model, reward: Reward, source: str, batch_size: int) -> Task:
    """Aligns a reward with a frozen pair.

    ``frozen`` holds the parameters of ``base`` and ``expert``; ``data`` the windows of
    every set of the source (for ``models``, ``base`` and ``expert`` are samples).
    """
    choose("source", source, SOURCES)

    def init(key: Array) -> Params:
        x, t = jnp.zeros(model.shape), jnp.zeros((), jnp.int32)
        return reward.network.init(key, x, t)

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        pair = make_params_pair(model, frozen["base"], frozen["expert"])
        rho = reward.reward_fn(params)
        faithful = reward.preset == "paper"

        def one(x_0: Array, valid: Array, t: Array, eps: Array) -> tuple:
            x_t = q_sample(model.schedule, x_0, t, eps)
            mask = jnp.ones(x_0.shape, bool)
            if not faithful:  # the published code forgets conditioning and padding
                x_t = pin(x_t, model.condition(x_0))
                mask = ~model.pinned
                if model.mask_padding:
                    mask = mask & valid[:, None]
            part = align(pair, x_t, t, reward.preset)
            return alignment_loss(
                rho, part.point, t, part.target, weight=part.weight, mask=mask
            )

        x_0 = batch["x_0"]
        t, eps = draw_noise(key, x_0, model.schedule)
        value, metrics = jax.vmap(one)(x_0, batch["valid"], t, eps)
        fvu = metrics["residual"].sum() / metrics["signal"].sum()
        return value.mean(), {"fvu": fvu}

    def batch(data: Any, key: Array) -> Any:
        names, horizon = SOURCES[source], model.shape[0]
        if len(names) == 1:
            return draw(data[names[0]], key, batch_size, horizon)
        parts = [
            draw(data[name], jax.random.fold_in(key, i), batch_size // len(names), horizon)
            for i, name in enumerate(names)
        ]
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)

    return Task(init=init, loss=loss, draw=batch)


def record_task(
    reward: AnyReward,
    shape: tuple[int, ...],
    batch_size: int,
    context: Any = (),
) -> Task:
    """Aligns a reward with recorded outputs of a pair, one state of a chain per example.

    ``data`` holds, per chain, ``x_t``, ``base`` and ``difference`` (expert minus base,
    which keeps its digits in half precision), (chains, levels, *shape); the levels ``t``,
    (levels,); and ``context``, a tuple of what a reward that reads prompts is given,
    (chains, ...). The argument ``context`` is one such, for its shapes.
    """
    names = ("x_t", "base", "difference")

    def init(key: Array) -> Params:
        x, t = jnp.zeros(shape), jnp.zeros((), jnp.int32)
        return reward.network.init(key, x, t, *context)

    def loss(params: Params, frozen: Any, key: Array, batch: Any) -> tuple:
        del frozen, key
        one = lambda row: reward.record_loss(params, **row)
        value, metrics = jax.vmap(one)(batch)
        fvu = metrics["residual"].sum() / metrics["signal"].sum()
        return value.mean(), {"fvu": fvu}

    def batch(data: Any, key: Array) -> Any:
        chains, levels = data["x_t"].shape[:2]
        chain_key, level_key = jax.random.split(key)
        i = jax.random.randint(chain_key, (batch_size,), 0, chains)
        j = draw_levels(level_key, batch_size, levels)
        rows = {n: data[n][i, j].astype(jnp.float32) for n in names}
        context = jax.tree.map(lambda c: c[i], data["context"])
        return {**rows, "t": data["t"][j], "context": context}

    return Task(init=init, loss=loss, draw=batch)


def energy_reward(model: Model, base: Params, expert: Params) -> RewardFn:
    """The relative reward of two conservative models, exact without training.

    Raises:
        ValueError: if the model is not conservative.
    """
    network = model.network
    if not isinstance(network, EnergyDenoiser):
        raise ValueError(
            "the difference of two energies needs conservative models; set "
            "model.conservative=True"
        )

    def rho(x_t: Array, t: Array) -> Array:
        difference = network.energy(expert, x_t, t) - network.energy(base, x_t, t)
        return value_scale(model.schedule, "score", t) * difference

    return rho


def make_params_pair(model: Model, base: Params, expert: Params) -> Pair:
    """The pair of one architecture under two sets of parameters."""
    return Pair(model.eps_fn(base), model.eps_fn(expert), model.schedule)


def draw_noise(key: Array, x_0: Array, schedule: Schedule) -> tuple[Array, Array]:
    """Levels (stratified, in random order) and noises of a batch."""
    level_key, order_key, noise_key = jax.random.split(key, 3)
    t = draw_levels(level_key, x_0.shape[0], schedule.num_steps)
    # Batches may be ordered (base first); levels must not be tied to that order.
    t = jax.random.permutation(order_key, t)
    return t, jax.random.normal(noise_key, x_0.shape)

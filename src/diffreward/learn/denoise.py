"""Denoisers: a network with what it needs to be trained and sampled, and its task."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffreward.data import draw
from diffreward.diffusion import Condition, Schedule, clip_x_0, denoising_loss, to_eps
from diffreward.learn.noise import draw_noise
from diffreward.networks import apply
from diffreward.reward import Pair
from diffreward.train import Task
from diffreward.types import AnyArray, EpsFn, Mask, Metrics, Params, PRNGKey, Scalar


class Denoiser(NamedTuple):
    """A network that predicts x_0, without its parameters."""

    network: Any
    schedule: Schedule
    pinned: Mask
    """Conditioned entries."""
    weight: Float[Array, "..."] | float = 1.0
    """Of every entry in the loss."""
    mask_padding: bool = False
    """Whether steps after the end of an episode are left out of losses."""
    clip: float = 0.0
    """Bound of the predicted x_0; 0 for none."""
    expert: Any = None
    """Network of the expert of a pair, where it is another than the base's."""

    @property
    def of_expert(self) -> "Denoiser":
        """The same with the expert's network."""
        return self._replace(network=self.expert or self.network, expert=None)

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
        """The condition that a clean sample fulfils."""
        return Condition(self.pinned, x_0)

    def init(self, key: PRNGKey) -> Params:
        """Parameters to start from."""
        return init(self.network, self.shape, key)

    def pair(self, base: Params, expert: Params) -> Pair:
        """The pair of this denoiser under two sets of parameters."""
        return Pair(self.eps_fn(base), self.of_expert.eps_fn(expert), self.schedule)


def init(
    network: Any,
    shape: tuple[int, ...],
    key: PRNGKey,
    *context: Array,
    start: Params | None = None,
) -> Params:
    """Parameters of a network of (x, t), for samples of a shape.

    A :class:`diffreward.networks.ResidualEnergy` may start at the energy ``start``.
    """
    if start is not None:
        return network.starting_at(start)
    return network.init(key, jnp.zeros(shape), jnp.zeros((), jnp.int32), *context)


def batch_loss(
    network: Any,
    params: Params,
    schedule: Schedule,
    x_0: Float[AnyArray, "batch ..."],
    t: Int[AnyArray, " batch"],
    eps: Float[AnyArray, "batch ..."],
    *,
    weight: Float[AnyArray, "batch ..."] | None = None,
    pinned: Mask | None = None,
) -> tuple[Scalar, Metrics]:
    """Mean of :func:`diffreward.diffusion.denoising_loss` over a batch.

    ``weight`` broadcasts against the samples.
    """
    predict = lambda x_t, t: apply(network, params, x_t, t)

    def one(x_0: Any, t: Any, eps: Any, weight: Any) -> tuple:
        return denoising_loss(predict, schedule, x_0, t, eps, weight=weight, pinned=pinned)

    axes = (0, 0, 0, None if weight is None else 0)
    value, metrics = jax.vmap(one, axes)(x_0, t, eps, weight)
    return value.mean(), jax.tree.map(jnp.mean, metrics)


def denoising_task(
    model: Denoiser,
    batch_size: int,
    initial: Params | None = None,
    draw_samples: Callable[[Any, PRNGKey], Any] | None = None,
) -> Task:
    """Trains a denoiser; ``initial`` parameters are fine-tuned if given.

    Batches are windows of trajectories unless ``draw_samples`` (data, key) makes others:
    a dict of ``x_0`` and ``valid``.
    """

    def start(key: PRNGKey) -> Params:
        return model.init(key) if initial is None else initial

    def loss(params: Params, frozen: Any, key: PRNGKey, batch: Any) -> tuple:
        del frozen
        x_0 = batch["x_0"]
        weight = jnp.broadcast_to(model.weight, x_0.shape)
        if model.mask_padding:
            weight = jnp.where(batch["valid"][:, :, None], weight, 0.0)
        t, eps = draw_noise(model.schedule, key, x_0)
        options = {"weight": weight, "pinned": model.pinned}
        return batch_loss(model.network, params, model.schedule, x_0, t, eps, **options)

    def batch(data: Any, key: PRNGKey) -> Any:
        return draw(data, key, batch_size, model.shape[0])

    return Task(init=start, loss=loss, draw=draw_samples or batch)

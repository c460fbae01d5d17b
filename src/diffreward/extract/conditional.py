"""A conditional pair whose reward is known: p(x | c) whose place and width depend on c."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffreward.data import laws
from diffreward.diffusion import (
    Context,
    ContextLayout,
    DiffusionModel,
    Schedule,
    context_layout,
    discrete,
)
from diffreward.names import choose
from diffreward.reward import Pair, make_pair
from diffreward.types import PRNGKey, Scalar

Law = Callable[[Context], laws.Mixture]


class KnownConditionalPair(NamedTuple):
    """A base and an expert law of every context; see :class:`data.pairs.KnownPair`."""

    name: str
    base: Law
    expert: Law
    layout: ContextLayout
    draw_context: Callable[[PRNGKey], Context]
    """The same for both, so that the ratio of joint densities is that of x given c."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the vector of a sample and its context."""
        return (self.layout.size,)

    @property
    def pinned(self) -> Bool[Array, " size"]:
        """The entries of the context."""
        return self.layout.pinned()

    def reward(self, x_t: Float[Array, " size"], alpha_bar: Scalar) -> Scalar:
        """Exact relative reward in nats: log ratio of the diffused densities given c."""
        x, context = self.layout.unpack(x_t)
        expert = laws.log_density(self.expert(context), x, alpha_bar)
        return expert - laws.log_density(self.base(context), x, alpha_bar)

    def sample(self, role: str, key: PRNGKey, count: int) -> Float[Array, "count size"]:
        """Clean samples of the ``base`` or the ``expert``, with their contexts.

        Raises:
            ValueError: for another role.
        """
        choose("role", role, ("base", "expert"))
        law = self.base if role == "base" else self.expert

        def draw(key: PRNGKey) -> Array:
            context_key, x_key = jax.random.split(key)
            context = self.draw_context(context_key)
            x = laws.sample(law(context), x_key).reshape(self.layout.shape)
            return self.layout.pack(x, context)

        return jax.vmap(draw)(jax.random.split(key, count))

    def sample_within(
        self, key: PRNGKey, contexts: int, each: int
    ) -> tuple[Float[Array, "count size"], Int[Array, " count"]]:
        """Clean samples of both laws under shared contexts, to compare within them.

        Args:
            key: of contexts and samples.
            contexts: how many.
            each: samples of either law per context.

        Returns:
            Vectors, and the number of every vector's context.
        """

        def under(key: PRNGKey) -> Array:
            context_key, *keys = jax.random.split(key, 1 + 2 * each)
            context = self.draw_context(context_key)
            told = [law(context) for law in (self.base, self.expert) for _ in range(each)]
            draws = [laws.sample(law, k) for law, k in zip(told, keys, strict=True)]
            rows = [x.reshape(self.layout.shape) for x in draws]
            return jnp.stack([self.layout.pack(x, context) for x in rows])

        x = jax.vmap(under)(jax.random.split(key, contexts))
        return x.reshape(-1, self.layout.size), jnp.repeat(jnp.arange(contexts), 2 * each)

    def exact_pair(self, schedule: Schedule) -> Pair:
        """Exact models, each a function of a context."""

        def model(law: Law) -> Callable[[Context], DiffusionModel]:
            def given(context: Context) -> DiffusionModel:
                told = law(context)
                eps_fn = lambda x, t: laws.eps(told, x, schedule.alpha_bar[t])
                return DiffusionModel(eps_fn, discrete(schedule))

            return given

        base, expert = model(self.base), model(self.expert)
        return make_pair(base, expert, schedule, context=self.layout)


def known_conditional_pairs() -> dict[str, KnownConditionalPair]:
    """The conditional pairs of the benchmark, by name; asymmetric on purpose."""
    layout = context_layout((2,), {"observation": (2,)})

    def draw(key: PRNGKey) -> Context:
        return {"observation": jax.random.uniform(key, (2,), minval=-1.0)}

    base = _linear_gaussian(((1.0, 0.4), (-0.3, 0.8)), (0.4, -0.6), (0.5, 0.3), (0.6, -0.3))
    expert = _linear_gaussian(
        ((0.2, -0.7), (0.9, 0.5)), (-0.5, 0.3), (0.3, 0.6), (-0.4, 0.5)
    )
    name = "conditional"
    return {name: KnownConditionalPair(name, base, expert, layout, draw)}


def _linear_gaussian(turn: tuple, shift: tuple, variances: tuple, widening: tuple) -> Law:
    """N(A c + b, R diag(v exp(w . c)) R') with fixed axes R."""
    angle = 0.5
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    axes = jnp.array([[cos, -sin], [sin, cos]])

    def law(context: Context) -> laws.Mixture:
        c = context["observation"]
        mean = jnp.array(turn) @ c + jnp.array(shift)
        scale = jnp.exp(jnp.array(widening) @ c)
        spread = jnp.array(variances) * scale
        return laws.Mixture(jnp.zeros(1), mean[None], axes[None], spread[None])

    return law

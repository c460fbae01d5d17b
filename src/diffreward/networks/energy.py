"""Denoisers that are gradients of a scalar, so that their difference is one, too."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from diffreward.networks.mlp import InnerProductReward
from diffreward.types import Params, PRNGKey, Sample, Scalar, Time


class EnergyDenoiser(NamedTuple):
    """Predicts x_0 as the gradient of ``E(x_t, t) = <x_t, f(x_t, t)>``.

    The score is then the gradient of ``(sqrt(alpha_bar) E - |x_t|^2 / 2) / sigma^2``,
    and of two such models the relative reward is
    ``sqrt(alpha_bar) / sigma^2 (E_expert - E_base)`` exactly (Salimans & Ho, 2021, on
    energy parametrisations). Costs a gradient per evaluation.
    """

    net: nn.Module
    """f: maps trajectories to trajectories."""

    def init(self, key: PRNGKey, x: Sample, t: Time) -> Params:
        """Parameters of f."""
        return InnerProductReward(self.net).init(key, x, t)

    def energy(self, params: Params, x: Sample, t: Time) -> Scalar:
        """E(x_t, t)."""
        value: Any = InnerProductReward(self.net).apply(params, x, t)
        return value

    def apply(self, params: Params, x: Sample, t: Time) -> Sample:
        """The predicted x_0."""
        return jax.grad(self.energy, argnums=1)(params, x, t)


class ResidualEnergy(NamedTuple):
    """``E(x_t, t) - E_start(x_t, t)`` of one form, the second of which is held still.

    A reward that starts where the base's own energy stands, and is zero there. Its
    gradient is what has to be added to the base, as in ``EnergyDenoiser``.
    """

    net: nn.Module
    """f of the energy ``<x, f(x, t)>``."""

    def init(self, key: PRNGKey, x: Sample, t: Time) -> Params:
        """Parameters of both energies, at a random one."""
        return self.starting_at(InnerProductReward(self.net).init(key, x, t))

    def starting_at(self, energy: Params) -> Params:
        """Parameters of both energies, at those of an ``EnergyDenoiser`` of this net."""
        return {"start": energy, "energy": energy}

    def apply(self, params: Params, x: Sample, t: Time) -> Scalar:
        """The difference of the two; no gradient reaches the parameters of the start."""
        start, energy = jax.lax.stop_gradient(params["start"]), params["energy"]
        value: Any = InnerProductReward(self.net)
        return value.apply(energy, x, t) - value.apply(start, x, t)

"""What each extractor can be told; it has a record of its own, and no other is taken."""

from typing import Any, NamedTuple


class Training(NamedTuple):
    """Compute and network of the extractors that train."""

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 128
    """Samples per step, of all models together."""
    learning_rate: float = 3e-3
    """At its highest."""
    network: Any = None
    """Linen module of (x_t, t): to a scalar, for methods of energies to a trajectory;
    None for a perceptron of the width and depth below."""
    width: int = 64
    depth: int = 2
    steps_per_dispatch: int = 500
    """Optimiser steps per compiled call."""
    progress: bool = False
    """Show the progress of training on stderr."""


class LossGap(NamedTuple):
    """Choices of ``loss_gap``."""

    weighting: str = "integral"
    """One of ``WEIGHTINGS``."""
    beta: float = 1.0
    """Temperature of the ``dpo`` weights."""
    noises: int = 16
    """Noises per level."""


class OdeLogRatio(NamedTuple):
    """Choices of ``ode_log_ratio``."""

    probes: int = 0
    """Hutchinson probes; 0 for the exact divergence."""


class ItoLogRatio(NamedTuple):
    """Choices of ``ito_log_ratio``."""

    noises: int = 16
    """Noising paths."""


class LineIntegral(NamedTuple):
    """Of ``line_integral``, which has nothing to choose."""

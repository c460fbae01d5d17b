"""Networks of one trajectory and a noise level: denoisers and scalar rewards."""

from diffreward.networks.describe import build, describe
from diffreward.networks.energy import EnergyDenoiser, ResidualEnergy
from diffreward.networks.film import FilmUnet
from diffreward.networks.heads import (
    AsTrajectory,
    EnergyDifference,
    Flattened,
    LevelScaled,
    as_trajectory,
)
from diffreward.networks.image_value import UnetReward, ValueUnet
from diffreward.networks.layers import Activation
from diffreward.networks.mlp import (
    DifferenceOfSquares,
    InnerProductReward,
    ScalarReward,
    TrajectoryMLP,
    WindowReward,
    split_windows,
)
from diffreward.networks.precision import apply
from diffreward.networks.temporal import TemporalUnet
from diffreward.networks.value import SingleStepRewardMLP, ValueFunction

__all__ = [
    "Activation",
    "AsTrajectory",
    "DifferenceOfSquares",
    "EnergyDenoiser",
    "Flattened",
    "EnergyDifference",
    "FilmUnet",
    "InnerProductReward",
    "LevelScaled",
    "ResidualEnergy",
    "ScalarReward",
    "SingleStepRewardMLP",
    "TemporalUnet",
    "TrajectoryMLP",
    "UnetReward",
    "ValueFunction",
    "ValueUnet",
    "WindowReward",
    "apply",
    "as_trajectory",
    "build",
    "describe",
    "split_windows",
]

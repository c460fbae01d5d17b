"""``python -m experiments.locomotion``."""

from experiments import launch
from experiments.locomotion import run

if __name__ == "__main__":
    launch.run(
        run.main,
        "configs/locomotion.py:hopper",
        "runs/locomotion",
        run.__doc__,
        run.plan,
        many=True,
    )

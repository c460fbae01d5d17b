"""``python -m experiments.images``."""

from experiments import launch
from experiments.images import run
from experiments.images.plan import plan

if __name__ == "__main__":
    launch.run(
        run.main, "configs/images.py:digits", "runs/digits", run.__doc__, plan, many=True
    )

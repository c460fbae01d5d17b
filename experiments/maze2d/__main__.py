"""``python -m experiments.maze2d``."""

from experiments import launch
from experiments.maze2d import run

if __name__ == "__main__":
    launch.run(
        run.main, "configs/maze2d.py:umaze", "runs/maze2d", run.__doc__, run.plan, many=True
    )

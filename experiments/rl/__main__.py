"""``python -m experiments.rl``."""

from experiments import launch
from experiments.rl import run

if __name__ == "__main__":
    launch.run(run.main, "configs/rl.py:umaze", "runs/rl/umaze", run.__doc__)

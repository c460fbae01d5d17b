"""``python -m experiments.leaderboard``."""

from experiments import launch
from experiments.leaderboard import run

if __name__ == "__main__":
    launch.run(run.main, "configs/leaderboard.py", "runs/leaderboard", run.__doc__)

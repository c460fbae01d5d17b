"""Training of one policy with PPO, and its true returns on the way."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from diffreward.steer import wrappers
from experiments.rl.build import Job, Study
from experiments.rl.pay import Pay, Payment

if TYPE_CHECKING:
    from experiments.rl.env import MazeVecEnv


def find_library() -> tuple[Any, type["MazeVecEnv"]]:
    """PPO, and the environment that is made for its library.

    Raises:
        ValueError: where the library is not installed.
    """
    try:
        from sbx import PPO  # pyright: ignore[reportMissingImports]

        from experiments.rl.env import MazeVecEnv
    except ImportError as error:
        raise ValueError(
            f"training a policy needs an RL library ({error}); pip install -e '.[rl]'"
        ) from error
    return PPO, MazeVecEnv


def train(study: Study, job: Job, payment: Payment) -> dict[str, Any]:
    """Trains one policy; the true return of its test episodes against steps."""
    make_agent, make_vec_env = find_library()
    began, config = time.time(), study.config
    p, run = config.ppo, study.run

    def make_env(pay: Pay, num_envs: int, seed: list[int], stagger: bool) -> "MazeVecEnv":
        return make_vec_env(
            run.maze,
            run.maze.goals[job.goal - 1],
            study.prepared.normaliser,
            pay,
            num_envs=num_envs,
            frame_skip=run.config.data.frame_skip,
            episode_steps=config.episode_steps,
            window=run.window,
            seed=seed,
            stagger=stagger,
        )

    train_seed, test_seed = [config.seed, job.seed, 0], [config.seed, 0, 1]
    env = make_env(payment.pay, p.num_envs, train_seed, True)
    test = make_env(pay_truth, config.evaluation_episodes, test_seed, False)
    agent = make_agent(
        "MlpPolicy",
        env,
        n_steps=p.rollout,
        batch_size=p.batch_size,
        n_epochs=p.epochs,
        learning_rate=p.learning_rate,
        gamma=p.gamma,
        gae_lambda=p.gae_lambda,
        ent_coef=p.entropy,
        seed=job.seed,
    )
    returns = true_returns(agent, test, test_seed)
    curve = [(0, float(returns.mean()))]
    while agent.num_timesteps < config.steps:
        count = min(config.evaluate_every, config.steps - agent.num_timesteps)
        agent.learn(count, reset_num_timesteps=False, log_interval=None)
        returns = true_returns(agent, test, test_seed)
        curve.append((int(agent.num_timesteps), float(returns.mean())))
    return {
        "curve": curve,
        "return": curve[-1][1],
        "reached": float((returns > 0).mean()),
        "epic": payment.epic,
        "seconds": time.time() - began,
    }


def pay_truth(history: wrappers.History, true: np.ndarray) -> np.ndarray:
    """The true reward as it is."""
    del history
    return true


def true_returns(agent: Any, test: "MazeVecEnv", seed: list[int]) -> np.ndarray:
    """Of one episode of every agent in ``test``, which pays the true reward.

    The same starts for every policy and every evaluation, seen by no training.
    """
    test.rng = np.random.default_rng(seed)
    observation, total = test.reset(), np.zeros(test.num_envs)
    for _ in range(test.episode_steps):
        action, _ = agent.predict(observation, deterministic=True)
        test.step_async(action)
        observation, reward, _, _ = test.step_wait()
        total += reward
    return total

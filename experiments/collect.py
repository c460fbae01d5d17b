"""Trains SAC on a locomotion task and exports medium-replay and expert data.

Stages: train (checkpoints, policy snapshots, learning curve) -> data (HDF5 in D4RL's
layout). Run the same command again after any interruption.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from tqdm import tqdm

from configs.common import ConfigDict, choose
from diffreward import data as d
from diffreward import files, report
from diffreward.report import figures
from diffreward.report.canvas import EngFormatter
from diffreward.text import say
from experiments import launch, limits

AGENT, REPLAY_FILE = "agent.msgpack", "replay.npz"
REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains and exports; returns the record of the export."""
    check(config)
    # A longer training goes on from a shorter one.
    free = ("steps", "expert_transitions")
    settings = {k: v for k, v in config.to_dict().items() if k not in free}
    folder = workdir / "train"
    # The curve may be ahead of the checkpoint; the record of the stage never is.
    done = report.open_stage(folder, settings)
    reached = report.read_json(folder / "report.json")["steps"] if done else 0
    if reached < config.steps:
        train(config, folder)
        best = max(read_curve(folder), key=lambda point: point["score"])
        report.close_stage(folder, {"best": best, "steps": config.steps})
    inputs = {"train": report.stage_digest(folder)}
    inputs["curve"] = report.digest(read_curve(folder))
    folder = workdir / "data"
    wanted = {"expert_transitions": config.expert_transitions}
    if not report.open_stage(folder, wanted, inputs):
        report.close_stage(folder, export(config, workdir))
    result = report.read_json(folder / "report.json")
    for name, about in result.items():
        say(f"{folder / name}.hdf5: {about['rows']:,} rows, score {about['score']:.1f}")
    return result


def check(config: ConfigDict) -> None:
    """Refuses values that would only fail after hours."""
    choose("task", config.task, d.LOCOMOTION)
    limits.check_seed(config.seed)
    counts = ("steps", "batch_size", "steps_per_dispatch", "policy_delay", "evaluate_every")
    counts += ("evaluation_episodes", "expert_transitions")
    limits.at_least(config, "", **dict.fromkeys(counts, 1), learning_starts=0)
    limits.positive(config, "", "learning_rate")
    limits.finite(config, "", "medium_score")


def train(config: ConfigDict, folder: Path) -> None:
    """Trains SAC from the last checkpoint, if there is one."""
    try:
        from sbx import SAC  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"training a policy needs an RL library ({error}); pip install -e '.[rl]'"
        ) from error
    env = d.make_locomotion(config.task)
    checkpoint = folder / "checkpoint"
    # Never full, so that the stream stays whole and in order.
    buffer_size = config.steps + config.steps_per_dispatch
    agent = SAC(
        "MlpPolicy",
        env,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        buffer_size=buffer_size,
        learning_starts=config.learning_starts,
        train_freq=config.steps_per_dispatch,
        gradient_steps=config.steps_per_dispatch,
        policy_delay=config.policy_delay,
        seed=config.seed,
    )
    if checkpoint.exists():
        restore_agent(agent, checkpoint / AGENT)
        restore_replay(agent, checkpoint / REPLAY_FILE)
        say(f"train: goes on at step {agent.num_timesteps:,}")
    with tqdm(total=config.steps, initial=agent.num_timesteps, unit="step") as bar:
        while agent.num_timesteps < config.steps:
            before = agent.num_timesteps
            until = before - before % config.evaluate_every + config.evaluate_every
            agent.learn(
                min(until, config.steps) - before,
                reset_num_timesteps=False,
                log_interval=None,  # pyright: ignore[reportArgumentType]
            )
            point = save(config, folder, agent)
            bar.update(agent.num_timesteps - before)
            bar.set_postfix(score=f"{point['score']:.1f}")
            draw_curve(config, folder)


def save(config: ConfigDict, folder: Path, agent: Any) -> dict[str, Any]:
    """Writes a snapshot of the policy with its score, then the checkpoint."""
    policy = policy_of(agent)
    step = int(agent.num_timesteps)
    seed = (config.seed, step)
    stream = d.act_in(config.task, policy, seed=seed, episodes=config.evaluation_episodes)
    name = f"policy_{step:08d}.safetensors"
    point = {"step": step, "file": name, **score_of(config.task, stream)}
    about = {k: str(v) for k, v in point.items()} | {"task": config.task}
    d.save_policy(folder / name, policy, about)
    point["sha256"] = files.sha256(folder / name)
    kept = [p for p in read_curve(folder) if p["step"] < step]
    report.write_json(folder / "curve.json", [*kept, point])

    with files.writing(folder / "checkpoint") as made:
        made.mkdir()
        files.write_bytes(made / AGENT, serialization.to_bytes(state_of(agent)))
        d.write_arrays(made / REPLAY_FILE, replay_of(agent))
    return point


def state_of(agent: Any) -> dict[str, Any]:
    """All that an agent has learned and where it stands, as arrays.

    The library's own file holds code, which would run when it is read.
    """
    policy = agent.policy
    return {
        "actor": policy.actor_state,
        "critic": policy.qf_state,
        "entropy": agent.ent_coef_state,
        "keys": [agent.key, policy.key, policy.noise_key],
        "counts": np.array([agent.num_timesteps, agent._n_updates]),
    }


def restore_agent(agent: Any, path: Path) -> None:
    """Puts back what :func:`state_of` took.

    Raises:
        ValueError: naming the file, if it is damaged or of other networks.
    """
    blank = state_of(agent)
    with files.reading(path) as file:
        state = serialization.from_bytes(blank, file.data)
        unlike = lambda a, b: np.shape(a) != np.shape(b)
        if any(jax.tree.leaves(jax.tree.map(unlike, blank, state))):
            raise files.FileValueError(f"{path} holds other networks; delete its folder")
    agent.policy.actor_state, agent.policy.qf_state = state["actor"], state["critic"]
    agent.ent_coef_state = state["entropy"]
    agent.key, agent.policy.key, agent.policy.noise_key = map(jnp.asarray, state["keys"])
    agent.num_timesteps, agent._n_updates = map(int, state["counts"])


def policy_of(agent: Any) -> d.SquashedGaussianPolicy:
    """The actor's layers as arrays."""
    layers = agent.policy.actor_state.params["params"]
    names = sorted(layers, key=lambda name: int(name.rsplit("_", 1)[1]))
    pairs = [
        (np.asarray(layers[n]["kernel"]), np.asarray(layers[n]["bias"])) for n in names
    ]
    return d.SquashedGaussianPolicy(tuple(pairs[:-2]), pairs[-2], pairs[-1])


def replay_of(agent: Any) -> dict[str, np.ndarray]:
    """Everything the agent has seen, in order."""
    buffer = agent.replay_buffer
    return {key: getattr(buffer, key)[: buffer.pos, 0] for key in REPLAY}


def restore_replay(agent: Any, path: Path) -> None:
    """Puts what was seen back; the episode that was cut off ends in a time limit."""
    arrays = d.read_arrays(path)
    rows = len(arrays["rewards"])
    for key in REPLAY:
        getattr(agent.replay_buffer, key)[:rows, 0] = arrays[key]
    agent.replay_buffer.pos = rows
    if rows and not agent.replay_buffer.dones[rows - 1, 0]:
        agent.replay_buffer.dones[rows - 1, 0] = 1
        agent.replay_buffer.timeouts[rows - 1, 0] = 1


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Evaluations so far."""
    path = folder / "curve.json"
    return report.read_json(path) if path.exists() else []


def score_of(task: str, stream: d.Stream) -> dict[str, float]:
    """Mean return and score of the episodes of a stream."""
    returns = d.episode_returns(d.episodes_of(stream))
    return {
        "return": float(returns.mean()),
        "score": float(d.normalised_score(task, returns).mean()),
        "episodes": len(returns),
    }


def export(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Writes the replay buffer up to medium performance, and the expert's episodes."""
    train_folder, folder = workdir / "train", workdir / "data"
    points = read_curve(train_folder)
    medium = next((p for p in points if p["score"] >= config.medium_score), points[-1])
    best = max(points, key=lambda point: point["score"])
    arrays = d.read_arrays(train_folder / "checkpoint" / REPLAY_FILE)
    replay = {key: arrays[key][: medium["step"]] for key in REPLAY}
    timeouts = replay.pop("timeouts") > 0
    replay["terminals"] = (replay.pop("dones") > 0) & ~timeouts
    replay["timeouts"] = timeouts
    replay["timeouts"][-1] |= not replay["terminals"][-1]
    write_snapshots(config, workdir, points[: points.index(medium) + 1], best)
    policy = own_policy(train_folder, best)
    with tqdm(total=config.expert_transitions, desc="expert", unit="step") as bar:
        expert = d.act_in(
            config.task,
            policy,
            seed=config.seed,
            steps=config.expert_transitions,
            progress=bar.update,
        )
    result = {}
    for name, stream, point in (
        ("medium-replay", replay, medium),
        ("expert", expert, best),
    ):
        about = {"task": config.task, "policy": point["file"], "step": point["step"]}
        d.write_hdf5(folder / f"{name}.hdf5", stream, about)
        result[name] = {
            "rows": len(stream["rewards"]),
            **about,
            **score_of(config.task, stream),
        }
    return result


def own_policy(folder: Path, point: dict[str, Any]) -> d.SquashedGaussianPolicy:
    """A policy of the curve, unless its file is no longer what was written.

    Raises:
        ValueError: if it is not.
    """
    path = files.inside(folder, point["file"])
    with files.recorded() as used:
        policy, _ = d.load_policy(path)
    if used[path] != point["sha256"]:
        raise ValueError(
            f"{path} is not the file that was written; delete {folder} to train again"
        )
    return policy


def write_snapshots(
    config: ConfigDict, workdir: Path, replay: list[dict[str, Any]], best: dict[str, Any]
) -> None:
    """Gathers the policies from which data can be made without training."""
    folder = workdir / "snapshots"
    policies = replay if best in replay else [*replay, best]
    for point in policies:
        with files.reading(files.inside(workdir / "train", point["file"])) as file:
            files.write_bytes(folder / point["file"], file.data)
    index = {
        "task": d.LOCOMOTION[config.task].env_id,
        "algorithm": f"SAC, {config.steps:,} steps, seed {config.seed}",
        "command": "python -m experiments.collect "
        f"--config=configs/collect.py:{config.task} --config.steps={config.steps}",
        "medium": replay[-1]["file"],
        "expert": best["file"],
        "policies": policies,
    }
    report.write_json(folder / "index.json", index)


def draw_curve(config: ConfigDict, folder: Path) -> None:
    """Score against steps."""
    points = read_curve(folder)
    fig, axes = figures.grid_of(1, 1, size=4.0)
    axes[0].plot([p["step"] for p in points], [p["score"] for p in points], marker=".")
    axes[0].axhline(config.medium_score, linestyle="--", color="grey", label="medium")
    axes[0].set(xlabel="steps", ylabel="score (D4RL: expert 100)", title=config.task)
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0].legend()
    figures.save(fig, folder / "curve.png")


if __name__ == "__main__":
    launch.run(main, "configs/collect.py:hopper", "runs/collect/hopper", __doc__)

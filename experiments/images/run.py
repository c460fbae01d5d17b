"""Images: two models -> records of both -> a reward -> an audit of what it prefers.

Every stage has a folder under --workdir and is skipped once finished; run the same
command again after any interruption.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report
from diffreward.learn import RecordedEnergy, RecordLoss, record_task
from diffreward.networks import EnergyDenoiser, ResidualEnergy
from diffreward.text import say
from diffreward.types import Params
from experiments import stages
from experiments.images import audit, miniature, page, records
from experiments.images.build import Run, build, check


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    if config.task == "miniature":  # is no pair yet: makes what one is read from
        return miniature.main(config, workdir)
    began = time.time()
    check(config)
    run = build(config, workdir)
    config = run.config
    params = train_reward(run)
    rivals = audit.train_rivals(run)

    folder = workdir / "audit"
    stages_read = ["records", "rewards", "classifier"]
    stages_read += ["judge"] if rivals.judge else []
    inputs = {n: report.stage_digest(workdir / n) for n in stages_read}
    settings = {"audit": config.audit.to_dict(), "seed": config.seed}
    if not report.open_stage(folder, settings, inputs):
        say("audit: requests no stage has seen")
        result, arrays = audit.evaluate(run, params, rivals)
        d.write_arrays(folder / "arrays.npz", arrays)
        report.close_stage(folder, result)
    result = report.read_json(folder / "report.json")
    page.write(run, result, d.read_arrays(folder / "arrays.npz"))
    report.write_json(workdir / "report.json", result)
    summary = f"AUROC {page.auroc(result)}"
    if "audience" in result:
        summary += f", held-out images {page.auroc(result['audience'])}"
    say(f"{summary}\nreport: {workdir / 'report.md'} ({time.time() - began:.0f} s)")
    return result


def train_reward(run: Run) -> Params:
    """Aligns the reward with the records of the training requests."""
    if not isinstance(run.reward.network, ResidualEnergy):
        return train_on_records(run, "rewards", run.reward)
    start, read = energy_of_base(run)
    params = train_on_records(run, "rewards", run.reward, start, read)
    # Averaging rounded what was held still.
    return {**params, "start": start}


def energy_of_base(run: Run) -> tuple[Params, dict[str, str]]:
    """The base's own energy, or one made of its recorded predictions in a stage.

    Returns:
        Its parameters, and the digest of the stage, if there is one.
    """
    energy = run.pair.energy
    if energy is None:
        raise ValueError("no reward of this pair can start at the energy of its base")
    if energy.params is not None:
        return energy.params, {}
    student = RecordedEnergy(EnergyDenoiser(energy.net), run.pair.schedule)
    params = train_on_records(run, "start", student)
    return params, {"start": report.stage_digest(run.workdir / "start")}


def train_on_records(
    run: Run,
    name: str,
    model: RecordLoss,
    start: Params | None = None,
    read: Mapping[str, str] = MappingProxyType({}),
) -> Params:
    """Trains one stage, of the section of its name, on records of training requests.

    Args:
        run: whose records they are.
        name: of the stage.
        model: what is trained.
        start: parameters of the energy that it starts at, if it does.
        read: digests of the stages it reads besides the records.
    """
    config, section, shape = run.config, run.config[name], run.pair.shape
    context = run.pair.contexts([0])[:1] if config.rewards.prompt else ()
    one = jax.tree.map(lambda c: c[0], context)
    task = record_task(model, shape, section.batch_size, one, start)
    probe = record_task(model, shape, 4 * section.batch_size, one, start)
    held_out = run.rows(records.load(run.shards["val"]))
    batch = jax.jit(probe.draw)(held_out, jax.random.key(0))
    measure = jax.jit(lambda p: probe.loss(p, None, jax.random.key(1), batch))

    def evaluate(state: Any) -> dict[str, Any]:
        loss, others = measure(jax.device_get(state.ema_params))
        return {"loss": loss, **others}

    return stages.train_stage(
        run.workdir / name,
        task,
        section,
        settings={k: config.records[k] for k in ("resident", "refresh")},
        inputs={"records": report.stage_digest(run.workdir / "records"), **read},
        data=records.feed(config, run.pair, run.shards["train"]),
        seed=config.seed,
        evaluate=evaluate,
    )

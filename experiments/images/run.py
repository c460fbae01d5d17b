"""Images: two models -> records of both -> a reward -> an audit of what it prefers.

Every stage has a folder under --workdir and is skipped once finished; run the same
command again after any interruption.
"""

import time
from pathlib import Path
from typing import Any

import jax

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report
from diffreward.learn import record_task
from diffreward.text import say
from diffreward.types import Params
from experiments import stages
from experiments.images import audit, page, records
from experiments.images.build import Run, build, check


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs every stage that has not finished; returns the final report."""
    began = time.time()
    check(config)
    run = build(config, workdir)
    params = train_reward(run)

    folder = workdir / "audit"
    inputs = {n: report.stage_digest(workdir / n) for n in ("records", "rewards")}
    settings = {"audit": config.audit.to_dict(), "seed": config.seed}
    if not report.open_stage(folder, settings, inputs):
        say("audit: requests no stage has seen")
        result, arrays = audit.evaluate(run, params)
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
    config, section, shape = run.config, run.config.rewards, run.pair.shape
    context = run.pair.contexts([0])[:1] if section.prompt else ()
    one = jax.tree.map(lambda c: c[0], context)
    task = record_task(run.reward, shape, section.batch_size, one)
    probe = record_task(run.reward, shape, 4 * section.batch_size, one)
    held_out = run.rows(records.load(run.shards["val"]))
    batch = jax.jit(probe.draw)(held_out, jax.random.key(0))
    measure = jax.jit(lambda p: probe.loss(p, None, jax.random.key(1), batch))

    def evaluate(state: Any) -> dict[str, Any]:
        loss, others = measure(jax.device_get(state.ema_params))
        return {"loss": loss, **others}

    return stages.train_stage(
        run.workdir / "rewards",
        task,
        section,
        settings={k: config.records[k] for k in ("resident", "refresh")},
        inputs={"records": report.stage_digest(run.workdir / "records")},
        data=records.feed(config, run.pair, run.shards["train"]),
        seed=config.seed,
        evaluate=evaluate,
    )

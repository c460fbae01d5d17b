"""Records of a pair: chains of both models, and what both say at every state of them."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from configs.common import ConfigDict
from diffreward import data as d
from diffreward import report, train
from diffreward.diffusion import paired_chain
from diffreward.reward import RecordedChains
from experiments.images.pair import ImagePair

ROWS = ("x_t", "base", "difference")
FRACTIONS = (0.6, 0.1, 0.3)


def split(config: ConfigDict, pair: ImagePair) -> dict[str, np.ndarray]:
    """Requests by split: no request of a test chain was trained on."""
    return d.split_episodes(len(pair.prompts.text), config.seed, FRACTIONS)


def write(
    config: ConfigDict, workdir: Path, pair: ImagePair, inputs: dict[str, str]
) -> dict[str, d.Shards]:
    """Shards of every split; writes those that are missing.

    A request gives two chains from the same noise, one of each model. Noise is a
    function of (seed, request), so shards can be written in any order and again.
    """
    section, folder = config.records, workdir / "records"
    settings = {
        "seed": config.seed,
        "requests": len(pair.prompts.text),
        **{k: section[k] for k in ("levels", "shard", "dtype")},
    }
    done = report.open_stage(folder, settings, inputs, together=True)
    parts = split(config, pair)
    counts = {name: -(-len(index) // section.shard) for name, index in parts.items()}
    if done:
        return {name: d.open_shards(folder / name) for name in parts}
    chains = make_chains(config, pair)
    shards = {}
    with tqdm(total=sum(counts.values()), desc="records", unit="shard") as bar:
        for name, index in parts.items():

            def make(i: int, index: np.ndarray = index) -> dict[str, np.ndarray]:
                bar.update()
                return chains(index[i * section.shard : (i + 1) * section.shard])

            shards[name] = d.write_shards(folder / name, counts[name], make, together=True)
    report.close_stage(folder, {"shards": counts, "levels": section.levels})
    return shards


def make_chains(
    config: ConfigDict, pair: ImagePair
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Maps indices of requests to their records, chains of the base before the expert's."""
    section = config.records
    root = jax.random.key(config.seed)
    # Every device takes its share of a batch, and holds the models or a share of them.
    mesh = train.make_mesh(math.gcd(section.batch_size, jax.local_device_count()))
    shared = NamedSharding(mesh, PartitionSpec("data"))
    placed = NamedSharding(mesh, PartitionSpec())
    if section.cut_parameters:
        placed = train.cut_shardings(pair.params, mesh)
    models = jax.device_put(pair.params, placed)

    @jax.jit
    def compute(params: Any, context: Any, requests: jax.Array, follow: jax.Array) -> Any:
        def one(row: Any, request: jax.Array) -> Any:
            base, expert = pair.models(params, row)
            return paired_chain(
                base,
                expert,
                pair.schedule,
                jax.random.fold_in(root, request),
                pair.shape,
                follow_expert=follow,
                num_evaluations=section.levels,
            )

        return jax.vmap(one)(context, requests)

    half = np.dtype(section.dtype)

    def chain(follow_expert: bool, requests: np.ndarray) -> dict[str, np.ndarray]:
        given = jax.device_put((pair.contexts(requests), requests), shared)
        out = compute(models, *given, jnp.asarray(follow_expert))
        c = jax.tree.map(np.asarray, out)
        return {
            "x_t": c.x_t.astype(half),
            "base": c.base.astype(half),
            # Models that agree differ in the last digits: store the difference itself.
            "difference": (c.expert - c.base).astype(half),
            "x_0": c.x_0,
            "t": c.t,
            "request": requests.astype(np.int32),
            "follows_expert": np.full(len(requests), follow_expert),
        }

    def chains(index: np.ndarray) -> dict[str, np.ndarray]:
        both = [
            d.map_batches(functools.partial(chain, follow), section.batch_size, index)
            for follow in (False, True)
        ]
        joined = {name: np.concatenate([part[name] for part in both]) for name in both[0]}
        return joined | {"t": joined["t"][0]}

    return chains


def load(shards: d.Shards, indices: Any = None) -> dict[str, np.ndarray]:
    """Records of some shards, by default all."""
    indices = range(shards.count) if indices is None else indices
    parts = [d.read_shard(shards, int(i)) for i in indices]
    joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k != "t"}
    return joined | {"t": parts[0]["t"]}


def recorded(shards: d.Shards, index: int) -> RecordedChains:
    """Chains of one shard."""
    records = d.read_shard(shards, index)
    return RecordedChains(**{name: records[name] for name in RecordedChains._fields})


def rows(pair: ImagePair, records: dict[str, np.ndarray], prompt: bool) -> Any:
    """What :func:`diffreward.learn.record_task` draws from.

    Args:
        pair: whose records they are.
        records: see :func:`load`.
        prompt: whether the reward reads the context of a request.
    """
    context = pair.contexts(records["request"])[:1] if prompt else ()
    return {**{k: records[k] for k in (*ROWS, "t")}, "context": context}


def feed(config: ConfigDict, pair: ImagePair, shards: d.Shards) -> Any:
    """What the trainer draws from: all records, or a moving selection of the shards."""
    resident, prompt = config.records.resident, config.rewards.prompt
    if not resident or resident >= shards.count:
        return rows(pair, load(shards), prompt)
    # The last shard may be smaller; every selection must have one shape.
    whole = shards.count - 1
    now: tuple[int, Any] = (-1, None)

    def at(step: int) -> Any:
        nonlocal now
        turn = step // config.records.refresh
        if now[0] != turn:
            rng = np.random.default_rng([config.seed, turn])
            chosen = np.sort(rng.permutation(whole)[: min(resident, whole)])
            now = (turn, rows(pair, load(shards, chosen), prompt))
        return now[1]

    return at

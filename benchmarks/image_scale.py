"""What a Stable Diffusion-size step needs on several devices, without any weights.

    python -m benchmarks.image_scale

Compiles the two steps of the image experiment for a mesh of CPU devices from abstract
shapes, and prints bytes per device and bytes moved between devices per step. Nothing is
computed, so neither weights nor accelerators are needed.
"""

import argparse
import os
import re
from typing import Any

BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "s64": 8, "u8": 1}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute")
GIB = 2**30


def collective_bytes(program: str) -> dict[str, int]:
    """Bytes of the results of every kind of collective in a compiled program."""
    found = dict.fromkeys(COLLECTIVES, 0)
    pattern = r"= \(?((?:\w+\[[\d,]*\][^ ]* ?,? ?)+)\)? (" + "|".join(COLLECTIVES) + r")\("
    for shapes, kind in re.findall(pattern, program):
        for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = 1
            for size in filter(None, sizes.split(",")):
                count *= int(size)
            found[kind] += count * BYTES.get(dtype, 4)
    return found


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="latents per step")
    parser.add_argument("--size", type=int, default=64, help="side of a latent")
    parser.add_argument("--rewards", type=int, default=64, help="batch of a reward step")
    options = parser.parse_args()
    flag = f" --xla_force_host_platform_device_count={options.devices}"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + flag
    os.environ["JAX_PLATFORMS"] = "cpu"
    rows = [
        ("records, parameters replicated", records_step(options, cut=False)),
        ("records, parameters cut", records_step(options, cut=True)),
        ("reward step, UnetReward", reward_step(options)),
    ]
    print(
        f"{'per device':34}{'TFLOP':>8}{'arguments':>11}{'temporary':>11}{'moved':>9}   GiB"
    )
    for name, compiled in rows:
        memory = compiled.memory_analysis()
        moved = collective_bytes(compiled.as_text())
        kinds = ", ".join(f"{k} {v / GIB:.3f}" for k, v in moved.items() if v) or "nothing"
        flops = compiled.cost_analysis()["flops"] / 1e12
        print(
            f"{name:34}{flops:8.2f}{memory.argument_size_in_bytes / GIB:11.2f}"
            f"{memory.temp_size_in_bytes / GIB:11.2f}{sum(moved.values()) / GIB:9.3f}"
            f"   {kinds}"
        )


def records_step(options: argparse.Namespace, *, cut: bool) -> Any:
    """One state of a batch of chains: three evaluations, Safe Latent Diffusion, in bf16."""
    import jax
    import jax.numpy as jnp

    from diffreward.diffusion import SAFETY_PRESETS, initial_memory, safe_step
    from diffreward.networks.latent import Unet2D
    from diffreward.train import cut_shardings, make_mesh

    mesh = make_mesh(options.devices)
    network, shape = Unet2D(), (options.size, options.size, 4)
    context = jax.ShapeDtypeStruct((77, 768), jnp.bfloat16)
    abstract = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jnp.zeros(shape),
        jnp.int32(0),
        jnp.zeros((77, 768)),
    )
    place = lambda spec: jax.sharding.NamedSharding(mesh, spec)
    whole = jax.tree.map(lambda _: place(jax.sharding.PartitionSpec()), abstract)
    params = jax.tree.map(
        lambda p, s: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16, sharding=s),
        abstract,
        cut_shardings(abstract, mesh) if cut else whole,
    )

    def one(params: Any, x: Any, t: Any, contexts: Any) -> Any:
        def evaluate(x_t: Any, t: Any) -> Any:
            run = lambda c: network.apply(params, x_t.astype(jnp.bfloat16), t, c)
            return tuple(jax.vmap(run)(contexts).astype(jnp.float32))

        step = safe_step(evaluate, SAFETY_PRESETS["max"], 7.5)
        return step(x, t, initial_memory(shape))[0]

    rows = jax.sharding.PartitionSpec("data")
    batch = lambda s, dtype: jax.ShapeDtypeStruct(
        (options.batch, *s), dtype, sharding=place(rows)
    )
    return (
        jax.jit(jax.vmap(one, (None, 0, 0, 0)))
        .lower(
            params,
            batch(shape, jnp.float32),
            batch((), jnp.int32),
            batch((3, *context.shape), jnp.bfloat16),
        )
        .compile()
    )


def reward_step(options: argparse.Namespace) -> Any:
    """Value and gradient of the alignment loss on a batch of records."""
    import jax
    import jax.numpy as jnp

    from diffreward.networks import UnetReward
    from diffreward.reward import alignment_loss
    from diffreward.train import make_mesh

    mesh = make_mesh(options.devices)
    network, shape = UnetReward(), (options.size, options.size, 4)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape), jnp.int32(0))
    place = lambda spec: jax.sharding.NamedSharding(mesh, spec)

    def loss(params: Any, x: Any, t: Any, target: Any) -> Any:
        rho = lambda x, t: network.apply(params, x, t)
        one = lambda x, t, h: alignment_loss(rho, x, t, h)[0]
        return jax.vmap(one)(x, t, target).mean()

    rows = place(jax.sharding.PartitionSpec("data"))
    batch = lambda s, dtype: jax.ShapeDtypeStruct(
        (options.rewards, *s), dtype, sharding=rows
    )
    whole = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(
            p.shape, p.dtype, sharding=place(jax.sharding.PartitionSpec())
        ),
        params,
    )
    x = batch(shape, jnp.float32)
    lowered = jax.jit(jax.value_and_grad(loss)).lower(whole, x, batch((), jnp.int32), x)
    return lowered.compile()


if __name__ == "__main__":
    main()

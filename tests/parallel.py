"""Print what `unroll` compiles to and computes on several devices, as JSON.

    python -m tests.parallel "LSTM, layer, cpu" ...      run by test_parallel.py

The process must see four devices: on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=4.
"""

from functools import partial
import json
import re
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from tests.cells import SCHEDULES, SITES, Layer, init, norm_of

T, B, D, H = 16, 64, 32, 32
CELLS = {Cell.__name__: Cell for Cell in SITES}
OVER_BATCH = PartitionSpec(None, "batch")


def collectives(compiled) -> list[int]:
    """Return the number of elements of every array that a compiled program communicates."""
    pattern = r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute)(?:-start)?\("
    sizes = []
    for shapes in re.findall(pattern, compiled.as_text()):
        for dims in re.findall(r"\w+\[([\d,]*)\]", shapes):
            sizes.append(int(np.prod([int(d) for d in dims.split(",") if d] or [1])))
    return sizes


def memory(compiled) -> int:
    return compiled.memory_analysis().temp_size_in_bytes


def difference(actual, expected) -> float:
    """Return the largest difference of any leaf, relative to the largest number of the leaf."""

    def relative(x, y):
        x, y = np.asarray(x), np.asarray(y)
        return float(abs(x - y).max() / abs(y).max())

    return max(jax.tree.leaves(jax.tree.map(relative, actual, expected)))


def measure(Cell, kind: str, schedule) -> dict:
    layer = Layer(Cell(H, norm_of(kind, Cell)), schedule)
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    mask = jnp.arange(T)[:, None] < jnp.arange(B) % T + 1
    variables = init(layer, xs, mask)
    params, stats = variables["params"], variables.get("stats", {})

    def loss(params, stats, xs, mask):
        variables = {"params": params, "stats": stats}
        (hs, _), _ = layer.apply(variables, xs, mask, mutable=["stats"])
        return (hs**2).sum()

    gradient = jax.jit(jax.grad(loss))
    expected = gradient(params, stats, xs, mask)
    measured = dict(parameters=sum(leaf.size for leaf in jax.tree.leaves(variables)))
    measured["memory"] = [memory(gradient.lower(params, stats, xs, mask).compile())]
    mesh = jax.make_mesh((4,), ("batch",), (AxisType.Auto,))
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), OVER_BATCH))
    arguments = *jax.device_put((params, stats), whole), *jax.device_put((xs, mask), split)
    compiled = gradient.lower(*arguments).compile()
    measured["memory"].append(memory(compiled))
    measured["collectives"] = collectives(compiled)
    measured["auto"] = difference(compiled(*arguments), expected)

    mesh = jax.make_mesh((2,), ("batch",), devices=jax.devices()[:2])  # Explicit axes
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), OVER_BATCH))
    arguments = *jax.device_put((params, stats), whole), *jax.device_put((xs, mask), split)
    with jax.set_mesh(mesh):
        measured["explicit"] = difference(gradient(*arguments), expected)

    if kind != "batch":  # whose statistics would be those of a shard

        @partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(PartitionSpec(), OVER_BATCH, OVER_BATCH),
            out_specs=PartitionSpec(),
        )
        def total(params, xs, mask):
            return jax.lax.psum(loss(params, {}, xs, mask), "batch")

        params, _, xs, mask = arguments
        measured["shard_map"] = difference(jax.jit(jax.grad(total))(params, xs, mask), expected)
    return measured


if __name__ == "__main__":
    rows = {}
    for pair in sys.argv[1:]:
        name, kind, schedule = pair.split(", ")
        rows[pair] = measure(CELLS[name], kind, SCHEDULES[schedule])
    print(json.dumps(rows))

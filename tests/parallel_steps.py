"""Print what two training steps need and compute on 1 and on 4 devices, as JSON.

python -m tests.parallel_steps DATA_DIR ROW...      run by test_parallel.py; needs four devices
"""

import json
import sys

import jax
import numpy as np

import experiments
from ln.training import train
from ln.training.devices import Spread
from tests.learning import tiny_task
from tests.parallel import collectives, difference, memory

# Examples in a batch: so many that their memory exceeds that of the parameters.
BATCH = dict(mnist=4096, sequential_mnist=512, convnet=64)
# Larger programs have collectives that XLA, on fewer cores than devices, waits for forever.
COMPUTED = ("mnist", "sequential_mnist")
ROWS = {name: (name, "layer", 1) for name in experiments.names()}
ROWS["batch norm"] = ("mnist", "batch", 1)
ROWS["four lanes"] = ("mnist", "layer", 4)
ROWS["two lanes"] = ("sequential_mnist", "batch", 2)


def measure(name: str, norm: str, lanes: int, data_dir: str) -> dict:
    task = tiny_task(name, data_dir, norm=norm)
    config, optimizer = task.config, train.make_optimizer(task.config)
    state = train.init_lanes(task, optimizer, [(seed, 1e-3) for seed in range(lanes)])
    state = jax.device_get(state)  # a call deletes its own copy
    measured, results = dict(memory=[], collectives=[]), []
    measured["parameters"] = max(leaf.size for leaf in jax.tree.leaves(state.params))
    config.batch_size = B = BATCH.get(name, 64)  # after the check that the data have as many
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], task.example())
    for n in (1, 4):
        spread = Spread.over(jax.devices()[:n], lanes, B)
        new, batches = spread.state(state), spread.batches(batch)
        compiled = train.make_call(task, optimizer, spread).lower(new, batches).compile()
        measured["memory"].append(memory(compiled))
        measured["collectives"] += collectives(compiled)
        if name in COMPUTED:
            losses = []
            for _ in range(2):
                new, metrics = compiled(new, batches)
                losses.append(jax.device_get(metrics["loss"]))
            results.append((losses, jax.device_get(new.stats)))
    return measured | dict(difference=difference(*results) if results else None)


if __name__ == "__main__":
    print(json.dumps({row: measure(*ROWS[row], sys.argv[1]) for row in sys.argv[2:]}))

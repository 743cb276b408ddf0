"""Print what the training step of every experiment needs on 1, 2 and 4 devices, as JSON.

python -m tests.parallel_steps DATA_DIR      run by test_parallel.py; must see four devices
"""

import json
import sys

import jax

import experiments
from ln.training import train
from ln.training.devices import Spread
from tests.learning import tiny_task
from tests.parallel import collectives, memory

# Examples in a batch: so many that their memory exceeds that of the parameters.
BATCH = dict(mnist=4096, sequential_mnist=512, convnet=64)


def measure(name: str, data_dir: str) -> dict:
    task = tiny_task(name, data_dir)
    config, optimizer = task.config, train.make_optimizer(task.config)
    state = train.init_lanes(task, optimizer, [(0, 1e-3)])
    measured = dict(memory=[], collectives=[])
    measured["parameters"] = max(leaf.size for leaf in jax.tree.leaves(state.params))
    config.batch_size = B = BATCH.get(name, 64)  # after the check that the data have as many
    batch = jax.tree.map(lambda leaf: leaf[None], task.example())
    for n in (1, 2, 4):
        spread = Spread.over(jax.devices()[:n], 1, B)
        arguments = spread.state(state), spread.batches(batch)
        compiled = train.make_call(task, optimizer, spread).lower(*arguments).compile()
        measured["memory"].append(memory(compiled))
        measured["collectives"] += collectives(compiled)
    return measured


if __name__ == "__main__":
    print(json.dumps({name: measure(name, sys.argv[1]) for name in experiments.names()}))

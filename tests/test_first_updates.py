"""The first updates of every experiment: recorded losses with every norm, and what they change.

python -m tests.test_first_updates      records them anew, after a change that alters rounding
"""

from functools import cache
import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
from ln.training import train
from tests.learning import tiny_task
from tests.products import exhaustive

RECORDED = Path(__file__).with_name("first_updates.json")
PAIRS = [
    (name, norm)
    for name in experiments.names()
    for norm in importlib.import_module(f"configs.{name}").get_config("tiny").norms
]


@cache
def trained(name: str, norm: str, data_dir: str, steps: int = 20):
    """Return the parameters before and after some updates at tiny scale, and the losses.

    All updates but the first three are on the first batch. Adam divides a gradient by its size.
    With its own eps of 1e-8, one that is 0 but for rounding would move a parameter as far as any
    other, and the losses would depend on the instructions of the processor.
    """
    task = tiny_task(name, data_dir, norm=norm, **{"optimizer.eps": 1e-3})
    optimizer = train.make_optimizer(task.config)
    state = train.init_lanes(task, optimizer, [(0, 3e-3)])
    before, losses = jax.device_get(state.params), []  # a call deletes its state
    call = train.make_call(task, optimizer)
    for step in [0, 1, 2, *[0] * (steps - 3)]:
        _, batches = train.batches_of(task, range(step, step + 1))
        state, metrics = call(state, batches)
        losses.append(float(metrics["loss"][0, 0]))
    return before, jax.device_get(state.params), losses


# Layer norm in every experiment, and every norm somewhere.
QUICK = [pair for pair in PAIRS if pair[1] == "layer" or pair[0] == "mnist"]
QUICK += [("convnet", "layer_units"), ("attentive_reader", "everywhere")]


@pytest.mark.slow
@pytest.mark.parametrize("name, norm", [p if p in QUICK else exhaustive(*p) for p in PAIRS])
def test_the_first_updates_are_the_recorded_ones(name, norm, data_dir):
    recorded = json.loads(RECORDED.read_text())[f"{name}, {norm}"]
    losses = trained(name, norm, data_dir)[2]
    np.testing.assert_allclose(losses[: len(recorded)], recorded, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
def test_updates_change_every_parameter_and_lower_the_loss(name, data_dir):
    before, after, losses = trained(name, "layer", data_dir)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(changed)), changed
    assert losses[-1] < losses[0]


def test_every_experiment_and_norm_is_recorded():
    assert sorted(json.loads(RECORDED.read_text())) == sorted(f"{n}, {norm}" for n, norm in PAIRS)


if __name__ == "__main__":
    place = ".cache/first_updates"
    rows = {f"{name}, {norm}": trained(name, norm, place, 3)[2] for name, norm in PAIRS}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
    RECORDED.write_text("{\n" + lines + "\n}\n")

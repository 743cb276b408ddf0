"""The first three updates of every experiment with every norm are those that were recorded.

python -m tests.test_first_updates      records them anew, after a change that alters rounding
"""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

import experiments
from ln.training import train
from tests.learning import tiny_task
from tests.products import covering

RECORDED = Path(__file__).with_name("first_updates.json")
PAIRS = [
    (name, norm)
    for name in experiments.names()
    for norm in importlib.import_module(f"configs.{name}").get_config("tiny").norms
]


def losses(name: str, norm: str, data_dir: str) -> list[float]:
    """Return the losses of the first three updates at tiny scale."""
    task = tiny_task(name, data_dir, norm=norm)
    optimizer = train.make_optimizer(task.config)
    state = train.init_lanes(task, optimizer, [(0, 1e-2)])
    call, losses = train.make_call(task, optimizer), []
    for step in range(3):
        _, batches = train.batches_of(task, range(step, step + 1))
        state, metrics = call(state, batches)
        losses.append(float(metrics["loss"][0, 0]))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("name, norm", covering(1, reversed(PAIRS)))
def test_the_first_updates_are_the_recorded_ones(name, norm, data_dir):
    recorded = json.loads(RECORDED.read_text())[f"{name}, {norm}"]
    np.testing.assert_allclose(losses(name, norm, data_dir), recorded, rtol=1e-5)


def test_every_experiment_and_norm_is_recorded():
    assert sorted(json.loads(RECORDED.read_text())) == sorted(f"{n}, {norm}" for n, norm in PAIRS)


if __name__ == "__main__":
    rows = {f"{name}, {norm}": losses(name, norm, ".cache/first_updates") for name, norm in PAIRS}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
    RECORDED.write_text("{\n" + lines + "\n}\n")

"""A folder with a task.py is an experiment; nothing else is."""

import importlib
import itertools

import jax
from ml_collections import ConfigDict
import numpy as np
import pytest

import experiments
from ln.errors import InputError
from ln.norm import make_norm
from tests.commands import python
from tests.learning import tiny_task


def test_a_folder_with_a_task_is_an_experiment(monkeypatch, tmp_path):
    for path in ("b/task.py", "b/samples.py", "a/task.py", "helpers/samples.py", "c.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    assert experiments.names() == ["a", "b"]
    assert experiments.names("samples") == ["b"]


def test_a_part_may_be_missing():
    assert experiments.part("mnist", "samples") is None
    assert experiments.part("mnist", "figures").__name__ == "experiments.mnist.figures"


@pytest.mark.parametrize("name, near", [("mnst", "mnist"), ("theory", "")])
def test_an_unknown_experiment_gives_the_nearest(name, near):
    with pytest.raises(InputError, match=f"Unknown config.experiment '{name}'") as error:
        experiments.load(ConfigDict(dict(experiment=name)))
    assert not near or f"Did you mean '{near}'?" in str(error.value)
    assert "Known: attentive_reader, " in str(error.value)


@pytest.mark.parametrize("name", experiments.names())
def test_every_run_of_a_sweep_is_a_config(name):
    """It sets keys that the config has, and a norm that can be made, at every scale."""
    file = importlib.import_module(f"configs.{name}")
    for scale, run in itertools.product(file.SCALES, file.sweep()):
        config = file.get_config(scale)
        config.update_from_flattened_dict(run)
        assert make_norm(config, train=True).kind == config.norms[config.norm].get("kind", "none")


# --- Every task ---


@pytest.fixture(scope="module", params=experiments.names())
def task(request, data_dir):
    return tiny_task(request.param, data_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "draw", "handwriting", "sequential_mnist"])
def test_a_task_names_the_metrics_of_its_evaluations(name, data_dir):
    """Tests of the other experiments evaluate them, too."""
    task = tiny_task(name, data_dir)
    scores = task.evaluate(jax.jit(task.init)(jax.random.key(0)))
    assert set().union(*scores.values()) == set(task.metrics)


def test_an_example_looks_like_a_batch(task):
    def looks(batch):
        return {name: (np.ndim(array), array.dtype) for name, array in batch.items()}

    assert looks(task.example()) == looks(task.batch(0))


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("mnist", dict(dataset="digts"), "Unknown data set 'digts'. Did you mean 'digits'"),
        ("mnist", dict(init="he_norml"), "config.init 'he_norml'. Did you mean 'he_normal'"),
        ("sequential_mnist", dict(pixels_per_step=5), "must divide the 64 pixels"),
        ("sequential_mnist", dict(valid_cases=1497), "this data set has 1497 examples"),
        ("convnet", dict(channels=(8, 0)), "channels is 0; it must be 1 or more"),
        ("handwriting", dict(kappa_bias=-np.inf), "kappa_bias is -inf; it must be a finite number"),
        ("convnet", dict(channels=()), "config.channels has 0 layers.* allow 3"),
        ("convnet", dict(channels=(2, 2, 2, 2)), "config.channels has 4 layers.* allow 3"),
        ("skip_thoughts", dict(batch_size=10**6), "batch_size is 1000000"),
        ("skip_thoughts", dict(max_words=2), "of less than"),
        ("skip_thoughts", dict(tasks="sentences"), "scripts.data sentences"),
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit_raises(name, settings, words, data_dir):
    with pytest.raises(InputError, match=words) as error:
        tiny_task(name, data_dir, **settings)
    assert "\n" not in str(error.value)


def test_models_import_neither_data_nor_training():
    names = [f"experiments.{name}.model" for name in experiments.names()]
    heavy = ("experiments.datasets", "experiments.curves", "ln.training", "orbax")
    code = f"import sys, importlib; [importlib.import_module(name) for name in {names}]; "
    code += f"print([name for name in sys.modules if name.startswith({heavy})])"
    assert python("-c", code).stdout == "[]\n"

"""The command that samples a trained model: its options, its files, and one-line errors."""

from functools import cache
import json
import re

import jax
import numpy as np
import pytest

import experiments
from ln.errors import InputError
from ln.training import runs, train
from tests.commands import PROJECT, assert_rejected, run
from tests.learning import tiny_config, tiny_task
from tests.products import exhaustive

pytestmark = pytest.mark.slow  # whole commands
NAMES = experiments.names("samples")
QUICK = ("draw", "order_embeddings")


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Return a function name -> the folder of a run with a checkpoint of two untrained lanes."""
    root = tmp_path_factory.mktemp("runs")

    @cache
    def make(name):
        config = tiny_config(name, root / "data", seeds=(0, 1))
        task, lanes = experiments.load(config), train.make_lanes(config)
        with runs.Run(root / name, config, lanes, task.data) as run:
            run.start(0)
            run.write(1, None, config.select.split, {config.select.metric: np.zeros(2)})
            run.save(1, train.init_lanes(task, train.make_optimizer(config), lanes), {})
        return root / name

    return make


@pytest.mark.parametrize("name", [n if n in QUICK else exhaustive(n) for n in NAMES])
def test_command_writes_files_and_their_record(make_run, name):
    folder = make_run(name) / "samples"
    folder.mkdir()
    (folder / "samples.json.tmp").touch()  # of a killed process
    done = run("scripts.sample", name, f"--workdir={folder.parent}", "--lane=1")
    assert done.returncode == 0, done.stderr
    made = json.loads((folder / "samples.json").read_text())
    written = {path.name for path in folder.iterdir() if path.suffix != ".tmp"}
    assert written == {*made["files"], "samples.json"}
    assert all(str(folder / file) in done.stdout for file in made["files"])
    assert all((folder / file).stat().st_size for file in made["files"])
    assert made["seed"] == 1 and "--lane=1" in made["command"]


@pytest.mark.timeout(900)
def test_the_examples_of_the_docs_work(make_run, monkeypatch):
    pytest.importorskip("pandas")
    for name in experiments.names():
        folder = make_run(name)
    (folder.parent / "runs").symlink_to(folder.parent, target_is_directory=True)
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    for example in re.findall(
        r"```python\n(.*?)```", (PROJECT / "docs/using.md").read_text(), re.S
    ):
        exec(example, names)
    assert names["digits"].shape == (5,) and names["pictures"].shape == (16, 28, 28)
    assert names["vectors"].shape[0] == 2 and len(names["nearest"]) == 5 * 10
    assert names["moves"].shape == (300, 2) and len(names["best"]) == 1


def test_command_overwrites_its_own_files(make_run, tmp_path):
    for name in ("samples.json", "neighbours.txt"):
        (tmp_path / name).touch()
    name = "order_embeddings"
    run("scripts.sample", name, f"--workdir={make_run(name)}", f"--out={tmp_path}")
    assert (tmp_path / "neighbours.txt").stat().st_size


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_options_of_one_experiment(name):
    done = run("scripts.sample", name, "--help")
    samples = experiments.part(name, "samples")
    assert done.returncode == 0 and f"python -m scripts.sample {name}" in done.stdout
    options = samples.Options.__dataclass_fields__
    assert all(f"--[no]{o}:" in done.stdout or f"--{o}:" in done.stdout for o in options)
    assert ("--bias:" in done.stdout) == (name == "handwriting")


@pytest.mark.parametrize(
    "word, message",
    [
        ("--lane=2", "has no lane 2 at step 0 that has not diverged. There are: 0, 1"),
        ("--checkpoint=nwest", "Did you mean 'newest'"),
    ],
)
def test_nothing_is_written_for_what_a_run_lacks(make_run, tmp_path, word, message):
    out, workdir = tmp_path / "out", make_run("draw")
    done = run("scripts.sample", "draw", f"--workdir={workdir}", f"--out={out}", word)
    assert_rejected(done, message)
    assert not out.exists()


@pytest.mark.parametrize("name", ["attentive_reader", "draw", "handwriting", "order_embeddings"])
def test_more_examples_than_a_split_has_raise(make_run, name):
    place = make_run("draw").parent / "data"
    task, samples = tiny_task(name, place), experiments.part(name, "samples")
    variables = jax.eval_shape(task.init, jax.random.key(0))
    with pytest.raises(InputError, match="--cases=100000: .*the split .test. has [0-9]+"):
        samples.sample(task, variables, samples.Options(cases=100_000))

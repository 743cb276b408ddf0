"""The commands: their help, their errors, and sweeps that skip and resume runs."""

from importlib.util import find_spec
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

from configs import mnist
import experiments
from ln.errors import InputError
from ln.training import ranges, runs
from scripts import cli
from scripts.engines import jobs
from tests.commands import PROJECT, assert_rejected, python, run, start
from tests.learning import tiny_config

# ml_collections loads a config file by load_module, which is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")
SHARED = ("cli", "hosts")  # modules there that are no commands
SCRIPTS = sorted(p.stem for p in (PROJECT / "scripts").glob("[a-z]*.py") if p.stem not in SHARED)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_an_example_and_loads_nothing_heavy(name):
    done = python("-X", "importtime", "-m", f"scripts.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m scripts.{name}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"jax", "flax", "sklearn", "matplotlib", "torch", "tensorflow_datasets"}


TRAIN = "scripts.train --config=configs/mnist.py:tiny"
SWEEP = "scripts.sweep --config=configs/mnist.py:tiny"
CUDA = pytest.mark.skipif(find_spec("jax_plugins") is not None, reason="the plugin is here")
REJECTED = [
    ("scripts.train --config=configs/mnist.py:smal", 'Did you mean "small"'),
    ("scripts.train --config=README.md", "There is no config file 'README.md', in Python"),
    ("scripts.train --config=configs/mnit.py", "Did you mean 'configs/mnist.py'"),
    (f"{TRAIN} --config.nrm=layer", 'Did you mean "norm"'),
    (f"{TRAIN} --config.hidden=8.5", "config.hidden=8.5"),
    (f"{TRAIN} --workdri=x", "Did you mean: workdir"),
    (TRAIN, "--workdir=DIR"),
    ("scripts.train", "--config=FILE"),
    ("scripts.sweep --plan=results/plan.toml --space=lr=1 --trials=3", "no --space, --trials"),
    (f"{SWEEP} --config.seeds=7", "--config.seeds would be ignored"),
    (f"{SWEEP} --grid=norm=none --config.norm=batch", "--config.norm would be ignored"),
    (f"{SWEEP} --trials=3", "--trials belongs to --engine=optuna"),
    (f"{SWEEP} --engine=optuna --space=hidden=4,6 --cluster=local", "--cluster belongs to"),
    (f"{SWEEP} --engine=optuna --space=norm=none,rms --config.norm=rms", "would be ignored"),
    ("scripts.report --csv --claims", "--csv writes tables"),
    ("scripts.report --csv --runs=nowhere", "--runs=nowhere is no folder"),
    ("scripts.report --theory --runs=results", "--theory takes no --runs"),
    ("scripts.data", "Give one data set"),
    ("scripts.data mnist --from=nowhere --data_dir=nowhere", "nowhere does not exist"),
    ("scripts.data digits --form=x", "from"),
    ("scripts.evaluate", "--workdir=DIR"),
    ("scripts.evaluate --workdir=x --cases=3", "goes with --samples=K"),
    ("scripts.evaluate --workdir=configs", "is no run folder"),
    ("scripts.sample", "Give one experiment of attentive_reader"),
    ("scripts.sample drwa --workdir=x --count=3", "Did you mean 'draw'"),
    ("scripts.sample draw --workdir=x --count=0", "--count=0"),
    (f"scripts.sample draw --workdir=x --seed={2**31}", "in the range [0, 2147483647]"),
    ("scripts.sample draw --workdir=x --text=norm", "Unknown command line flag 'text'"),
    ("scripts.sample draw --workdir=x --out=configs", "configs is not empty"),
    ("scripts.sample draw --workdir=results/paper/mnist/norm=layer,batch_size=4", "of mnist"),
    ("scripts.benchmark lane", "Did you mean 'lanes'?"),
    ("scripts.benchmark --case=draw", "--case"),
    ("scripts.benchmark step --case=drwa", "Did you mean 'draw'?"),
    ("scripts.benchmark step --case=mnist --scale=tiny --peer=our", "Did you mean 'ours'?"),
    ("scripts.benchmark rnn --out=README.md", "is not a folder"),
    ("scripts.benchmark reproduce --case=whole --scale=tinny", "Did you mean 'tiny'?"),
    ("scripts.gpu", "--help"),
    ("scripts.gpu trian --out=x", "Did you mean 'train'"),
    ("scripts.gpu train --out=x", "--minutes=N"),
    ("scripts.count_kernels", "--experiment=NAME"),
    ("scripts.count_kernels --experiment=drwa", "Did you mean 'draw'?"),
    pytest.param(
        "scripts.count_kernels --experiment=mnist --scale=tiny", '"jax[cuda13]==', marks=CUDA
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("words, message", REJECTED, ids=range(len(REJECTED)))
def test_a_wrong_command_ends_in_one_line(words, message):
    assert_rejected(run(*words.split()), message)
    assert not (PROJECT / "x").exists()


def test_a_grid_is_the_product_of_its_axes():
    points = jobs.read_grid(["norm=none,layer", "batch_size=128,4"])
    assert points == [dict(norm=n, batch_size=b) for n in ("none", "layer") for b in ("128", "4")]


def test_runs_are_named_by_what_varies():
    points = [dict(norm=n, seeds=(0, 1)) for n in ("none", "layer")]
    assert jobs.names(points) == ["norm=none", "norm=layer"]
    points = [dict(norm="none", lr=lr) for lr in (0.1, 0.2)]
    assert jobs.names(points) == ["norm=none,lr=0.1", "norm=none,lr=0.2"]
    with pytest.raises(InputError, match="the same"):
        jobs.names([dict(norm="none"), dict(norm="none")])


def test_runs_of_the_same_config_raise(tmp_path):
    points = jobs.read_grid(["hidden=8,08"])
    with pytest.raises(InputError, match="two ways"):
        jobs.unfinished(mnist.get_config("tiny"), points, tmp_path)


def test_overriding_leaves_the_config_alone():
    config = mnist.get_config("tiny")
    values = {"optimizer.b2": "0.5", "lr": "1e-3,2e-3", "norms.layer.gain": 2.0}
    run = jobs.override(config, values)
    assert (run.optimizer.b2, run.lr, run.norms.layer.gain) == (0.5, (1e-3, 2e-3), 2.0)
    assert config.to_json() == mnist.get_config("tiny").to_json()


@pytest.mark.parametrize("name", experiments.names())
def test_every_number_has_a_range(name):
    config = cli.read_config_file(f"configs/{name}.py")
    checked = {key for key, _ in ranges.numbers(config) if not key.startswith("norms.")}
    assert checked <= ranges.RANGES.keys()


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(:", "line 1: SyntaxError"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("x = 1", "get_config"),
    ],
)
def test_a_config_file_with_an_error_raises(text, message, tmp_path):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        cli.read_config_file(str(tmp_path / "own.py"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("closing", [">&-", "| head -c 1", "> /dev/full"])
def test_a_lost_output_ends_no_command(closing, tmp_path):
    words = f"set -o pipefail; {sys.executable} -m scripts.data digits --data_dir={tmp_path}"
    words = ["bash", "-c", f"{words} {closing}"]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "digits").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, message",
    [
        (["--grid=norm=none,layr"], "norm=layr: Unknown config.norm 'layr'. Did you mean 'layer'"),
        (["--grid=norms.layer.gian=1"], 'Did you mean "gain"'),
        (["--grid=clip=0,-1"], "clip=-1: config.clip is -1.0; it must be 0 or more."),
        (["--grid=select.metric=eror", "--dry_run"], "config.select.metric 'eror'. Did you mean"),
        (["--grid=select.split=vald", "--dry_run"], "config.select.split 'vald'. Did you mean"),
        (["--grid=norm=none", "layer"], "Unknown argument 'layer'"),
        (["--engine=optuna", "--space=lr=1e-3,-1"], "config.lr is -1;"),
    ],
)
def test_a_wrong_sweep_starts_nothing(words, message, tmp_path):
    place = (f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}")
    done = run("scripts.sweep", "--config=configs/mnist.py:tiny", *place, *words)
    assert_rejected(done, message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_sweep_passes_on_every_setting(tmp_path):
    """Also those that a prefix of the command line would miss."""
    (tmp_path / "flags").write_text("--config.hidden=5\n")
    place = (f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}")
    given = (f"--flagfile={tmp_path / 'flags'}", "-config.batch_size=3", "--grid=norm=none")
    words = ("scripts.sweep", "--config=configs/mnist.py:tiny", *place, *given)
    words += ("--config.norms.batch.unbiased",)
    assert run(*words).returncode == 0
    config = runs.read(tmp_path / "runs/mnist/norm=none").config
    assert (config["hidden"], config["batch_size"]) == (5, 3)
    assert config["norms"]["batch"]["unbiased"]
    assert "1 of them finished" in run(*words).stdout
    for changed in ("--config.hidden=6", "--config.seeds=5"):
        assert_rejected(run(*words, changed), changed[9:].partition("=")[0], "--root")
    assert run(*words, "--config.steps=6 steps").returncode == 0
    assert runs.read(tmp_path / "runs/mnist/norm=none").config["steps"] == "6 steps"


@pytest.mark.slow
def test_a_whole_config_trains_the_same_run(tmp_path):
    (tmp_path / "config.json").write_text(tiny_config("mnist", tmp_path).to_json())
    run("scripts.train", f"--config_json={tmp_path / 'config.json'}", f"--workdir={tmp_path / 'a'}")
    assert runs.read_config(tmp_path / "a").to_dict() == tiny_config("mnist", tmp_path).to_dict()
    done = run("scripts.train", f"--config_json={tmp_path}", f"--workdir={tmp_path / 'b'}")
    assert_rejected(done, "cannot be read")


WRONG = [  # changes of a config in JSON, and the message
    (dict(hiden=9), "Did you mean 'hidden'"),
    (dict(norms=dict(layer=3)), "config.norms.layer is 3; it must be a table"),
    (dict(optimizer=[]), "config.optimizer is (); it must be a table"),
    (dict(dataset=7), "config.dataset is 7; it must be a text"),
    (dict(select={}), "config.select.metric is None; it must be a text"),
    (dict(lr=0.1), "config.lr is 0.1; it must be a list"),
    (dict(hidden=8.0), "config.hidden is 8.0; it must be 1 or more, a whole number"),
]


def test_a_wrong_config_in_json_raises(tmp_path):
    config = json.loads(tiny_config("mnist", tmp_path).to_json())
    for n, (changes, _) in enumerate(WRONG):
        (tmp_path / f"{n}.json").write_text(json.dumps(config | changes))
    code = (
        "import sys, experiments\nfrom ln.errors import InputError\nfrom scripts import train\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        experiments.check(train.read_json(name))\n"
        "    except InputError as error:\n        print(error)\n"
    )
    done = python("-c", code, *(str(tmp_path / f"{n}.json") for n in range(len(WRONG))))
    lines = [line for line in done.stdout.splitlines() if "prepared in" not in line]
    assert len(lines) == len(WRONG), done.stderr
    for line, (_, message) in zip(lines, WRONG, strict=True):
        assert message in line


@pytest.mark.slow
def test_a_sweep_continues_past_a_failure(tmp_path):
    words = (
        *("scripts.sweep", "--config=configs/mnist.py:tiny", "--grid=norm=none,layer"),
        *("--grid=lr=1e30,1e-3", "--config.clip=0.0"),  # the first diverges at once
        *(f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}"),
    )
    first = run(*words)
    assert first.returncode == 1, first.stderr
    root = tmp_path / "runs/mnist"
    finished = {p.name for p in root.iterdir() if runs.is_finished(p)}
    assert finished == {"norm=none,lr=1e-3", "norm=layer,lr=1e-3"}
    assert "2 runs failed" in first.stderr and "norm=none,lr=1e30" in first.stderr
    assert json.loads((root / "norm=none,lr=1e-3/config.json").read_text())["lr"] == [1e-3]

    second = run(*words)
    assert second.returncode == 1 and "4 runs in" in second.stdout and "[1/2]" in second.stdout
    assert len((root / "norm=none,lr=1e-3/sessions.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_two_sweeps_train_each_run_once(tmp_path):
    words = (
        *("-m", "scripts.sweep", "--config=configs/mnist.py:tiny"),
        *("--grid=norm=none,batch", "--grid=hidden=8,9", "--workers=2"),
        *(f"--root={tmp_path / 'runs'}", f"--config.data_dir={tmp_path}"),
    )
    both = [start(*words) for _ in range(2)]
    root, killed = tmp_path / "runs" / "mnist", 0
    for line in both[0].stdout:  # its workers are killed as soon as one of its runs has begun
        if " | " in line and not killed:
            children = Path(f"/proc/{both[0].pid}/task/{both[0].pid}/children").read_text()
            for child in map(int, children.split()):
                os.kill(child, signal.SIGKILL)
                killed += 1
    texts = [sweep.communicate()[0] for sweep in both]
    assert killed and [sweep.returncode for sweep in both] == [0, 0], texts
    folders = sorted(root.iterdir())
    assert len(folders) == 4 and all(map(runs.is_finished, folders))
    for folder in folders:
        rows = [
            (r["step"], r["split"], r["seed"]) for r in runs.read_rows(folder / "metrics.jsonl")
        ]
        assert len(set(rows)) == len(rows)


def test_a_busy_run_has_its_own_status(tmp_path):
    config = mnist.get_config("tiny")
    with runs.Run(tmp_path / "run", config, [(0, 1e-3)]):
        words = ("scripts.train", "--config=configs/mnist.py:tiny", f"--workdir={tmp_path / 'run'}")
        done = run(*words, f"--config.data_dir={tmp_path}")
    assert done.returncode == cli.BUSY and "Another process is writing" in done.stderr

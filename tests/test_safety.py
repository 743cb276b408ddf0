"""Files of strangers are data: nothing in them is executed, nothing of them lands elsewhere."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [
    path.relative_to(ROOT)
    for folder in ("configs", "experiments", "ln", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
UNPICKLER = Path("experiments/datasets/pickles.py")  # the one that refuses all but plain data

# What executes what is in a file, or in a text; what writes wherever an archive says.
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
FUNCTIONS = {"eval", "exec"}
METHODS = {"extract", "extractall", "unpack_archive", "system", "popen", "read_pickle"}
LOADERS = {("torch", "load"), ("pickle", "load"), ("pickle", "loads")}
OPTIONS = {"allow_pickle", "shell"}


def dangers(source):
    """Returns what a module has of all that, {"pickle", "allow_pickle=", ...}."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            found |= {(node.module or "").split(".")[0]} & MODULES
            found |= names & METHODS
            found |= {f"{node.module}.{name}" for name in names if (node.module, name) in LOADERS}
        elif isinstance(node, ast.Attribute):
            found |= {f".{node.attr}"} if node.attr in METHODS else set()
            if isinstance(node.value, ast.Name) and (node.value.id, node.attr) in LOADERS:
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Name):
            found |= {node.id} & FUNCTIONS
        elif isinstance(node, ast.keyword) and node.arg in OPTIONS:
            is_off = isinstance(node.value, ast.Constant) and node.value.value is False
            found |= set() if is_off else {f"{node.arg}="}
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_module_executes_what_is_in_a_file_or_unpacks_to_where_an_archive_says(path):
    allowed = {"pickle"} if path == UNPICKLER else set()
    assert dangers((ROOT / path).read_text(encoding="utf-8")) == allowed


@pytest.mark.parametrize(
    "source, found",
    [
        ("import pickle", "pickle"),
        ("def f():\n    from joblib import load", "joblib"),
        ("pickle.load(file)", "pickle.load"),
        ("torch.load(path)", "torch.load"),
        ("from torch import load", "torch.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle="),
        ("np.load(path, allow_pickle=wanted)", "allow_pickle="),
        ("archive.extractall(folder)", ".extractall"),
        ("from shutil import unpack_archive", "unpack_archive"),
        ("subprocess.run(line, shell=True)", "shell="),
        ("os.system(line)", ".system"),
        ("x = eval(text)", "eval"),
    ],
)
def test_what_executes_a_file_is_seen(source, found):
    assert dangers(source) == {found}


def test_what_only_reads_is_no_danger():
    source = "np.load(path, allow_pickle=False); archive.extractfile(name); model.eval()"
    assert dangers(source) == set()


# Python tells of every class or function that a pickle asks for.
WATCHED = """
import runpy, sys

def watch(event, args):
    if event == "pickle.find_class":
        raise SystemExit(f"a pickle asks for {args}")

sys.addaudithook(watch)
"""


def watched(code, *words):
    return subprocess.run(
        [sys.executable, "-c", WATCHED + code, *words], cwd=ROOT, capture_output=True, text=True
    )


def test_a_pickle_that_is_loaded_is_seen():
    done = watched("import pickle; pickle.loads(pickle.dumps(print))")
    assert done.returncode and "a pickle asks for ('builtins', 'print')" in done.stderr


@pytest.mark.slow
def test_no_pickle_is_loaded_of_a_run_or_of_a_study(tmp_path):
    pytest.importorskip("optuna")
    words = (
        *("--engine=optuna", "--config=configs/mnist.py:tiny", "--space=lr=1e-3", "--trials=1"),
        *(f"--config.data_dir={tmp_path}", f"--root={tmp_path}"),
    )
    command = [sys.executable, "-m", "scripts.sweep", *words]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    run = tmp_path / "mnist" / "search" / "trial=0"
    commands = {  # each is told what others have left
        "scripts.sweep": words,
        "scripts.evaluate": (f"--workdir={run}",),
        "scripts.report": (f"--runs={tmp_path}", f"--out={tmp_path / 'report'}"),
    }
    for name, words in commands.items():
        done = watched("runpy.run_module(sys.argv[1], {}, '__main__', True)", name, *words)
        assert done.returncode == 0, done.stderr

"""Packages: their contents, their sources, and which may import which."""

import ast
from functools import cache
import graphlib
from importlib.metadata import packages_distributions
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tomllib
import venv

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

from experiments import datasets
import ln
from tests.commands import python

ROOT = Path(__file__).resolve().parent.parent


def requirements(lines):
    """Returns the requirements on these lines of a requirements file, {name: [Requirement]}."""
    requirements = {}
    for line in lines:
        if re.match(r"\w", line):
            requirement = Requirement(line.split("#")[0].strip(" \\\n"))
            requirements.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return requirements


def requirements_of(name):
    return requirements((ROOT / name).read_text().splitlines())


USED, DEVELOPED = requirements_of("requirements.txt"), requirements_of("requirements-dev.txt")
ASKED = USED | DEVELOPED
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
LOCK, DEVELOPERS = "requirements.lock", "requirements-dev.lock"
LOCKED = requirements_of(LOCK)
ADDED = {name: requirements_of(name) for name in LOCKS if name != LOCK}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LIBRARY = requirements(
    [*PROJECT["dependencies"], *EXTRAS["experiments"], *EXTRAS["tensorboard"], *EXTRAS["tables"]]
)
OPTIONAL = {"torch", "wandb"}  # what is used if it is installed


def files(*folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT) for path in paths]


def name_of(path):
    """Return the dotted name of a module."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in files("configs", "ln", "experiments", "scripts")}


@cache
def imported(path):
    """Return the names that a file imports, with their modules, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path):
    """Return the top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("name", ["requirements.txt", *LOCKS])
def test_requirements_name_no_package_index_and_no_path(name):
    text = (ROOT / name).read_text()
    assert not re.findall(r"\S*://\S*|--\S*index\S*|--find-links.*|\s[~/]\S*|\b[A-Z]:\\\S*", text)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_a_sha_256(name):
    lines = (ROOT / name).read_text().splitlines()
    code = [line for line in lines if not line.lstrip().startswith("#")]
    packages = re.split(r"^(?=\w)", "\n".join(code), flags=re.MULTILINE)[1:]
    for package in packages:
        pin, *digests = package.split(" \\\n")
        assert "==" in pin and digests, pin
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", d.strip()) for d in digests), pin


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0"])
@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_lock_holds_one_version_within_the_range(name, python):
    environment = {"python_full_version": python, "python_version": python[:4]}
    (asked,) = ASKED[name]
    pins = [
        pin
        for pin in (LOCKED | ADDED[DEVELOPERS]).get(name, [])
        if pin.marker is None or pin.marker.evaluate(environment)
    ]
    assert len(pins) == 1, f"{name} is not in the lock: make it again"
    (version,) = (specifier.version for specifier in pins[0].specifier)
    assert version in asked.specifier


@pytest.mark.parametrize("name", ADDED)
def test_an_additional_lock_changes_no_version(name):
    """Both files are installed together: a second one adds packages and changes none."""

    def versions(lock):
        return {(p.name, str(p.specifier)) for name in lock.keys() & LOCKED for p in lock[name]}

    assert versions(ADDED[name]) <= versions(LOCKED)


@pytest.mark.parametrize("name", sorted(ADDED.keys() - {DEVELOPERS}))
def test_an_accelerator_has_its_plugin(name):
    plugin = ADDED[name]
    assert {str(pin.specifier) for pin in plugin["jax"]} == {"==0.10.2", "==0.11.2"}
    assert any(re.fullmatch("libtpu|jax-cuda1[23]-plugin", name) for name in plugin)


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"cuda12", "cuda13", "tpu", "wandb"}))
def test_an_extra_asks_for_the_same_range_as_the_repository(extra):
    for name, asked in requirements([*PROJECT["dependencies"], *EXTRAS[extra]]).items():
        assert [r.specifier for r in asked] == [r.specifier for r in ASKED.get(name, [])], name


def test_the_requirements_name_every_import():
    provided_by = packages_distributions()
    ours = {"ln", "experiments", "scripts", "configs"}
    for path in files("ln", "experiments", "scripts"):
        asked = LIBRARY if path.parts[0] == "ln" else USED
        for name in packages(path) - sys.stdlib_module_names - ours - OPTIONAL:
            provides = {canonicalize_name(d) for d in provided_by.get(name, [])}
            assert provides & set(asked), f"{path} imports {name}"


def test_library_and_experiments_import_nothing_heavy(data_dir):
    """Neither do they to load prepared data."""
    datasets.load("digits", data_dir)
    modules = [name for name in MODULES if name.startswith(("ln", "experiments"))]
    heavy = {"tensorflow", "tensorflow_datasets", "torch", "matplotlib", "sklearn"}
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "from experiments import datasets\n"
        f"datasets.load('digits', {str(data_dir)!r})\n"
        f"print(*sorted({heavy} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.stdout == "\n", done


def test_public_names_are_exported_lazily():
    """A command's --help does not wait for jax, and the layers do not import the trainer."""
    code = (
        "import sys, ln, ln.errors\n"
        "assert not {'jax', 'flax', 'numpy'} & set(sys.modules)\n"
        "from ln import *\n"
        "assert not {'optax', 'orbax', 'ml_collections'} & set(sys.modules)\n"
        "print(*sorted(set(ln.__all__) & set(globals())))"
    )
    assert python("-c", code).stdout.split() == sorted(ln.__all__)
    assert ln.LSTM.__module__ == "ln.rnn" and set(ln.__all__) <= set(dir(ln))
    with pytest.raises(AttributeError, match="'ln' has no attribute 'LSMT'"):
        ln.LSMT  # noqa: B018


def test_the_package_has_types_a_licence_and_the_newest_version():
    (newest, *_) = re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == ln.__version__
    assert f"version: {newest}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "ln/py.typed").exists()
    assert PROJECT["license"] == "Apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_an_empty_environment_runs_the_readmes_example(tmp_path):
    """With the layers' own dependencies; ln.training names the extra that it needs."""
    python = tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python"
    venv.create(tmp_path, with_pip=True)
    (example, _) = re.findall(  # and that of a norm
        r"```python\n(import flax.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL
    )

    def run(*words):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [python, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    installed = run("-m", "pip", "install", "--quiet", str(ROOT))
    assert installed.returncode == 0, installed.stderr
    ran = run(
        "-c", f"{example}\nprint(jax.tree.reduce(lambda n, leaf: n + leaf.size, gradient, 0))"
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 64_000
    missing = run("-c", "import ln.training").stderr.splitlines()[-1]
    assert "ln.training needs filelock, ml_collections: pip install" in missing
    assert "layer-normalization-jax[experiments]" in missing


@pytest.fixture
def clone(tmp_path):
    """Return a folder with the Makefile, and a PYTHON that only records its arguments."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    for name in LOCKS:
        (folder / name).touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" >> asked\n')
    python.chmod(0o755)

    def make(venv, *words):
        words = ["make", "install", f"PYTHON={python}", f"VENV={venv}", *words]
        run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        asked = folder / "asked"
        return run, asked.read_text() if asked.exists() else ""

    return folder, make


without_make = pytest.mark.skipif(
    os.name == "nt" or shutil.which("make") is None, reason="no make here"
)


@without_make
@pytest.mark.parametrize("venv", [".venv", ".venv/"])
def test_an_installation_empties_only_its_folder(clone, tmp_path, venv):
    folder, make = clone
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(tmp_path / "python")
    run, asked = make(venv, "DEVICE=cuda13")
    assert f"-m venv --clear {venv}" in asked
    assert "-r requirements.lock -r requirements-cuda13.lock" in asked
    assert "Installing jax for DEVICE=cuda13" in run.stdout


@without_make
def test_an_unknown_device_lists_those_there_are(clone):
    run, asked = clone[1](".venv", "DEVICE=gpu")
    assert "DEVICE=gpu is unknown: choose one of cpu cuda12 cuda13 tpu" in run.stderr
    assert run.returncode and asked == ""


@without_make
@pytest.mark.parametrize("venv", [".venv", ".venv/"])
def test_an_installation_never_empties_what_a_link_leads_to(clone, tmp_path, venv):
    folder, make = clone
    (tmp_path / ".venv").mkdir()
    (folder / ".venv").symlink_to(tmp_path / ".venv")
    run, asked = make(venv)
    (line,) = run.stderr.splitlines()
    assert run.returncode and f"VENV={venv} is a link, and {tmp_path / '.venv'}" in line
    assert asked == ""


def test_no_modules_import_each_other():
    """Imports inside functions count: they hide a cycle but do not remove it."""

    def module_of(name):
        return name if name in MODULES else name.rpartition(".")[0]

    graph = {
        name: set(map(module_of, imported(path))) & MODULES.keys() for name, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_imports_go_one_way():
    later = dict(ln={"experiments", "scripts", "configs", "tests"})
    later["experiments"] = later["ln"] - {"experiments"}
    for path in files("ln", "experiments"):
        assert not packages(path) & later[path.parts[0]], path
    for path in files("configs"):
        assert packages(path) <= {"ml_collections", "configs"}, path

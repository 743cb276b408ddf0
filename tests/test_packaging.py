"""What is installed, from where, and who may import whom."""

import ast
import graphlib
from importlib.metadata import packages_distributions
import itertools
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

import ln

ROOT = Path(__file__).resolve().parent.parent


def requirements(lines):
    """Returns the requirements on these lines of a requirements file, {name: [Requirement]}."""
    found = {}
    for line in lines:
        if re.match(r"\w", line):
            requirement = Requirement(line.split("#")[0].strip(" \\\n"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


ASKED = requirements((ROOT / "requirements.txt").read_text().splitlines())
LOCKED = requirements((ROOT / "requirements.lock").read_text().splitlines())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = itertools.chain(*PROJECT["optional-dependencies"].values())
LIBRARY = requirements([*PROJECT["dependencies"], *EXTRAS])
PEERS = {"torch"}  # what scripts/benchmarks/ compares with, where it is installed


def files(*folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT) for path in paths]


def name_of(path):
    """Return the dotted name of a module."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """Returns the top-level packages that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(path.parts[0] if node.level else node.module.split(".")[0])
    return names


@pytest.mark.parametrize("name", ["requirements.txt", "requirements.lock"])
def test_requirements_name_no_package_index_and_no_path_of_a_machine(name):
    text = (ROOT / name).read_text()
    assert not re.findall(r"\S*://\S*|--\S*index\S*|--find-links.*|\s[~/]\S*|\b[A-Z]:\\\S*", text)


def test_every_package_of_the_lock_has_a_sha_256():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    code = [line for line in lines if not line.lstrip().startswith("#")]
    packages = re.split(r"^(?=\w)", "\n".join(code), flags=re.MULTILINE)[1:]
    for package in packages:
        pin, *digests = package.split(" \\\n")
        assert "==" in pin and digests, pin
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", d.strip()) for d in digests), pin


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0"])
@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_lock_holds_one_version_within_the_range_that_is_asked_for(name, python):
    environment = {"python_full_version": python, "python_version": python[:4]}
    (asked,) = ASKED[name]
    pins = [
        pin
        for pin in LOCKED.get(name, [])
        if pin.marker is None or pin.marker.evaluate(environment)
    ]
    assert len(pins) == 1, f"{name} is not in requirements.lock: make it again"
    (version,) = (specifier.version for specifier in pins[0].specifier)
    assert version in asked.specifier


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_the_library_asks_for_the_same_range_as_the_repository(name):
    assert [r.specifier for r in LIBRARY[name]] == [r.specifier for r in ASKED.get(name, [])]


@pytest.mark.parametrize("path", files("ln", "experiments", "scripts"), ids=str)
def test_what_is_imported_is_asked_for_by_name(path):
    asked = LIBRARY if path.parts[0] == "ln" else ASKED
    provided_by = packages_distributions()
    ours = {"ln", "experiments", "scripts", "configs"}
    for name in imported(path) - sys.stdlib_module_names - ours - PEERS:
        assert {canonicalize_name(d) for d in provided_by.get(name, [])} & set(asked), name


def test_importing_the_library_and_the_experiments_imports_nothing_that_training_does_without():
    modules = [".".join(path.with_suffix("").parts) for path in files("ln", "experiments")]
    heavy = {"tensorflow", "tensorflow_datasets", "torch", "matplotlib", "sklearn"}
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name.removesuffix('.__init__'))\n"
        f"print(*sorted({heavy} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_public_names_are_exported_lazily():
    """A command's --help does not wait for jax, and the layers do not import the trainer."""
    code = (
        "import sys, ln, ln.errors\n"
        "assert not {'jax', 'flax', 'numpy'} & set(sys.modules)\n"
        "from ln import *\n"
        "assert not {'optax', 'orbax', 'ml_collections'} & set(sys.modules)\n"
        "print(*sorted(set(ln.__all__) & set(globals())))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == sorted(ln.__all__)
    assert ln.LSTM.__module__ == "ln.rnn" and set(ln.__all__) <= set(dir(ln))
    with pytest.raises(AttributeError, match="'ln' has no attribute 'LSMT'"):
        ln.LSMT  # noqa: B018


def test_the_version_is_the_newest_of_the_changelog():
    (newest, *_) = re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    assert newest == ln.__version__
    assert f"version: {newest}\n" in citation


def test_the_package_has_types_a_licence_and_a_version():
    assert (ROOT / "ln/py.typed").exists()
    assert PROJECT["license"] == "Apache-2.0" and "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile, and a PYTHON that does nothing but note what it was asked."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" >> asked\n')
    python.chmod(0o755)

    def make(venv):
        words = ["make", "test", f"PYTHON={python}", f"VENV={venv}"]
        run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        asked = folder / "asked"
        return run, asked.read_text() if asked.exists() else ""

    return folder, make


without_make = pytest.mark.skipif(
    os.name == "nt" or shutil.which("make") is None, reason="no make here"
)


@without_make
@pytest.mark.parametrize("venv", [".venv", ".venv/"])
def test_an_installation_empties_a_folder_of_its_own(clone, venv):
    folder, make = clone
    (folder / ".venv").mkdir()
    _, asked = make(venv)
    assert f"-m venv --clear {venv}" in asked


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
    paths = {name_of(path): path for path in files("configs", "ln", "experiments", "scripts")}
    graph = {}
    for name, path in paths.items():
        graph[name] = set()
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} has a relative import"
                parts = {f"{node.module}.{alias.name}" for alias in node.names} & set(paths)
                graph[name] |= parts or {node.module}
        graph[name] &= set(paths)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("path", files("configs"), ids=str)
def test_a_config_imports_ml_collections_and_configs(path):
    assert imported(path) <= {"ml_collections", "configs"}


@pytest.mark.parametrize("path", files("ln"), ids=str)
def test_the_library_imports_no_experiment_no_script_and_no_config(path):
    assert not imported(path) & {"experiments", "scripts", "configs", "tests"}


@pytest.mark.parametrize("path", files("experiments"), ids=str)
def test_an_experiment_imports_no_script_and_no_config(path):
    assert not imported(path) & {"scripts", "configs", "tests"}

"""The benchmark: what it times computes the same, and its table holds every peer."""

import importlib.util
import json
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
HAS_TORCH = importlib.util.find_spec("torch") is not None


def python(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def rows(text):
    """The rows of the table, name -> cells."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines[2:]}


@pytest.mark.slow
def test_the_table_holds_every_peer_with_the_losses_of_ours(tmp_path):
    out = tmp_path / "speed.json"
    done = python("-m", "scripts.benchmark", "mnist", "--quick", "--case=tiny-4", f"--out={out}")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    torch = {name for name in found if name.startswith("PyTorch eager")}
    others = {"ours", "our compiled call alone", "our step unvmapped", "Flax + Optax"}
    assert found.keys() == others | torch and "PyTorch eager" in torch
    timed = found.keys() if HAS_TORCH else others
    for name, cells in found.items():
        assert float(cells[0]) > 0 if name in timed else "pip install torch" in cells[0]
    results = json.loads(out.read_text())
    assert results["environment"]["versions"]["jax"]
    peers = results["cases"]["tiny-4"]["peers"]
    assert peers.keys() == timed
    for peer in peers.values():
        assert len(peer["seconds_per_step"]) == 2
        assert peer["losses"] == pytest.approx(peers["ours"]["losses"], rel=1e-4)
    assert min(results["start_up"].values()) > 0


# Ours against a peer with another norm, or another update.
COMPARE = """
from functools import partial
import sys

from scripts import benchmark as b

folder, kind, change = sys.argv[1:]
config = b.mnist_config(b.MNIST_CASES["tiny-4"], folder)
b.in_process(b.prepare_mnist, config)
peer = partial(getattr(b, kind), config.copy_and_resolve_references())
if change == "norm":
    peer = partial(peer, epsilon=0.1)
if change == "update":
    peer.args[0].lr = (2e-3,)
b.compare("tiny-4", {"ours": partial(b.Ours, config), "peer": peer}, b.Timing(1, 0.01))
"""
TORCH = pytest.param("Torch", marks=pytest.mark.skipif(not HAS_TORCH, reason="no torch here"))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["norm", "update"])
@pytest.mark.parametrize("kind", ["Flax", TORCH])
def test_a_peer_that_computes_something_else_is_not_timed(kind, change, tmp_path):
    done = python("-c", COMPARE, tmp_path, kind, change)
    assert done.returncode == 1
    assert "'peer' computes something else" in done.stderr
    assert "round" not in done.stdout


@pytest.mark.slow
def test_a_peer_that_fails_ends_the_benchmark(tmp_path):
    done = python("-c", COMPARE, tmp_path, "Peer", "nothing")
    assert done.returncode == 1
    assert "The process of 'peer' failed" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give one benchmark of mnist"),
        (["mnits"], "Did you mean 'mnist'?"),
        (["mnist", "--case=ful-4"], "Did you mean 'full-4'?"),
        (["mnist", "--rounds=0"], "rounds"),
        (["mnist", "--out=README.md/x.json"], "give another name"),
        (["mnist", "--out=pyproject.toml"], "is there already"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(words, message):
    done = python("-m", "scripts.benchmark", *words)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_help_has_an_example_and_needs_no_jax():
    done = python("-X", "importtime", "-m", "scripts.benchmark", "--help")
    assert "python -m scripts.benchmark mnist" in done.stdout
    assert " jax\n" not in done.stderr and " numpy\n" in done.stderr

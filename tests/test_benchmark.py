"""The benchmark: what it times computes the same, and its table holds every peer."""

import importlib.util
import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from scripts.benchmarks import (
    attentive_reader,
    common,
    draw,
    handwriting,
    order_embeddings,
    rnn,
    skip_thoughts,
)

ROOT = Path(__file__).parents[1]
HAS_TORCH = importlib.util.find_spec("torch") is not None


def python(*words, **variables):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | variables,  # other tests run beside it
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


@pytest.mark.slow
def test_the_table_of_lanes_says_what_one_costs_and_lane_0_is_the_same_run_in_all(tmp_path):
    out = tmp_path / "speed.json"
    done = python("-m", "scripts.benchmark", "lanes", "--quick", "--case=tiny", f"--out={out}")
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"]["tiny"]
    names = ["1 lane", "2 lanes", "4 lanes", "8 lanes"]
    assert list(result["peers"]) == names == list(rows(done.stdout))
    for n, name in zip((1, 2, 4, 8), names, strict=True):
        peer = result["peers"][name]
        assert peer["facts"]["lanes"] == n and len(peer["seconds_per_step"]) == 2
        assert peer["differs_by"] < 1e-4 and result["cost_of_a_lane"][str(n)] > 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ["tiny", "tiny-gru"])
def test_every_peer_of_rnn_has_the_loss_and_gradients_of_ours(case, tmp_path):
    out = tmp_path / "speed.json"
    done = python(
        *("-m", "scripts.benchmark", "rnn", "--quick", f"--case={case}", f"--out={out}"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # compiles in half the time
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"][case]
    jaxs, torchs = {"ours", "ours, schedule=plain"}, {"PyTorch eager", "PyTorch script"}
    no_norm = f"PyTorch's {result['case']['cell'].upper()} without norm or mask"
    if not HAS_TORCH:
        assert "pip install torch" in result["missing"]["PyTorch"]
        torchs = set()
    peers, training = result["peers"], result["training"]
    assert peers.keys() - {no_norm} == jaxs | {"Flax, nn.scan of a cell"} | torchs
    assert training.keys() == jaxs | {"Flax + Optax"} | torchs
    assert (no_norm in peers) == HAS_TORCH
    for name, peer in [*peers.items(), *training.items()]:
        assert len(peer["seconds_per_step"]) == 2 and name in rows(done.stdout)
        assert peer["differs_by"] is None if name == no_norm else peer["differs_by"] < 1e-4
        assert ("compiling" in peer["facts"]) == (name not in torchs | {no_norm})
    assert result["peaks"] and result["products"]["losses"] == []
    assert "alone, in the same shapes and loops, they take" in done.stdout
    assert rows(done.stdout)["the matrix products alone"][-1] == "not compared"


@pytest.mark.slow
def test_every_peer_of_draw_has_the_losses_and_gradients_of_ours(tmp_path):
    out = tmp_path / "speed.json"
    done = python(
        *("-m", "scripts.benchmark", "draw", "--quick", "--case=tiny", f"--out={out}"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"]["tiny"]
    jaxs = {"ours", "ours, schedule=plain", draw.REMATERIALIZED}
    torchs = {"PyTorch eager"} if HAS_TORCH else set()
    assert result["peers"].keys() == jaxs | torchs
    assert HAS_TORCH or "pip install torch" in result["missing"]["PyTorch"]
    for name, peer in result["peers"].items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(done.stdout)
        assert len(peer["losses"]) == 4 and peer["differs_by"] < 1e-4
        assert ("temporary_bytes" in peer["facts"]) == (name in jaxs)
    assert result["config"]["norm"] == "layer" and result["products"]["losses"] == []
    assert "alone, in the same shapes and loops, they take" in done.stdout
    assert "of temporary arrays, and its process never more than" in done.stdout


@pytest.mark.slow
def test_every_peer_of_handwriting_has_the_losses_and_gradients_of_its_reference(tmp_path):
    out = tmp_path / "speed.json"
    done = python(
        *("-m", "scripts.benchmark", "handwriting", "--quick", "--case=tiny", f"--out={out}"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"]["tiny"]
    jaxs = {"ours", handwriting.PLAIN, handwriting.NO_NORM}
    torchs = {"PyTorch eager", handwriting.TORCHS_LSTM} if HAS_TORCH else set()
    peers = result["peers"]
    assert peers.keys() == jaxs | torchs
    assert HAS_TORCH or "pip install torch" in result["missing"]["PyTorch"]
    for name, peer in peers.items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(done.stdout)
        assert ("temporary_bytes" in peer["facts"]) == (name in jaxs)
        reference = peers[handwriting.REFERENCES.get(name, "ours")]
        assert peer["differs_by"] < 1e-4
        assert len(peer["losses"]) == 4
        assert peer["losses"] == pytest.approx(reference["losses"], rel=1e-4)
    assert peers["ours"]["losses"] != pytest.approx(peers[handwriting.NO_NORM]["losses"], rel=1e-3)
    assert result["config"]["norm"] == "layer" and result["products"]["losses"] == []
    assert "Time / ours, median and range of the rounds: plain" in done.stdout


def test_flops_of_handwriting_are_those_of_three_products_of_each_matrix_at_each_time_step():
    case = handwriting.CASES["tiny"]
    config = handwriting.make_config(case)
    H, K, M, T, B = (
        config[name] for name in ("hidden", "components", "mixtures", "length", "batch_size")
    )
    x, upper = 3 + 57, 3 + 57 + H  # point and window; and h of the LSTM below
    once = 4 * H * (x + 2 * upper + 3 * H) + 3 * K * H + (1 + 6 * M) * 3 * H
    assert handwriting.flops(handwriting.make_data(case)) == 3 * (2 * T * B) * once


def test_the_products_of_handwriting_are_those_of_all_its_matrices():
    from scripts.benchmarks import handwriting_jax

    names = [*handwriting_jax.AT_ONCE, *(name for loop in handwriting_jax.LOOPS for name in loop)]
    matrices = handwriting.make_data(handwriting.CASES["tiny"]).matrices
    assert sorted(names) == sorted(matrices)


@pytest.mark.slow
def test_every_peer_of_order_embeddings_has_the_losses_and_gradients_of_ours(tmp_path):
    out = tmp_path / "speed.json"
    done = python(
        *("-m", "scripts.benchmark", "order_embeddings", "--quick", "--case=tiny", f"--out={out}"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"]["tiny"]
    torchs = {"PyTorch eager"} if HAS_TORCH else set()
    assert result["peers"].keys() == {"ours", order_embeddings.PLAIN} | torchs
    assert HAS_TORCH or "pip install torch" in result["missing"]["PyTorch"]
    for name, peer in result["peers"].items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(done.stdout)
        assert len(set(peer["losses"])) == 4 and peer["differs_by"] < 1e-4
        assert ("temporary_bytes" in peer["facts"]) == (name not in torchs)
    assert result["config"]["norm"] == "layer" and result["products"]["losses"] == []
    assert "alone, in the same shapes and loops, they take" in done.stdout


@pytest.mark.slow
def test_every_peer_that_evaluates_a_fold_has_the_points_and_scores_of_ours():
    from scripts.benchmarks import order_embeddings_jax

    case = order_embeddings.CASES["tiny-fold"]
    ours, plain = (order_embeddings_jax.Fold(case, plain=plain) for plain in (False, True))
    reference = common.Reference("ours", ours.losses(1), ours.gradients())
    assert len(reference.losses) == 10  # R@1, 5, 10, median and mean rank, both ways
    peers = [plain]
    if HAS_TORCH:
        from scripts.benchmarks import order_embeddings_torch

        peers.append(order_embeddings_torch.Fold(case, order_embeddings.make_data(case)))
    for peer in peers:
        assert reference.check("peer", peer.losses(1), peer.gradients()) < 1e-4
        assert peer.run(2) == 2


def test_flops_of_order_embeddings_are_those_of_all_words_and_of_the_images():
    weights = {"encoder.W_x": np.zeros((3, 8)), "W_image.W": np.zeros((5, 4))}
    weights |= {"encoder.b": np.zeros(12), "table.W": np.zeros((9, 3))}  # no products
    data = order_embeddings.Data(weights, np.zeros((4, 2, 7)), np.zeros((4, 2, 5)))
    of_images = 2 * (2 * 2) * (5 * 4)  # forward, and the gradient of the matrix
    assert order_embeddings.flops(data) == 3 * (2 * 7 * 2) * (3 * 8) + of_images


@pytest.mark.slow
def test_every_peer_of_the_attentive_reader_has_the_losses_and_gradients_of_ours(tmp_path):
    out = tmp_path / "speed.json"
    done = python(
        *("-m", "scripts.benchmark", "attentive_reader", "--quick", "--case=tiny", f"--out={out}"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"]["tiny"]
    torchs = {"PyTorch eager"} if HAS_TORCH else set()
    assert result["peers"].keys() == {"ours", attentive_reader.PLAIN} | torchs
    assert HAS_TORCH or "pip install torch" in result["missing"]["PyTorch"]
    for name, peer in result["peers"].items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(done.stdout)
        assert len(set(peer["losses"])) == 4 and peer["differs_by"] < 1e-4
        assert ("temporary_bytes" in peer["facts"]) == (name not in torchs)
    assert result["config"]["norm"] == "layer" and result["products"]["losses"] == []
    assert "alone, in the same shapes and loops, they take" in done.stdout


def test_flops_of_the_attentive_reader_are_those_of_every_text_and_of_every_word_that_may_answer():
    T, S, B, D, H, V = 7, 3, 2, 5, 4, 9
    weights = {"table.W": np.zeros((V, D)), "norm_y.b": np.zeros(V)}  # no products
    weights |= {f"of_{text}_0.W_x": np.zeros((D, 4 * H)) for text in ("passage", "question")}
    weights |= {"W_d.W": np.zeros((H, H)), "M.W": np.zeros((H, H)), "W_y.W": np.zeros((H, V))}
    noise = np.zeros((4, T, B, D)), np.zeros((4, S, B, D)), np.zeros((4, B, H))
    once = T * (D * 4 * H + H * H) + S * D * 4 * H + 2 * H * H + H * V
    assert attentive_reader.flops(attentive_reader.Data(weights, {}, noise)) == 3 * 2 * B * once


@pytest.mark.slow
def test_every_peer_of_skip_thoughts_has_the_losses_and_gradients_of_ours(tmp_path):
    out = tmp_path / "speed.json"
    done = python(
        *("-m", "scripts.benchmark", "skip_thoughts", "--quick", "--case=tiny", f"--out={out}"),
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())["cases"]["tiny"]
    torchs = {"PyTorch eager"} if HAS_TORCH else set()
    compared = {"ours", skip_thoughts.PLAIN} | torchs
    assert result["peers"].keys() == compared | {skip_thoughts.NO_NORM}
    for name, peer in result["peers"].items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(done.stdout)
        if name in compared:
            assert len(set(peer["losses"])) == skip_thoughts.STEPS and peer["differs_by"] < 1e-4
        else:
            assert peer["losses"] == [] and peer["differs_by"] is None
    assert "With layer norm a step takes" in done.stdout


def test_flops_of_skip_thoughts_are_those_of_every_text_and_of_the_words_that_are_told():
    B, T, S, D, H, V = 2, 7, 5, 3, 4, 9
    weights = {"table.W": np.zeros((V, D)), "b_y.W": np.zeros(V), "W_y.W": np.zeros((H, V))}
    for gru in ("encoder", "previous", "next"):
        weights |= {f"{gru}.W_x": np.zeros((D, 2 * H)), f"{gru}.W": np.zeros((D, H))}
        weights |= {f"{gru}.W_h": np.zeros((H, 2 * H)), f"{gru}.U": np.zeros((H, H))}
    sizes = dict(sentence=T, previous=S, next=S)
    batches = {name: np.zeros((2, B, size), int) for name, size in sizes.items()}
    batches |= dict(previous_length=np.array([[1, 5], [2, 2]]), next_length=np.full((2, B), 3))
    once = B * (T + S + S) * (D + H) * 3 * H + (1 + 5 + 3 + 3) * H * V
    assert skip_thoughts.flops(skip_thoughts.Data(weights, batches)) == 3 * 2 * once


def test_flops_of_draw_are_those_of_three_products_of_each_matrix_at_each_glimpse():
    weights = {"encoder.W_x": np.zeros((2, 12)), "encoder.b": np.zeros(12), "W.W": np.zeros((3, 5))}
    x, T, B = np.zeros((4, 6, 28, 28)), 7, 6
    data = draw.Data(weights, x, epsilon=np.zeros((4, T, B, 9)))
    assert draw.matrices(data) == [(2, 12), (3, 5)]
    assert draw.flops(data) == 3 * (2 * T * B) * (2 * 12 + 3 * 5)


def test_flops_are_those_of_three_products_of_each_matrix():
    case = rnn.Case("gru", T=2, B=3, H=4, D=5)
    of_W_x, of_W_h = 2 * (2 * 3) * 5 * 12, 2 * (2 * 3) * 4 * 12
    assert rnn.flops(case, d_x=True) == 3 * of_W_x + 3 * of_W_h
    assert rnn.flops(case, d_x=False) == 2 * of_W_x + 3 * of_W_h
    upper = 3 * (2 * (2 * 3) * 4 * 12)
    assert rnn.flops(case._replace(layers=2), d_x=True) == 3 * of_W_x + 3 * of_W_h + 2 * upper


REFERENCE = common.Reference("ours", [2.0], {"W": np.array([1.0, -4.0])})


def test_a_peer_may_differ_by_rounding():
    assert REFERENCE.check("peer", [2.0], {"W": np.array([1.0, -4.0001])}) == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    ("losses", "gradient", "what"),
    [
        ([2.1], [1.0, -4.0], "the loss"),
        ([2.0], [1.01, -4.0], "W"),
        ([2.0], [1.0, np.nan], "W"),
        ([np.nan], [1.0, -4.0], "the loss"),
    ],
)
def test_another_loss_or_another_gradient_is_another_computation(losses, gradient, what):
    with pytest.raises(RuntimeError, match=f"'peer' computes something else: {what} differs"):
        REFERENCE.check("peer", losses, {"W": np.array(gradient)})


@pytest.mark.parametrize("gradients", [{}, {"V": np.ones(2)}, {"W": np.ones(1)}])
def test_gradients_of_other_names_or_shapes_are_not_compared(gradients):
    with pytest.raises(ValueError, match="gradients are"):
        REFERENCE.check("peer", [2.0], gradients)


# Ours against a peer with another norm, or another update.
COMPARE = """
from functools import partial
import sys

from scripts.benchmarks import common, mnist

folder, kind, change = sys.argv[1:]
config = mnist.mnist_config(mnist.CASES["tiny-4"], folder)
common.in_process(mnist.prepare_mnist, config)
peer = partial(getattr(mnist, kind), config.copy_and_resolve_references())
if change == "norm":
    peer = partial(peer, epsilon=0.1)
if change == "update":
    peer.args[0].lr = (2e-3,)
peers = {"ours": partial(mnist.Ours, config), "peer": peer}
common.compare("tiny-4", peers, common.Timing(1, 0.01))
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
        ([], "Give one benchmark of mnist, rnn"),
        (["mnits"], "Did you mean 'mnist'?"),
        (["mnist", "--case=ful-4"], "Did you mean 'full-4'?"),
        (["rnn", "--case=drwa"], "Did you mean 'draw'?"),
        (["draw", "--case=ful"], "Did you mean 'full'?"),
        (["handwriting", "--case=smal"], "Did you mean 'small'?"),
        (["order_embeddings", "--case=flod"], "Did you mean 'fold'?"),
        (["attentive_reader", "--case=ful"], "Did you mean 'full'?"),
        (["skip_thoughts", "--case=ful"], "Did you mean 'full'?"),
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

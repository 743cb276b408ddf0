"""The benchmark: peers compute the same as ours, FLOP are exact, and mistakes end in one line."""

from functools import partial
import importlib.util
import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from ln import fused
from scripts.benchmarks import jax_peers, random_data, rnn, timing
from scripts.benchmarks.flops import count_flops
from scripts.benchmarks.step import NO_NORM, PLAIN, Setting, make_config
from scripts.benchmarks.timing import Numbers, Options, Peer
from tests.products import exhaustive

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


# --- Whole benchmarks ---

RNN = ("ours", "ours, schedule=plain", "Flax, nn.scan of a cell", "PyTorch eager")
USUAL_LOOPS = ("Flax + Optax", "PyTorch eager (fused Adam)")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, compared, timed_only",
    [
        ("mnist --case=tiny-4", ("ours", *USUAL_LOOPS), (NO_NORM,)),
        ("step --experiment=mnist --scale=tiny --lanes=2", ("ours", PLAIN), (NO_NORM,)),
        ("rnn --case=tiny", RNN, ("PyTorch's LSTM without norm or mask",)),
        exhaustive("rnn --case=tiny-gru", RNN[:2], ("PyTorch's GRU without norm or mask",)),
    ],
)
def test_peers_agree_before_they_are_timed(words, compared, timed_only, tmp_path):
    out, flags = tmp_path / "speed.json", ("--quick", f"--data_dir={tmp_path}")
    words = ("-m", "scripts.benchmark", *words.split(), *flags, f"--out={out}")
    run = python(*words, JAX_DISABLE_MOST_OPTIMIZATIONS="1")  # compiles in half the time
    assert run.returncode == 0, run.stderr
    results = json.loads(out.read_text())
    (case,) = results["cases"].values()
    assert results["environment"]["versions"]["jax"]
    expected = {name for name in (*compared, *timed_only) if HAS_TORCH or "PyTorch" not in name}
    assert case["peers"].keys() == expected and all(name in run.stdout for name in expected)
    assert HAS_TORCH or all("torch" in reason for reason in case["missing"].values())
    for name, peer in case["peers"].items():
        assert len(peer["seconds_per_step"]) == 2 and min(peer["seconds_per_step"]) > 0
        assert peer["differs_by"] is None if name in timed_only else peer["differs_by"] < 1e-4


# --- Training steps of any experiment ---

QUICK = ("convnet", "draw", "mnist", "order_embeddings", "sequential_mnist")


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", [name if name in QUICK else exhaustive(name) for name in experiments.names()]
)
def test_plain_autodiff_has_the_gradients_of_ours(experiment, tmp_path):
    config = make_config(Setting(experiment, "tiny", data_dir=str(tmp_path)), str(tmp_path))
    peers = {
        name: partial(jax_peers.trainer_peer, config, plain=name == PLAIN)
        for name in ("ours", PLAIN)
    }
    results = timing.compare(experiment, peers, Options(1, 0.01))
    assert not results.missing and results.peers[PLAIN].differs_by < 1e-4


@pytest.mark.parametrize(
    "experiment, sizes",
    [
        ("attentive_reader", dict(question=30)),
        ("order_embeddings", dict(images=4096)),
        ("skip_thoughts", {}),
        ("handwriting", dict(text=51)),
        ("draw", dict(x=784)),
        ("mnist", dict(x=784)),
    ],
)
def test_random_data_have_the_sizes_of_the_paper(experiment, sizes, tmp_path):
    config = make_config(Setting(experiment), str(tmp_path))
    task, vocabulary = experiments.load(config), random_data.KINDS[config.dataset][2]
    assert task.config.data_dir == str(tmp_path)
    assert getattr(task, "vocabulary", None) == vocabulary.get("vocab_size")
    shapes = {key: np.shape(leaf) for key, leaf in task.example().items()}
    assert all(shapes[key] == (config.batch_size, size) for key, size in sizes.items())


# --- FLOP ---


def scan(x, W):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ W), None), x, None, length=7)[0]


def larger_branch(x, W):
    return jax.lax.cond(x.sum() > 0, lambda: x @ W, lambda: x)


def unused(x, W):
    x @ W
    return jax.jit(lambda: (x @ W, x.sum()))()[1]


convolution = partial(jax.lax.conv, window_strides=(1, 1), padding="VALID")


@pytest.mark.parametrize(
    "function, shapes, multiplications",
    [
        (jnp.matmul, ((6, 3, 4), (6, 4, 5)), 6 * 3 * 4 * 5),
        (convolution, ((2, 4, 5, 5), (5, 4, 3, 3)), (2 * 5 * 3 * 3) * (4 * 3 * 3)),
        (scan, ((3, 4), (4, 4)), 7 * 3 * 4 * 4),
        (larger_branch, ((3, 4), (4, 4)), 3 * 4 * 4),
        (unused, ((3, 4), (4, 4)), 0),
    ],
)
def test_every_used_multiplication_counts(function, shapes, multiplications):
    assert count_flops(jax.make_jaxpr(function)(*map(jnp.ones, shapes))) == 2 * multiplications


@pytest.mark.parametrize("schedule", ["plain", fused.ACCELERATOR], ids=str)
def test_recurrent_layers_count_three_products_of_each_matrix(schedule):
    """Of an LSTM a_x, d W_x and d x; a_h, d W_h and d h."""
    case = rnn.CASES["tiny"]
    function, arguments = rnn.gradients(case, rnn.Layers(case, schedule))
    flops = count_flops(jax.make_jaxpr(function)(*arguments))
    assert flops == 2 * case.T * case.B * 3 * (case.D + 3 * case.H) * 4 * case.H


# --- Comparing ---


def peer(loss=2.0, W=(1.0, -4.0), b=0.0, rounded=None):
    """Return a peer that computes these numbers, and no others."""
    gradients = {"W": np.array(W), "b": np.array([b])}
    return Peer(
        call=lambda: 0,
        wait=lambda result: None,
        numbers=lambda: Numbers([loss], gradients),
        rounded=rounded and (lambda: Numbers([loss], gradients | {"W": np.array(rounded)})),
    )


def check(other, reference=None):
    """Return by how much the other peer differs, or the reason why it is not timed."""
    peers = {"ours": lambda: reference or peer(), "other": lambda: other}
    results = timing.compare("a case", peers, Options(1, 1e-6))
    return results.missing["other"] if results.missing else results.peers["other"].differs_by


def test_a_peer_may_differ_by_rounding():
    assert check(peer(W=(1.0, -4.0001), b=1e-9)) == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    "numbers, what",
    [
        (dict(loss=2.1), "the loss"),
        (dict(W=(1.0, np.nan)), "W"),
        (dict(loss=np.nan), "the loss"),
    ],
)
def test_a_peer_with_another_loss_or_gradient_is_not_timed(numbers, what):
    assert f"it computes something else: {what} differs" in check(peer(**numbers))


def test_a_chaotic_model_may_differ_as_it_does_from_itself():
    chaotic = peer(rounded=(1.0, -4.004))
    assert check(peer(W=(1.01, -4.0)), chaotic) == pytest.approx(2.5e-3)
    assert "W differs" in check(peer(W=(1.1, -4.0)), chaotic)


def test_a_single_peer_is_timed_without_comparing():
    peers = {"ours": lambda: peer(loss=np.nan), "other": peer}
    results = timing.compare("a case", peers, Options(1, 1e-6, only=("ours",)))
    assert results.peers.keys() == {"ours"} and results.peers["ours"].differs_by is None


def test_a_peer_that_fails_leaves_the_others():
    peers = {"ours": peer, "broken": lambda: 1 / 0, "last": peer}
    results = timing.compare("a case", peers, Options(1, 1e-6))
    assert results.peers.keys() == {"ours", "last"}
    assert "ZeroDivisionError" in timing.table(results)


# --- Mistakes ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, message",
    [
        ([], "Give one benchmark of step, rnn"),
        (["mnits"], "Did you mean 'mnist'?"),
        (["step"], "step takes --experiment=NAME"),
        (["step", "--experiment=drwa"], "Did you mean 'draw'?"),
        (["step", "--experiment=draw", "--norm=layr"], "Did you mean 'layer'?"),
        (["step", "--experiment=mnist", "--scale=tiny", "--peer=our"], "Did you mean 'ours'?"),
        (["rnn", "--experiment=draw"], "--experiment is for step"),
        (["rnn", "--case=drwa"], "Did you mean 'draw'?"),
        (["mnist", "--out=README.md/x.json"], "give another name"),
    ],
)
def test_a_mistake_ends_in_one_line(words, message):
    run = python("-m", "scripts.benchmark", *words)
    assert run.returncode == 2
    assert message in run.stderr and run.stderr.count("\n") == 1

"""The benchmark: peers compute the same as ours, FLOP are exact, and mistakes end in one line."""

from functools import partial
import importlib
import importlib.util
import json
import os
from pathlib import Path
import pkgutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import configs
import experiments
from ln import fused
from ln.errors import InputError
from scripts.benchmarks import common, common_jax, mnist, random_data, rnn, rnn_jax
from scripts.benchmarks.flops import Flops, count_flops
from scripts.benchmarks.step import NO_NORM, PLAIN, Setting, make_config

ROOT = Path(__file__).parents[1]
HAS_TORCH = importlib.util.find_spec("torch") is not None
EXPERIMENTS = [module.name for module in pkgutil.iter_modules(configs.__path__)]


def python(*words, **variables):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | variables,  # other tests run beside it
    )


def measure(tmp_path, *words):
    """Run a quick benchmark; return the results of its only case, and its output."""
    out = tmp_path / "speed.json"
    words = "-m", "scripts.benchmark", *words, "--quick", f"--out={out}"
    run = python(*words, JAX_DISABLE_MOST_OPTIMIZATIONS="1")  # compiles in half the time
    assert run.returncode == 0, run.stderr
    results = json.loads(out.read_text())
    assert results["environment"]["versions"]["jax"]
    (case,) = results["cases"].values()
    return case, run.stdout


def rows(text):
    """Return the rows of the tables, name -> cells."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines[2:]}


# --- Whole benchmarks ---


@pytest.mark.slow
def test_step_times_ours_plain_no_norm_and_other_libraries(tmp_path):
    result, printed = measure(tmp_path, "step", "--experiment=mnist", "--scale=tiny")
    torch = set(mnist.TORCH_PEERS) if HAS_TORCH else set()
    peers = result["peers"]
    assert peers.keys() == {"ours", PLAIN, NO_NORM, mnist.FLAX} | torch
    assert HAS_TORCH or "pip install torch" in result["missing"]["PyTorch eager"]
    for name, peer in peers.items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(printed)
        assert peer["differs_by"] is None if name == NO_NORM else peer["differs_by"] < 1e-4
    forward_and_back = 2 * (3 * (8 * 8 + 8 * 10) + 2 * 64 * 8)  # no gradient of the pixels
    assert result["matmul_flops"] == 4 * forward_and_back
    assert result["data"] == "random data in the sizes of digits"
    assert result["batch"] == dict(x=[4, 64], y=[4])
    assert "x [4, 64], y [4]" in printed and "of its time." in printed


@pytest.mark.slow
@pytest.mark.parametrize("case", ["tiny", "tiny-gru"])
def test_peers_of_rnn_have_the_gradients_of_ours(case, tmp_path):
    result, printed = measure(tmp_path, "rnn", f"--case={case}")
    ours, torch = {"ours", "ours, schedule=plain"}, {"PyTorch eager", "PyTorch script"}
    no_norm = f"PyTorch's {result['case']['cell'].upper()} without norm or mask"
    if not HAS_TORCH:
        assert "pip install torch" in result["missing"]["PyTorch"]
        torch = set()
    peers, training = result["peers"], result["training"]
    assert peers.keys() - {no_norm} == ours | {"Flax, nn.scan of a cell"} | torch
    assert training.keys() == ours | {"Flax + Optax"} | torch
    assert (no_norm in peers) == HAS_TORCH and result["peaks"]
    for name, peer in [*peers.items(), *training.items()]:
        assert len(peer["seconds_per_step"]) == 2 and name in rows(printed)
        assert peer["differs_by"] is None if name == no_norm else peer["differs_by"] < 1e-4


@pytest.mark.slow
def test_peers_of_mnist_have_the_losses_of_the_trainer(tmp_path):
    result, printed = measure(tmp_path, "mnist", "--case=tiny-4")
    torch = set(mnist.TORCH_PEERS) if HAS_TORCH else set()
    assert result["peers"].keys() == {"ours", mnist.CALL, mnist.FLAX} | torch
    assert result["widths"] == [64, 8, 8, 10]
    for name, peer in result["peers"].items():
        assert len(peer["seconds_per_step"]) == 2 and name in rows(printed)
        assert len(peer["losses"]) == (1 if name == mnist.CALL else 4)
        assert peer["differs_by"] < 1e-4


@pytest.mark.slow
def test_lanes_have_the_losses_of_a_single_one(tmp_path):
    result, printed = measure(tmp_path, "lanes", "--case=tiny")
    names = ["1 lane", "2 lanes", "4 lanes", "8 lanes"]
    assert list(result["peers"]) == names == list(rows(printed))
    for n, name in zip((1, 2, 4, 8), names, strict=True):
        peer = result["peers"][name]
        assert peer["facts"]["lanes"] == n and len(peer["seconds_per_step"]) == 2
        assert peer["differs_by"] < 1e-4 and result["cost_of_a_lane"][str(n)] > 0


# --- Training steps of any experiment ---


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_plain_autodiff_has_the_gradients_of_ours(experiment, tmp_path):
    config = make_config(Setting(experiment, "tiny", data_dir=str(tmp_path)), str(tmp_path))
    ours, plain = common_jax.Step(config), common_jax.Step(config, plain=True)
    assert 0 < ours.facts()["matmul_flops"]
    reference = common.Reference("ours", ours.losses(4), ours.gradients(), ours.rounding())
    assert reference.check(PLAIN, plain.losses(4), plain.gradients()) < 1e-4
    assert plain.run(3) >= 3


@pytest.mark.parametrize("name", ["cnn", "coco", "books", "iam", "binarized_mnist", "cifar10"])
def test_random_data_have_the_sizes_of_the_paper(name, tmp_path):
    for experiment in EXPERIMENTS:
        module = importlib.import_module(f"configs.{experiment}")
        if module.get_config().dataset == name or (name, experiment) == ("cifar10", "convnet"):
            break
    config = module.get_config()
    config.dataset, config.data_dir = name, str(tmp_path)
    if "tasks" in config:
        config.tasks = ""
    random_data.prepare(name, tmp_path)
    task = experiments.load(config)
    sizes = random_data.KINDS[name][1]
    shapes = {key: np.shape(leaf) for key, leaf in task.example().items()}
    if "vocab_size" in sizes:
        assert task.vocabulary == sizes["vocab_size"]
    lengths = {"x": "pixels", "images": "D", "text": "U", "question": "S"}
    for key in shapes.keys() & lengths.keys():
        assert shapes[key] == (config.batch_size, sizes[lengths[key]])


# --- FLOP ---


def flops_of(function, *shapes):
    return count_flops(jax.make_jaxpr(function)(*map(jnp.ones, shapes)))


def test_a_product_counts_every_multiplication():
    assert flops_of(jnp.matmul, (3, 4), (4, 5)) == Flops(2 * 3 * 4 * 5)
    assert flops_of(jnp.matmul, (6, 3, 4), (6, 4, 5)) == Flops(2 * 6 * 3 * 4 * 5)


def test_a_convolution_counts_every_multiplication():
    convolve = partial(jax.lax.conv, window_strides=(1, 1), padding="VALID")
    outputs = 2 * 5 * 3 * 3  # images, channels, positions
    assert flops_of(convolve, (2, 4, 5, 5), (5, 4, 3, 3)) == Flops(2 * outputs * 4 * 3 * 3)


def test_a_scan_counts_every_turn():
    def loop(x, W):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ W), None), x, None, length=7)[0]

    assert flops_of(loop, (3, 4), (4, 4)) == Flops(7 * 2 * 3 * 4 * 4)


def test_a_while_loop_counts_one_turn_and_is_noted():
    def loop(x, W):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x @ W, x)

    assert flops_of(loop, (3, 4), (4, 4)) == Flops(2 * 3 * 4 * 4, while_loops=1)


def test_a_conditional_counts_its_larger_branch():
    def choose(x, W):
        return jax.lax.cond(x.sum() > 0, lambda: x @ W, lambda: x)

    assert flops_of(choose, (3, 4), (4, 4)) == Flops(2 * 3 * 4 * 4)


def test_unused_products_do_not_count():
    def function(x, W):
        x @ W
        return jax.jit(lambda: (x @ W, x.sum()))()[1]

    assert flops_of(function, (3, 4), (4, 4)) == Flops(0)


@pytest.mark.parametrize("schedule", [None, "plain", fused.ACCELERATOR], ids=str)
@pytest.mark.parametrize("case", [*rnn.CASES], ids=str)
def test_recurrent_layers_count_three_products_of_each_matrix(case, schedule):
    """a_x, d W_x and, if wanted, d x; a_h, d W_h and d h."""
    case = rnn.CASES[case]
    function, arguments = rnn_jax.gradients(case, *rnn_jax.ours(case, schedule))
    multiplications = 0
    for layer in range(case.layers):
        D, products = (case.H, 3) if layer else (case.D, 2 + case.d_x)
        multiplications += (products * D + 3 * case.H) * case.gates * case.H
    assert count_flops(jax.make_jaxpr(function)(*arguments)) == Flops(
        2 * case.T * case.B * multiplications
    )


# --- Comparing ---

REFERENCE = common.Reference("ours", [2.0], {"W": np.array([1.0, -4.0]), "b": np.zeros(1)})


def check(losses, W, b=0.0, reference=REFERENCE):
    return reference.check("peer", losses, {"W": np.array(W), "b": np.array([b])})


def test_a_peer_may_differ_by_rounding():
    assert check([2.0], [1.0, -4.0001], 1e-9) == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    ("losses", "gradient", "what"),
    [
        ([2.1], [1.0, -4.0], "the loss"),
        ([2.0], [1.01, -4.0], "W"),
        ([2.0], [1.0, np.nan], "W"),
        ([np.nan], [1.0, -4.0], "the loss"),
    ],
)
def test_another_loss_or_gradient_raises(losses, gradient, what):
    with pytest.raises(RuntimeError, match=f"'peer' computes something else: {what} differs"):
        check(losses, gradient)


def test_a_chaotic_model_may_differ_as_it_does_from_itself():
    chaotic = REFERENCE._replace(rounding={"W": 1e-3})
    assert check([2.0], [1.01, -4.0], reference=chaotic) == pytest.approx(2.5e-3)
    with pytest.raises(RuntimeError, match="W differs"):
        check([2.0], [1.1, -4.0], reference=chaotic)


@pytest.mark.parametrize("gradients", [{"V": np.ones(2)}, {"W": np.ones(1)}])
def test_gradients_of_other_names_or_shapes_raise(gradients):
    with pytest.raises(ValueError, match="gradients are"):
        REFERENCE.check("peer", [2.0], gradients)


class Broken(common.Peer):
    def run(self, steps):
        raise ZeroDivisionError


class Different(common.Peer):
    def __init__(self, loss):
        self.loss = loss

    def losses(self, count):
        return [self.loss]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peers", "message"),
    [
        ([partial(Different, 1.0), partial(Different, 2.0)], "'1' computes something else"),
        ([Broken], "The process of '0' failed in steps_within"),
    ],
)
def test_no_peer_is_timed_after_a_failure(peers, message, capfd):
    named = {str(n): peer for n, peer in enumerate(peers)}
    with pytest.raises(RuntimeError, match=message):
        common.compare("a case", named, common.Timing(1, 0.01))
    assert "round" not in capfd.readouterr().out


# --- Mistakes ---


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting("drwa"), "Did you mean 'draw'?"),
        (Setting("draw", "smal"), "Did you mean 'small'?"),
        (Setting("draw", norm="layr"), "Did you mean 'layer'?"),
    ],
)
def test_a_step_of_unknown_name_raises(setting, message, tmp_path):
    with pytest.raises(InputError) as error:
        make_config(setting, str(tmp_path))
    assert message in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give one benchmark of step, rnn"),
        (["mnits"], "Did you mean 'mnist'?"),
        (["step"], "step takes --experiment=NAME"),
        (["rnn", "--experiment=draw"], "--experiment is for step"),
        (["rnn", "--case=drwa"], "Did you mean 'draw'?"),
        (["mnist", "--rounds=0"], "rounds"),
        (["mnist", "--out=README.md/x.json"], "give another name"),
    ],
)
def test_a_mistake_ends_in_one_line(words, message):
    run = python("-m", "scripts.benchmark", *words)
    assert run.returncode == 2
    assert message in run.stderr and run.stderr.count("\n") == 1


def test_help_has_examples_and_needs_no_jax():
    run = python("-X", "importtime", "-m", "scripts.benchmark", "--help")
    assert "python -m scripts.benchmark step --experiment=draw" in run.stdout
    assert " jax\n" not in run.stderr and " numpy\n" in run.stderr

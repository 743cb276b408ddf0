"""The benchmark: peers compute the same as ours, FLOP are exact, and mistakes end in one line."""

from functools import partial
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from ln import fused
from ln.training import runs, train
from scripts.benchmarks import commands, jax_peers, random_data, rnn, timing
from scripts.benchmarks.flops import count_flops
from scripts.benchmarks.parts import FIRST_CALL, PARTS, Interval, shares
from scripts.benchmarks.step import NO_NORM, PLAIN, TRAINER, make_config
from scripts.benchmarks.timing import Numbers, Peer
from scripts.benchmarks.trainer import Trainer
from tests.commands import python
from tests.products import exhaustive

HAS_TORCH = importlib.util.find_spec("torch") is not None


# --- Whole benchmarks ---

PYTORCH = "PyTorch eager", "PyTorch script"
RNN = ("ours", "ours, schedule=plain", "Flax, nn.scan of a cell", *PYTORCH)
USUAL_LOOPS = ("Flax + Optax", "PyTorch eager (fused Adam)")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, compared, timed_only",
    [
        ("step --case=mnist-4", ("ours", *USUAL_LOOPS), (NO_NORM, TRAINER)),
        exhaustive("step --case=draw", ("ours", PLAIN), (NO_NORM, TRAINER)),
        ("rnn --case=tiny", RNN, ("PyTorch's LSTM without norm or mask",)),
        exhaustive("rnn --case=tiny-gru", RNN, ("PyTorch's GRU without norm or mask",)),
        exhaustive("lanes --case=mnist-small", (), [f"{n} lane(s)" for n in (1, 2, 4, 8)]),
    ],
)
def test_peers_agree_before_they_are_timed(words, compared, timed_only, tmp_path):
    name, _, case = words.partition(" --case=")
    stored, names = tmp_path / f"{name}.json", {*compared, *timed_only}
    stored.write_text(json.dumps({case: {peer: {} for peer in [*names, "former"]}, "former": {}}))
    flags = "--quick", "--scale=tiny", f"--data_dir={tmp_path}", f"--out={tmp_path}"
    words = ("-m", "scripts.benchmark", *words.split(), *flags)
    # Compiles in half the time, and waits without spinning beside other tests.
    run = python(*words, JAX_DISABLE_MOST_OPTIMIZATIONS="1", OMP_WAIT_POLICY="PASSIVE")
    assert run.returncode == 0, run.stderr
    kept = json.loads(stored.read_text())
    assert kept.keys() == {case} and kept[case].keys() == names
    rows = {name: row for name, row in kept[case].items() if row}
    expected = {name for name in names if HAS_TORCH or "PyTorch" not in name}
    assert rows.keys() == expected and all(name in run.stdout for name in expected)
    for name, row in rows.items():
        assert len(row["ratios"]) == 2 and min(row["seconds_per_step"]) > 0
        assert row["differs_by"] is None if name in timed_only else row["differs_by"] < 1e-4
        assert row["environment"]["versions"]["jax"]


@pytest.mark.slow
def test_a_start_is_timed_by_parts(tmp_path):
    rows = commands.start("mnist", "tiny", str(tmp_path), rounds=1)
    (cold,), (warm,) = (row["rounds"] for row in rows.values())
    for seconds in (cold, warm):
        parts = dict(seconds)
        whole, cpu = parts.pop("seconds"), parts.pop("CPU seconds")
        assert cpu > 0 and sum(parts.values()) == pytest.approx(whole, abs=0.01)
        assert list(parts) == list(PARTS[: PARTS.index(FIRST_CALL) + 1])
    assert warm["compiling"] < cold["compiling"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_reproduce_is_timed_by_parts_and_as_a_whole(tmp_path):
    words = "reproduce --case=mnist --case=whole --quick".split()
    run = python("-m", "scripts.benchmark", *words, f"--out={tmp_path}")
    assert run.returncode == 0, run.stderr
    stored = json.loads((tmp_path / "reproduce.json").read_text())
    (row,), (first, again) = (rows.values() for rows in stored.values())
    assert {*PARTS} - {FIRST_CALL} <= row["rounds"][0].keys()
    assert 0 < first["rounds"][0]["first figure"] < first["rounds"][0]["seconds"]
    assert again["rounds"][0]["seconds"] < first["rounds"][0]["seconds"]


def test_at_any_time_the_innermost_part_counts():
    spans = ("writing", 8, 9), ("tracing", 2, 3), ("tracing", 1, 4), ("training", 0, 10)
    inner = ("compiling", 3.5, 5), ("importing", -1, 0)
    seconds = shares([Interval(*span) for span in (*spans, *inner)])
    assert seconds == dict(importing=1, tracing=2.5, compiling=1.5, training=5, writing=1)


# --- Training steps of any experiment ---

QUICK = ("sequential_mnist",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", [name if name in QUICK else exhaustive(name) for name in experiments.names()]
)
def test_plain_autodiff_has_the_gradients_of_ours(experiment, tmp_path):
    config = make_config(str(tmp_path), experiment, "tiny", data_dir=str(tmp_path))
    peers = {
        name: partial(jax_peers.trainer_peer, config, plain=name == PLAIN)
        for name in ("ours", PLAIN)
    }
    assert timing.compare(experiment, peers, 1, 0.01)[PLAIN]["differs_by"] < 1e-4


def test_the_timed_trainer_writes_rows_and_nothing_else(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(runs.Run, "write", lambda run, step, *_: steps.append(step))
    for owner, name in ((train.Training, "evaluate"), (runs.Run, "save")):
        monkeypatch.setattr(owner, name, None)
    config = make_config(str(tmp_path), "mnist", "tiny", data_dir=str(tmp_path))
    assert Trainer(config).seconds_per_step(3) > 0
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "experiment, sizes, parameters",
    [
        ("attentive_reader", dict(question=30), {}),
        ("order_embeddings", dict(images=4096), dict(layer=4_070_400 + 12_288 + 4_195_328)),
        ("skip_thoughts", {}, {}),
        ("handwriting", dict(text=51), dict(none=3_653_751 - 3 * 3 * 400)),  # Graves: peepholes
        ("draw", dict(x=784), dict(none=959_467)),  # the public code: 960,464 without peepholes
        ("mnist", dict(x=784), dict(none=1_796_010, layer=1_798_010, batch=1_798_020)),
    ],
)
def test_random_data_and_networks_have_the_sizes_of_the_paper(
    experiment, sizes, parameters, tmp_path
):
    config = make_config(str(tmp_path), experiment)
    task, vocabulary = experiments.load(config), random_data.KINDS[config.dataset][2]
    assert task.config.data_dir == str(tmp_path)
    assert getattr(task, "vocabulary", None) == vocabulary.get("vocab_size")
    shapes = {key: np.shape(leaf) for key, leaf in task.example().items()}
    assert all(shapes[key] == (config.batch_size, size) for key, size in sizes.items())
    words = vocabulary.get("vocab_size", 0) * config.get("embedding_dim", 0)
    for config.norm, count in parameters.items():
        params = jax.eval_shape(task.init, jax.random.key(0))["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count + words


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
    """Count the products of an LSTM: a_x, d W_x and d x; a_h, d W_h and d h."""
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
        numbers=lambda: Numbers(loss, gradients),
        rounded=rounded and (lambda: Numbers(loss, gradients | {"W": np.array(rounded)})),
    )


def check(rival, reference=None):
    """Return by how much the other peer differs; KeyError if it is not timed."""
    peers = {"ours": lambda: reference or peer(), "other": lambda: rival}
    return timing.compare("a case", peers, 1, 1e-6)["other"]["differs_by"]


def test_a_peer_may_differ_by_rounding():
    assert check(peer(W=(1.0, -4.0001), b=1e-9)) == pytest.approx(2.5e-5)


@pytest.mark.parametrize(
    "numbers, what",
    [(dict(loss=2.1), "the loss"), (dict(W=(1.0, np.nan)), "W"), (dict(loss=np.nan), "the loss")],
)
def test_a_peer_with_another_loss_or_gradient_is_not_timed(numbers, what, capsys):
    with pytest.raises(KeyError, match="other"):
        check(peer(**numbers))
    assert f"it computes something else: {what} differs" in capsys.readouterr().out


def test_a_chaotic_model_may_differ_as_it_does_from_itself():
    chaotic = peer(rounded=(1.0, -4.004))
    assert check(peer(W=(1.01, -4.0)), chaotic) == pytest.approx(2.5e-3)
    with pytest.raises(KeyError):
        check(peer(W=(1.1, -4.0)), chaotic)


def test_a_single_peer_is_timed_without_comparing():
    peers = {"ours": lambda: peer(loss=np.nan), "other": peer}
    (row,) = timing.compare("a case", peers, 1, 1e-6, only=("ours",)).values()
    assert row["differs_by"] is None and row["ratios"] == [1]


def test_a_peer_that_fails_leaves_the_others(capsys):
    peers = {"ours": peer, "broken": lambda: 1 / 0, "last": peer}
    assert timing.compare("a case", peers, 1, 1e-6).keys() == {"ours", "last"}
    assert "broken is missing: ZeroDivisionError" in capsys.readouterr().out


def test_a_table_shows_spread_memory_and_conditions():
    variables = {"GLIBC_TUNABLES": "huge", "XLA_FLAGS": "no allocator"}
    row = dict(
        differs_by=1e-7,
        facts=dict(temporary_bytes=2**21, matmul_flops=8e9),
        seconds_per_step=[1, 2, 9],
        ratios=[0.5, 1, 3],
        environment=dict(variables=variables, load_average=1.5, commit="123456789"),
    )
    theirs = row | dict(seconds_per_step=[], ratios=[], facts={}, differs_by=None)
    *_, first, second = timing.table({"draw": {"ours": row, "theirs": theirs}}).splitlines()
    conditions = "GLIBC_TUNABLES=huge | 1.5 | 1234567 |"
    assert first == f"| draw | ours | 2,000 | 1.00 (0.50–3.00) | 4 | 2 MiB | 1e-07 | {conditions}"
    assert second == f"|  | theirs |  |  |  |  |  | {conditions}"


def test_a_table_of_processes_shows_the_medians_of_parts():
    environment = dict(variables={}, load_average=1.5, commit=None)
    rounds = [dict(seconds=s, tracing=2 * s) for s in (1, 3, 2)]
    cold, warm = (dict(rounds=r, environment=environment) for r in (rounds[:1], rounds))
    *_, first, second = timing.table({"mnist": {"cold": cold, "warm": warm}}).splitlines()
    assert first == "| mnist | cold | 1.0 | 2.0 | default | 1.5 | None |"
    assert second == "|  | warm | 2.0 (1.0–3.0) | 4.0 | default | 1.5 | None |"

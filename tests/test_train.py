"""The trainer: lanes, plans, calls, resuming in one process, divergence and optimizers."""

from functools import partial
import json
import os
import re
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mnist
import experiments
from ln.errors import DivergedError, InputError
from ln.training import console, runs, train
from tests.cells import assert_equal
from tests.learning import tiny_config
from tests.products import exhaustive

NORMS = (exhaustive("none"), "batch", exhaustive("layer"), exhaustive("weight"))


@pytest.fixture(scope="module")
def make_config(data_dir):
    return partial(tiny_config, "mnist", data_dir)


def fit(config, folder):
    return train.fit(experiments.load(config), config, folder)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_close(a, b, rtol=2e-5, atol=2e-5):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


def fail_at(task, last):
    """Let a task raise ZeroDivisionError at a step."""

    def batch(step, seed=0, rows=slice(None), batch=task.batch):
        if step == last:
            raise ZeroDivisionError
        return batch(step, seed, rows)

    task.batch = batch


@pytest.mark.parametrize("norm", NORMS)
def test_a_lane_is_a_run(make_config, tmp_path, norm):
    both = fit(make_config(norm=norm, seeds=(0, 1), lr=(1e-2, 1e-3)), tmp_path / "all")
    for n, seed, lr in ((1, 0, 1e-3), (2, 1, 1e-2)):
        alone = fit(make_config(norm=norm, seeds=(seed,), lr=(lr,)), tmp_path / str(n))
        assert_close(train.lane(both.params, n), train.lane(alone.params, 0))


def test_the_state_is_donated(make_config):
    config = make_config()
    task, optimizer = experiments.load(config), train.make_optimizer(config)
    state = train.init_lanes(task, optimizer, [(0, 1e-3)])
    batches = jax.tree.map(lambda leaf: leaf[None], task.batch(0))
    train.make_call(task, optimizer)(state, batches)
    assert state.params["Dense_0"]["kernel"].is_deleted()


@pytest.mark.parametrize("norm", NORMS)
def test_a_resumed_run_is_the_same_run(make_config, tmp_path, norm):
    config = make_config(norm=norm, seeds=(0, 1), steps="8 steps", log_every="3 steps")
    whole = fit(config, tmp_path / "whole")
    task = experiments.load(config)
    fail_at(task, 7)  # after the checkpoints of steps 2 and 4, in the middle of a logged stretch
    with pytest.raises(ZeroDivisionError):
        train.fit(task, config, tmp_path / "broken")
    assert_equal(whole, fit(config, tmp_path / "broken"))
    assert_equal(whole, train.load(experiments.load(config), tmp_path / "broken", "newest"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_an_update_row_is_the_mean_since_the_row_before(make_config, tmp_path, seeds):
    """Each lane, step and split has a row; a call of one step and of several do the same."""
    fit(make_config(seeds=seeds, log_every="1 step"), tmp_path / "each")
    fit(make_config(seeds=seeds, log_every="4 steps"), tmp_path / "mean")
    written = [(r["step"], r["split"], r["seed"]) for r in rows(tmp_path / "each")]
    updates = [(step, "update", seed) for step in (1, 2, 3, 4) for seed in seeds]
    splits = [(s, p, seed) for s in (2, 4) for p in ("train", "valid", "test") for seed in seeds]
    assert sorted(written) == sorted(updates + splits)
    each = [r["loss"] for r in rows(tmp_path / "each") if r["split"] == "update"]
    mean = [r["loss"] for r in rows(tmp_path / "mean") if r["split"] == "update"]
    np.testing.assert_allclose(mean, np.reshape(each, (4, -1)).mean(0), rtol=1e-5)


def test_metrics_are_fetched_one_call_late(make_config, tmp_path, monkeypatch):
    events = []
    make_call, bad_losses = train.make_call, train.bad_losses

    def recorded(*arguments):
        call = make_call(*arguments)
        return lambda *inputs: events.append("dispatch") or call(*inputs)

    monkeypatch.setattr(train, "make_call", recorded)
    monkeypatch.setattr(
        train, "bad_losses", lambda *args: events.append("fetch") or bad_losses(*args)
    )
    late = dict(steps="6 steps", log_every="6 steps", eval_every="6 steps", save_every="6 steps")
    fit(make_config(**late), tmp_path / "run")
    assert events == ["dispatch", "dispatch", "fetch", "dispatch", "fetch", "fetch"]


@pytest.fixture
def clock(monkeypatch):
    """Return a list of the times, in seconds, that a Progress reads one after the other."""
    times = []
    monkeypatch.setattr(console.time, "monotonic", lambda: times.pop(0))
    return times


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_a_living_line_or_plain_lines(capsys, monkeypatch, clock, is_terminal):
    clock += [100.0, 101.0, 101.1, 110.0, 150.0]  # the first is the beginning
    monkeypatch.setattr(console.sys.stdout, "isatty", lambda: is_terminal)
    progress = console.Progress("mnist", 1_000, 2_000)  # resumed at step 1,000
    for step in (1_010, 1_011, 1_100, 2_000):
        progress.show(step, np.array([0.5, 0.25]))
    shown = capsys.readouterr().out
    first, last = shown.replace("\r\033[K", "\n").split("\n")[-3:-1]
    # A hundred steps in ten seconds of this session leave 900 steps, so 90 seconds.
    assert first == "mnist  step 1,100/2,000 (55%)  10.0 steps/s  loss 0.5 0.25  ETA 0:01:30"
    assert last.startswith("mnist  step 2,000/2,000 (100%)") and last.endswith("ETA 0:00:00")
    counts = (3, 1) if is_terminal else (0, 2)  # one came too early to be shown
    assert (shown.count("\r"), shown.count("\n")) == counts
    with pytest.raises(ZeroDivisionError), console.live_line():
        raise ZeroDivisionError
    assert capsys.readouterr().out == "\r\033[K" * is_terminal


def test_the_rate_is_of_steps_and_the_eta_of_all(capsys, clock):
    clock += [0.0, 0.0, 40.0, 40.0, 45.0, 60.0]
    progress = console.Progress("mnist", 0, 100)
    for kind, said in (("compiling", "Compiling 5 step(s)"), ("evaluating", "")):
        with progress.between(kind, said):
            pass
    progress.left = dict(compiling=1, evaluating=3)
    progress.show(30, np.zeros(1))  # in 15 seconds: 70 steps take 35 more, all else 40 and 3 x 5
    compiled, shown = capsys.readouterr().out.splitlines()
    assert compiled == "Compiling 5 step(s) … 40.0 s"
    assert "2.0 steps/s" in shown and shown.endswith("ETA 0:01:30")


def test_a_run_prints_evaluations_and_its_result(make_config, tmp_path, capsys):
    fit(make_config(seeds=(0, 1)), tmp_path / "run")
    shown = capsys.readouterr().out
    lines = [line for line in shown[shown.index("Compiling") :].splitlines() if "/4 (" not in line]
    stored = runs.read(tmp_path / "run")
    step, best = stored.best()
    *_, (_, last) = stored.scores().items()
    assert lines[0].startswith("Compiling 1 step(s) … ") and lines[0].endswith(" s")
    assert [line[:6] for line in lines[1:3]] == ["step 2", "step 4"]
    assert f"valid error {last:.4g} nll " in lines[2]
    assert f"best valid error {best:.4g} at" in lines[2]
    assert f"valid {best:.4g}, test " in lines[3] and f" at step {step}, the best of 2" in lines[3]
    assert lines[4] == (
        f"Best checkpoint: step {step}, the best that was saved, in {tmp_path / 'run/checkpoints'}"
    )


@pytest.mark.parametrize("every", [1, 3, 4])
def test_the_steps_left_include_those_due(every):
    plan = train.Plan(steps=10, log_every=every, eval_every=5, save_every=9, steps_per_call=2)
    for step in range(11):
        assert plan.left(every, step) == sum(plan.due(every, s) for s in range(step + 1, 11))


# --- On an accelerator, which a CPU plays ---


@pytest.fixture
def accelerated(monkeypatch):
    monkeypatch.setattr(train.machine, "accelerated", lambda: True)


def test_examples_gathered_on_the_device_train_the_same(make_config, tmp_path, accelerated):
    config = make_config(seeds=(0, 1), steps="6 steps")
    on_device = fit(config, tmp_path / "device")
    kept = json.loads((tmp_path / "device/calls.json").read_text())
    assert kept == {"steps": 1}  # what is due at each step bounds it
    task, known = experiments.load(config), experiments.load(config)
    task.arrays, task.batch, task.example = {}, known.batch, known.example  # nothing to gather from
    assert_close(on_device, train.fit(task, config, tmp_path / "host"), rtol=1e-6)


def test_the_length_of_calls_is_measured_once(make_config, tmp_path, accelerated, monkeypatch):
    late = dict.fromkeys(("log_every", "eval_every", "save_every"), "40 steps")
    monkeypatch.setattr(train, "CALL", 1e9)  # seconds: as long as possible
    fit(make_config(steps="80 steps", **late), tmp_path / "run")
    monkeypatch.setattr(train, "CALL", 0)
    dispatched, dispatch = [], train.Training.dispatch

    def watched(training, state, steps, batches):
        dispatched.append(len(steps))
        return dispatch(training, state, steps, batches)

    monkeypatch.setattr(train.Training, "dispatch", watched)
    fit(make_config(steps="120 steps", **late), tmp_path / "run")
    assert dispatched == [40]
    fit(make_config(steps="3 steps", **late), tmp_path / "short")
    assert dispatched[1:] == [2, 2, 1, 1, 1]  # two that are timed
    monkeypatch.setattr(train, "ROOM", 0)
    monkeypatch.setattr(train, "CALL", 1e9)
    fit(make_config(steps="2 steps", **late), tmp_path / "narrow")
    assert json.loads((tmp_path / "narrow/calls.json").read_text()) == {"steps": 1}


@pytest.mark.parametrize(
    "precision, written", [("float32", "HIGHEST"), ("tf32", "HIGH,"), ("bfloat16", "BF16_BF16_F32")]
)
def test_all_products_have_the_precision_of_the_config(make_config, precision, written):
    config = make_config(precision=precision)
    task, optimizer = experiments.load(config), train.make_optimizer(config)
    state = jax.eval_shape(lambda: train.init_lanes(task, optimizer, [(0, 1e-3)]))
    batches = jax.tree.map(lambda leaf: leaf[None], task.example())
    text = str(jax.make_jaxpr(train.make_call(task, optimizer))(state, batches))
    products = re.findall(r"dot_general\[.*?precision=(.*?)preferred", text, re.S)
    assert len(products) >= 8 and all(written in product for product in products)


def test_only_a_second_ctrl_c_ends_the_process():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may have it ignored
    with train.Interrupt() as interrupt:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
            assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
@pytest.mark.parametrize("handler, asked", [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_lost_terminal_saves_unless_it_is_ignored(handler, asked):
    before = signal.signal(signal.SIGHUP, handler)
    with train.Interrupt() as interrupt:
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert interrupt.asked is asked


@pytest.mark.parametrize("lost", ["closed", "missing", "broken"])
def test_a_lost_output_is_no_error(lost):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    if lost == "closed":
        stream.close()
    output = console.Output(None if lost == "missing" else stream)
    assert [output.write("text") for _ in range(2)] == [4, 4] and not output.isatty()
    stream.close()  # flushes what is left, as Python does at exit


class Exploding(train.Task):
    """A loss that is NaN or infinite from a certain step on in each bad lane."""

    bad_steps = {7: (5, jnp.nan)}  # seed -> the step, counted from 0, and the loss

    def init(self, key):
        return {"params": {"w": jax.random.normal(key, (3,))}}

    def batch(self, step, seed=0, rows=slice(None)):
        return {"step": np.int32(step)}

    def loss(self, variables, batch, key, train):
        loss = (variables["params"]["w"] ** 2).sum()
        for seed, (step, value) in self.bad_steps.items():
            # The lane of a seed is recognized by the random numbers of its key.
            lane_key = jax.random.fold_in(jax.random.key(seed), batch["step"])
            is_lane = (jax.random.key_data(key) == jax.random.key_data(lane_key)).all()
            loss = loss * jnp.where(is_lane & (batch["step"] >= step), value, 1.0)
        return loss, ({}, {"w": loss})

    def evaluate(self, variables):
        assert np.isfinite(variables["params"]["w"]).all(), "a diverged lane was evaluated"
        return {"valid": {"error": float(jnp.abs(variables["params"]["w"]).sum())}}


def exploding(config, bad_steps):
    """Return the task with other bad lanes."""
    task = Exploding(config)
    task.bad_steps = bad_steps
    return task


def test_a_nan_loss_ends_a_run_and_keeps_the_checkpoint(make_config, tmp_path):
    config = make_config(seeds=(7,), steps="20 steps", steps_per_call=3)
    with pytest.raises(DivergedError, match=r"nan at step 6 in lane 0 \(seed 7, lr 0\.001\)") as e:
        train.fit(Exploding(config), config, tmp_path / "run")
    assert "checkpoint 4 is kept" in str(e.value)
    assert sorted(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()) == [2, 4]
    assert not (tmp_path / "run/finished.json").exists()


def test_a_diverged_lane_leaves_the_others_as_they_were(make_config, tmp_path, capsys):
    config = make_config(seeds=(6, 7, 8), steps="20 steps", log_every="1 step", steps_per_call=3)
    whole = train.fit(exploding(config, {}), config, tmp_path / "fine")
    state = train.fit(Exploding(config), config, tmp_path / "run")
    saved = train.load(Exploding(config), tmp_path / "run", "newest")
    for n in (0, 2):
        assert_equal(train.lane(state, n), train.lane(whole, n))
        assert_equal(train.lane(saved, n), train.lane(whole, n))
    shown = capsys.readouterr().out
    assert "nan at step 6 in lane 1 (seed 7, lr 0.001). This lane has diverged" in shown
    run = runs.read(tmp_path / "run")
    assert run.finished and run.diverged == {(7, 1e-3): (6, "the loss is nan")}
    fine = rows(tmp_path / "fine")
    assert rows(tmp_path / "run") == [r for r in fine if r["seed"] != 7 or r["step"] < 6]


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_with_a_diverged_lane_is_resumed(make_config, tmp_path, lost):
    """Also if diverged.jsonl was lost before a checkpoint counted on it."""
    late = dict(seeds=(6, 7), steps="20 steps", log_every="3 steps", save_every="5 steps")
    config = make_config(**late, steps_per_call=2)
    task = exploding(config, {7: (1, jnp.nan)})  # before any checkpoint
    whole = train.fit(task, config, tmp_path / "whole")
    for stop in (4, 12):  # before and after the first checkpoint that contains it
        stops = exploding(config, task.bad_steps)
        fail_at(stops, stop)
        with pytest.raises(ZeroDivisionError):
            train.fit(stops, config, tmp_path / "broken")
        if lost and stop == 4:
            (tmp_path / "broken/diverged.jsonl").write_text('{"step": 2, "se')
    assert_equal(whole, train.fit(task, config, tmp_path / "broken"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    diverged = [runs.read(tmp_path / folder).diverged for folder in ("whole", "broken")]
    assert list(diverged[0]) == list(diverged[1]) == [(7, 1e-3)]
    assert lost or diverged[0] == diverged[1]


def test_a_run_whose_lanes_all_diverged_ends(make_config, tmp_path):
    config, words = make_config(seeds=(6, 7), steps="20 steps", steps_per_call=3), "lane 0 .*All"
    task = exploding(config, {6: (9, jnp.inf), 7: (5, jnp.nan)})
    for _ in range(2):  # and again when it is resumed
        with pytest.raises(DivergedError, match=f"inf at step 10 in {words} lanes .*checkpoint 8"):
            train.fit(task, config, tmp_path / "run")
        run = runs.read(tmp_path / "run")
        assert sorted(step for step, _ in run.diverged.values()) == [6, 10] and not run.finished
    assert train.step_of(train.load(task, tmp_path / "run")) == 8  # of the last to diverge


def test_a_longer_run_equals_a_long_one(make_config, tmp_path):
    for folder, lengths in (("once", ["6 steps"]), ("twice", ["4 steps", "6 steps"])):
        for steps in lengths:
            config = make_config(steps=steps, log_every="1 step")
            train.fit(experiments.load(config), config, tmp_path / folder)
            assert runs.is_finished(tmp_path / folder)
    once, twice = (runs.load(tmp_path / folder) for folder in ("once", "twice"))
    assert once == twice
    config = make_config(steps="2 steps")
    with pytest.raises(InputError, match="checkpoint of step 6 already"):
        train.fit(experiments.load(config), config, tmp_path / "once")


def test_a_state_that_is_not_finite_diverges(make_config, tmp_path, monkeypatch):
    """A moment overflows: neither losses nor weights show it, so the state is checked, too."""
    config = make_config(seeds=(6, 7), steps="8 steps")
    make_call = train.make_call

    def spoiled(*arguments):
        call = make_call(*arguments)

        def spoil(state, batches):
            state, metrics = call(state, batches)
            leaves, tree = jax.tree.flatten(state.opt)
            leaves[-1] = leaves[-1].at[1].set(jnp.where(state.step[0] > 4, jnp.inf, leaves[-1][1]))
            return state.replace(opt=jax.tree.unflatten(tree, leaves)), metrics

        return spoil

    monkeypatch.setattr(train, "make_call", spoiled)
    train.fit(exploding(config, {}), config, tmp_path / "run")
    ((lane, (step, cause)),) = runs.read(tmp_path / "run").diverged.items()
    assert lane == (7, 1e-3) and step == 6 and "opt" in cause and "is not finite" in cause


def test_lengths_are_steps_or_epochs():
    texts = {"300": 300, "300 steps": 300, "1 step": 1, "65 epochs": 650, "0.7 epochs": 7}
    assert [train.in_steps("steps", text, 10) for text in texts] == [*texts.values()]
    for text in ("", "0", "-3", "1.5", "3 weeks", "nan", "inf", "0.33 epochs"):
        with pytest.raises(InputError, match="config.eval_every is .*epochs"):
            train.in_steps("eval_every", text, 10)
    with pytest.raises(InputError, match="this task has no epochs"):
        train.in_steps("eval_every", "2 epochs", None)


@pytest.mark.parametrize(
    "shapes, stops",
    [([None] * 30, [4, 7, 10, 14, 18, 20]), ([5] * 6 + [9] * 3 + [5] * 21, [4, 5, 6, 7, 8, 9, 10])],
)
def test_calls_depend_on_the_step_alone(shapes, stops):
    """They stop where something is due, and before a batch of another shape."""
    plan = train.Plan(steps=30, log_every=7, eval_every=10, save_every=20, steps_per_call=4)
    calls = list(plan.calls(0, shapes.__getitem__))
    assert [step for call in calls for step in call] == list(range(30))
    assert [call.stop for call in calls[: len(stops)]] == stops
    for n, call in enumerate(calls):
        assert list(plan.calls(call.stop, shapes.__getitem__)) == calls[n + 1 :]


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("seeds", (), "config.seeds"),
        ("seeds", (1, 1), "twice"),
        ("seeds", (-1,), "config.seeds is -1; it must be a whole number from 0 to 2147483647"),
        ("seeds", (1.5,), "config.seeds is 1.5; it must be a whole number"),
        ("lr", (0.0,), "config.lr is 0.0; it must be 1e-30 or more"),
        ("lr", (1e39,), "must be 1e-30 or more and fit into 32 bits"),
        ("lr", (1e-3, 1.00000000001e-3), "twice: rates are numbers of float32"),
        ("hidden", 10**20, "must be 1 or more and fit into 32 bits"),
        ("clip", float("nan"), "clip is nan; it must be 0 or more"),
        ("optimizer.b1", 1.5, "optimizer.b1 is 1.5; it must be from 0 to 0.999999"),
        ("optimizer.eps", float("inf"), "optimizer.eps is inf"),
        ("steps", str(2**31), "less than 2.31"),
        ("steps_per_call", 0, "steps_per_call"),
        ("optimizer.kind", "adm", "Did you mean 'adam'"),
        ("optimizer.kind", "rmsprop", "rmsprop does not take all of b1"),
        ("select.mode", "mni", "Did you mean 'min'"),
        ("precision", "float23", "Did you mean 'float32'"),
        ("writers", ("tensorbord",), "Did you mean 'tensorboard'"),
        ("norm", "layr", "Did you mean 'layer'"),
        ("batch_size", 10_000, "1297"),
    ],
)
def test_invalid_settings_raise_before_training(
    make_config, tmp_path, monkeypatch, key, value, words
):
    monkeypatch.setattr(train, "make_call", lambda *_: pytest.fail("it began to train"))
    with pytest.raises(InputError, match=words):
        fit(make_config(**{key: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The gradients W = (30, 40) and b = (5, 0) after clipping.
CLIPPED = {
    "clip": (0.1, np.full(2, 0.1 / 2525**0.5)),  # a common norm of 0.1
    "clip_each": (2.0, np.array([2 / 50, 2 / 5])),  # each array has a norm of 2
    "clip_root": (10.0, np.full(2, (10 / 2525**0.5) ** 0.5)),  # √(10 / norm)
}


@pytest.mark.parametrize("key", CLIPPED)
def test_a_clip_shrinks_large_gradients(make_config, key):
    (most, factors), config = CLIPPED[key], make_config(clip=0.0)
    with config.unlocked():
        config[key] = most
        config.optimizer = dict(kind="rmsprop", decay=0.0, eps=1.0)
    optimizer = train.make_optimizer(config)
    grads = {"W": jnp.array([30.0, 40.0]), "b": jnp.array([5.0, 0.0])}
    direction, _ = optimizer.update(grads, optimizer.init(grads))
    for name, factor in zip("Wb", factors, strict=True):
        g = factor * np.asarray(grads[name])
        np.testing.assert_allclose(direction[name], g / np.sqrt(g**2 + 1), rtol=1e-5)


def test_the_authors_adam_is_that_of_their_code(make_config):
    """optim.py of their order-embedding code, whose b1 and b2 are the complements of Adam's."""
    optimizer = train.make_optimizer(make_config(**{"optimizer.kind": "adam_uncorrected"}))
    b1, b2, e = 0.1, 0.001, 1e-8
    m, v, update = np.zeros(3), np.zeros(3), jax.jit(optimizer.update)
    state = optimizer.init({"w": jnp.zeros(3)})
    for i_t in range(1, 30):
        g = np.sin(np.arange(3.0) + i_t)
        fix1, fix2 = 1 - b1**i_t, 1 - b2**i_t
        m = b1 * g + (1 - b1) * m
        v = b2 * g**2 + (1 - b2) * v
        expected = np.sqrt(fix2) / fix1 * m / (np.sqrt(v) + e)
        direction, state = update({"w": jnp.array(g, jnp.float32)}, state)
        np.testing.assert_allclose(direction["w"], expected, rtol=1e-4, atol=1e-6)


# --- Schedules of the learning rate ---


def directions(steps, **schedule):
    """Return what the optimizer makes of gradients of 1, step by step, and its last state."""
    config = mnist.get_config("tiny")
    config.optimizer = dict(kind="rmsprop", decay=0.0, eps=0.0)
    config.schedule = schedule
    optimizer, actual = train.make_optimizer(config), []
    state, update = optimizer.init(jnp.zeros(())), jax.jit(optimizer.update)
    for _ in range(steps):
        direction, state = update(jnp.ones(()), state)
        actual.append(float(direction))
    return actual, state


def test_inverse_sqrt_decays_from_the_first_update():
    actual, _ = directions(500, kind="inverse_sqrt", tau=429.0)
    np.testing.assert_allclose(actual, 1 / np.sqrt(1 + np.arange(500) / 429), rtol=1e-5)


def test_a_constant_schedule_adds_no_state():
    actual, state = directions(3, kind="constant", tau=0.0)
    assert actual == [1.0, 1.0, 1.0] and len(jax.tree.leaves(state)) == 1  # RMSProp's


@pytest.mark.parametrize(
    "schedule, message",
    [
        (dict(kind="inverse_sqr", tau=1.0), "Did you mean 'inverse_sqrt'"),
        (dict(kind="inverse_sqrt", tau=0.0), "tau is 0.0; inverse_sqrt needs a positive number"),
        (dict(kind="inverse_sqrt", tau=-1.0), "tau is -1.0; it must be 0 or more"),
        (dict(kind="constant", tau=429.0), "tau is 429.0; .* a constant learning rate 0"),
    ],
)
def test_a_wrong_schedule_raises(schedule, message):
    with pytest.raises(InputError, match=message):
        directions(1, **schedule)

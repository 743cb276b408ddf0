"""The trainer: lanes, plans, calls, resuming in one process, and what it refuses."""

import itertools
import json
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mnist
import experiments
from ln.errors import DivergedError, InputError
from ln.training import optim, runs, train

NORMS = ("none", "batch", "layer", "weight")


@pytest.fixture(scope="module")
def make_config(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("data"))

    def make(**overrides):
        config = mnist.get_config("tiny")
        config.data_dir = data_dir
        config.update_from_flattened_dict(overrides)
        return config

    return make


def fit(config, folder):
    return train.fit(experiments.load(config), config, folder)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_saved_run_is_loaded_with_all_its_lanes(make_config, tmp_path):
    config = make_config(norm="batch", seeds=(0, 1))
    state = fit(config, tmp_path / "run")
    assert_equal(train.load(experiments.load(config), tmp_path / "run", "newest"), state)


@pytest.mark.parametrize("norm", NORMS)
def test_a_lane_is_a_run(make_config, tmp_path, norm):
    both = fit(make_config(norm=norm, seeds=(0, 1), lr=(1e-2, 1e-3)), tmp_path / "all")
    for n, (seed, lr) in enumerate(itertools.product((0, 1), (1e-2, 1e-3))):
        one = fit(make_config(norm=norm, seeds=(seed,), lr=(lr,)), tmp_path / str(n))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
            train.lane(both.params, n),
            train.lane(one.params, 0),
        )


def test_lanes_of_different_seeds_and_rates_differ(make_config, tmp_path):
    state = fit(make_config(seeds=(0, 1), lr=(1e-2, 1e-3)), tmp_path / "run")
    kernel = state.params["Dense_0"]["kernel"]
    for n, m in itertools.combinations(range(4), 2):
        assert np.abs(kernel[n] - kernel[m]).max() > 1e-3


def test_a_call_is_its_steps_one_by_one(make_config):
    config = make_config(norm="batch", seeds=(3,))
    task, optimizer = experiments.load(config), train.make_optimizer(config)
    alone = train.init_state(task, optimizer, jnp.int32(3), jnp.float32(1e-3))
    call = train.make_call(task, optimizer)
    batches = [task.batch(n) for n in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
    together, metrics = call(jax.tree.map(lambda leaf: jnp.array([leaf]), alone), stacked)
    for n, batch in enumerate(batches):
        alone, found = train.train_step(task, optimizer, alone, batch)
        np.testing.assert_allclose(metrics["loss"][n, 0], found["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        train.lane(together, 0),
        alone,
    )


def test_the_state_is_donated(make_config):
    config = make_config()
    task, optimizer = experiments.load(config), train.make_optimizer(config)
    state = jax.vmap(lambda seed: train.init_state(task, optimizer, seed, 1e-3))(jnp.arange(1))
    batches = jax.tree.map(lambda leaf: leaf[None], task.batch(0))
    train.make_call(task, optimizer)(state, batches)
    assert state.params["Dense_0"]["kernel"].is_deleted()


@pytest.mark.parametrize("norm", NORMS)
def test_a_resumed_run_is_the_same_run(make_config, tmp_path, norm):
    config = make_config(norm=norm, seeds=(0, 1), steps="8 steps", log_every="3 steps")
    whole = fit(config, tmp_path / "whole")

    class Stopped(Exception):
        pass

    task = experiments.load(config)
    batch = task.batch

    def fail_at_7(step, seed, rows):
        if step == 7:  # after the checkpoints of steps 2 and 4, in the middle of a logged stretch
            raise Stopped
        return batch(step, seed, rows)

    task.batch = fail_at_7
    with pytest.raises(Stopped):
        train.fit(task, config, tmp_path / "broken")
    resumed = fit(config, tmp_path / "broken")
    assert_equal(whole, resumed)
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")


def test_calls_of_another_length_are_the_same_run(make_config, tmp_path):
    a = fit(make_config(steps_per_call=1), tmp_path / "a")
    b = fit(make_config(steps_per_call=2), tmp_path / "b")
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_nothing_is_compiled_twice(make_config, tmp_path, monkeypatch):
    calls = []
    make_call = train.make_call
    monkeypatch.setattr(
        train, "make_call", lambda *args: calls.append(make_call(*args)) or calls[0]
    )
    fit(make_config(steps="8 steps"), tmp_path / "run")
    fit(make_config(steps="16 steps"), tmp_path / "run2")
    assert [call._cache_size() for call in calls[:1]] == [1]


def test_metrics_have_one_row_per_lane_step_and_split(make_config, tmp_path):
    fit(make_config(seeds=(0, 1), log_every="1 step"), tmp_path / "run")
    found = [(r["step"], r["split"], r["seed"]) for r in rows(tmp_path / "run")]
    updates = [(step, "update", seed) for step in (1, 2, 3, 4) for seed in (0, 1)]
    splits = [(s, p, seed) for s in (2, 4) for p in ("train", "valid", "test") for seed in (0, 1)]
    assert sorted(found) == sorted(updates + splits)


def test_an_update_row_is_the_mean_since_the_row_before(make_config, tmp_path):
    fit(make_config(log_every="1 step"), tmp_path / "each")
    fit(make_config(log_every="4 steps"), tmp_path / "mean")
    each = [r["loss"] for r in rows(tmp_path / "each") if r["split"] == "update"]
    (mean,) = [r["loss"] for r in rows(tmp_path / "mean") if r["split"] == "update"]
    np.testing.assert_allclose(mean, np.mean(each), rtol=1e-5)


def test_batches_are_prepared_on_another_thread(make_config, tmp_path):
    config = make_config()
    task = experiments.load(config)
    batch, threads = task.batch, set()
    task.batch = lambda step, *_: threads.add(threading.current_thread()) or batch(step)
    train.fit(task, config, tmp_path / "run")
    assert threading.current_thread() not in threads and len(threads) == 1


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


def show_progress(capsys, monkeypatch, is_terminal):
    clock = iter([100.0, 101.0, 101.1, 110.0, 150.0])  # seconds; the first is the beginning
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(train.sys.stdout, "isatty", lambda: is_terminal)
    progress = train.Progress("mnist", 1_000, 2_000)  # resumed at step 1,000
    for step in (1_010, 1_011, 1_100, 2_000):
        progress.show(step, np.array([0.5, 0.25]))
    return capsys.readouterr().out


def test_progress_is_one_living_line_on_a_terminal(capsys, monkeypatch):
    shown = show_progress(capsys, monkeypatch, is_terminal=True)
    assert shown.count("\r") == 3 and shown.count("\n") == 1  # one came too early to be shown


def test_progress_is_plain_lines_elsewhere(capsys, monkeypatch):
    shown = show_progress(capsys, monkeypatch, is_terminal=False)
    assert "\r" not in shown
    first, last = shown.splitlines()
    # A hundred steps in ten seconds of this session leave 900 steps, so 90 seconds.
    assert first == "mnist  step 1,100/2,000 (55%)  10.0 steps/s  loss 0.5 0.25  ETA 0:01:30"
    assert last.startswith("mnist  step 2,000/2,000 (100%)") and last.endswith("ETA 0:00:00")


def test_signals_of_the_same_second_are_one_request_and_a_later_one_ends_the_process():
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may have it ignored
    with train.Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.asked
        interrupt.since -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_an_optimizer_with_the_options_of_another_is_refused(make_config):
    config = make_config()
    config.optimizer.kind = "rmsprop"
    with pytest.raises(InputError, match="rmsprop does not take all of b1"):
        train.make_optimizer(config)


class Exploding(train.Task):
    """A loss that is fine until a step of its own in each bad lane, then NaN or infinite."""

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
        assert np.isfinite(variables["params"]["w"]).all(), "a dead lane was evaluated"
        return {"valid": {"error": float(jnp.abs(variables["params"]["w"]).sum())}}


class Fine(Exploding):
    bad_steps = {}


def test_a_nan_loss_stops_and_names_step_and_lane_and_keeps_the_last_good_checkpoint(
    make_config, tmp_path
):
    config = make_config(seeds=(7,), steps="20 steps", steps_per_call=3)
    with pytest.raises(DivergedError, match=r"nan at step 6 in lane 0 \(seed 7, lr 0\.001\)") as e:
        train.fit(Exploding(config), config, tmp_path / "run")
    assert "checkpoint 4 is kept" in str(e.value)
    assert sorted(int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()) == [2, 4]
    assert not (tmp_path / "run/finished.json").exists()


def test_a_dead_lane_leaves_the_others_as_they_would_be_and_stays_as_it_was(
    make_config, tmp_path, capsys
):
    config = make_config(seeds=(6, 7, 8), steps="20 steps", log_every="1 step", steps_per_call=3)
    whole = train.fit(Fine(config), config, tmp_path / "fine")
    state = train.fit(Exploding(config), config, tmp_path / "run")
    for n in (0, 2):
        assert_equal(train.lane(state, n), train.lane(whole, n))
    shown = capsys.readouterr().out
    assert "nan at step 6 in lane 1 (seed 7, lr 0.001). This lane is dead" in shown
    assert runs.read_dead(tmp_path / "run") == {
        (7, 1e-3): dict(step=6, seed=7, lr=1e-3, cause="the loss is nan")
    }
    fine, found = rows(tmp_path / "fine"), rows(tmp_path / "run")
    assert found == [row for row in fine if row["seed"] != 7 or row["step"] < 6]
    assert runs.is_finished(tmp_path / "run")
    saved = train.load(Exploding(config), tmp_path / "run", "newest")
    assert saved.step.tolist() == [20, 4, 20]  # that of the last checkpoint before
    assert_equal(train.lane(saved, 0), train.lane(state, 0))
    assert np.isfinite(saved.params["w"]).all()


def test_a_run_with_a_dead_lane_is_resumed_as_the_same_run(make_config, tmp_path):
    late = dict(seeds=(6, 7), steps="20 steps", log_every="3 steps", save_every="5 steps")
    config = make_config(**late, steps_per_call=2)

    class Both(Exploding):
        bad_steps = {7: (1, jnp.nan)}  # before any checkpoint

    train.fit(Both(config), config, tmp_path / "whole")
    for stop in (4, 12):  # before and after the first checkpoint that has it

        class Stops(Both):
            def batch(self, step, seed=0, rows=slice(None), stop=stop):
                if step == stop:
                    raise InterruptedError
                return super().batch(step, seed, rows)

        with pytest.raises(InputError, match="Cannot write"):  # as of a disk
            train.fit(Stops(config), config, tmp_path / "broken")
    train.fit(Both(config), config, tmp_path / "broken")
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    assert runs.read_dead(tmp_path / "whole") == runs.read_dead(tmp_path / "broken")
    whole, broken = (train.load(Both(config), tmp_path / f, "newest") for f in ("whole", "broken"))
    assert_equal(whole, broken)
    fresh = train.init_lanes(Both(config), train.make_optimizer(config), train.make_lanes(config))
    assert_equal(train.lane(whole, 1), train.lane(fresh, 1))


def test_a_dead_lane_whose_line_was_lost_is_noted_again(make_config, tmp_path):
    config = make_config(seeds=(6, 7), steps="12 steps", steps_per_call=3)
    train.fit(Exploding(config), config, tmp_path / "run")
    (tmp_path / "run/dead.jsonl").write_text('{"step": 6, "se')
    train.fit(Exploding(config), config, tmp_path / "run")
    ((lane, row),) = runs.read_dead(tmp_path / "run").items()
    assert lane == (7, 1e-3) and row["step"] == 5  # the first after its last checkpoint
    assert "not in dead.jsonl" in row["cause"]


def test_a_run_whose_lanes_are_all_dead_stops(make_config, tmp_path):
    class All(Exploding):
        bad_steps = {6: (9, jnp.inf), 7: (5, jnp.nan)}

    config = make_config(seeds=(6, 7), steps="20 steps", steps_per_call=3)
    for _ in range(2):  # and again when it is resumed
        with pytest.raises(DivergedError, match="inf at step 10 in lane 0 .*All lanes are dead.*8"):
            train.fit(All(config), config, tmp_path / "run")
        assert [row["step"] for row in runs.read_dead(tmp_path / "run").values()] == [6, 10]
    assert not runs.is_finished(tmp_path / "run")
    # The best checkpoint is that of the lane which lived longer.
    assert train.load(All(config), tmp_path / "run").step.tolist() == [8, 4]


def test_a_disk_that_is_full_is_told_and_the_run_goes_on_once_there_is_room(
    make_config, tmp_path, monkeypatch
):
    config, write = make_config(steps="6 steps"), runs.Run.write

    def full(run, step, *row):
        if step > 3:
            raise OSError(28, "No space left on device")
        write(run, step, *row)

    monkeypatch.setattr(runs.Run, "write", full)
    with pytest.raises(InputError, match="No space left.*the same command goes on"):
        train.fit(experiments.load(config), config, tmp_path / "run")
    monkeypatch.undo()
    train.fit(experiments.load(config), config, tmp_path / "run")
    assert runs.is_finished(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_told(make_config, tmp_path):
    (tmp_path / "file").write_text("no folder")
    config = make_config()
    with pytest.raises(InputError, match="Cannot write to"):
        train.fit(experiments.load(config), config, tmp_path / "file" / "run")


def test_a_run_may_be_made_longer_and_is_then_the_longer_run(make_config, tmp_path):
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


def test_a_lane_whose_state_is_not_finite_is_found(make_config):
    config = make_config(seeds=(6, 7))
    optimizer = train.make_optimizer(config)
    state = jax.vmap(lambda s: train.init_state(Fine(config), optimizer, s, 1e-3))(
        jnp.array([6, 7])
    )
    assert train.bad_states(state, 3) == []
    broken = state.replace(params={"w": state.params["w"].at[1, 2].set(jnp.inf)})
    assert train.bad_states(broken, 3) == [(1, 3, "State.params['w'] is not finite")]


def test_a_state_that_is_not_finite_is_never_saved(make_config, tmp_path, monkeypatch):
    config = make_config(seeds=(6, 7), steps="8 steps")
    make_call = train.make_call

    def spoiled(*arguments):  # a moment overflows in silence: neither losses nor weights tell
        call = make_call(*arguments)

        def spoil(state, batches):
            state, metrics = call(state, batches)
            leaves, tree = jax.tree.flatten(state.opt)
            leaves[-1] = leaves[-1].at[1].set(jnp.where(state.step[0] > 4, jnp.inf, leaves[-1][1]))
            return state.replace(opt=jax.tree.unflatten(tree, leaves)), metrics

        return spoil

    monkeypatch.setattr(train, "make_call", spoiled)
    train.fit(Fine(config), config, tmp_path / "run")
    (dead,) = runs.read_dead(tmp_path / "run").values()
    assert dead["seed"] == 7 and dead["step"] == 6 and "opt" in dead["cause"]
    saved = train.load(Fine(config), tmp_path / "run", "newest")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))


@pytest.mark.parametrize(
    "text, steps",
    [("300", 300), ("300 steps", 300), ("1 step", 1), ("65 epochs", 650), ("0.5 epochs", 5)],
)
def test_lengths_are_read(text, steps):
    assert train.in_steps("steps", text, 10) == steps


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "1.5", "3 weeks", "1e9x", "nan", "inf", "0.33 epochs"]
)
def test_lengths_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="config.eval_every"):
        train.in_steps("eval_every", text, 10)


def test_epochs_are_refused_where_there_are_none():
    with pytest.raises(InputError, match="no epochs"):
        train.in_steps("steps", "2 epochs", None)


def test_calls_are_a_function_of_the_step_alone():
    plan = train.Plan(steps=50, log_every=7, eval_every=10, save_every=20, steps_per_call=4)
    calls = list(plan.calls(0))
    assert [step for call in calls for step in call] == list(range(50))
    stops = [call.stop for call in calls]
    assert {7, 10, 14, 20, 40, 50} <= set(stops) and max(len(call) for call in calls) == 4
    for n, stop in enumerate(stops):
        assert list(plan.calls(stop)) == calls[n + 1 :]


def test_a_call_has_batches_of_one_shape_and_resuming_changes_nothing():
    plan = train.Plan(steps=30, log_every=30, eval_every=30, save_every=30, steps_per_call=4)
    shapes = [5] * 6 + [9] * 3 + [5] * 21
    calls = list(plan.calls(0, shapes.__getitem__))
    assert [step for call in calls for step in call] == list(range(30))
    assert all(len({shapes[step] for step in call}) == 1 for call in calls)
    assert [call.stop for call in calls[:7]] == [4, 5, 6, 7, 8, 9, 13]
    for n, call in enumerate(calls):
        assert list(plan.calls(call.stop, shapes.__getitem__)) == calls[n + 1 :]


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("seeds", (), "config.seeds"),
        ("seeds", (1, 1), "twice"),
        ("seeds", (-1,), "seed"),
        ("lr", (0.0,), "learning rate"),
        ("lr", (float("nan"),), "learning rate"),
        ("steps_per_call", 0, "steps_per_call"),
        ("steps", "ten", "config.steps"),
        ("optimizer.kind", "adm", "Did you mean 'adam'"),
        ("select.mode", "mni", "Did you mean 'min'"),
        ("norm", "layr", "Did you mean 'layer'"),
        ("experiment", "mnits", "Did you mean 'mnist'"),
        ("dataset", "digts", "Did you mean 'digits'"),
        ("init", "he_norml", "Did you mean 'he_normal'"),
        ("norms.layer.sites", ("b",), "norm site"),
        ("batch_size", 10_000, "1297 cases"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_computed(
    make_config, tmp_path, monkeypatch, key, value, words
):
    monkeypatch.setattr(train, "make_call", lambda *_: pytest.fail("it began to train"))
    with pytest.raises(InputError, match=words):
        fit(make_config(**{key: value}), tmp_path / "run")


def test_clipping_bounds_the_gradient(make_config):
    config = make_config(clip=0.1, optimizer={"kind": "adam", "b1": 0.0, "b2": 0.0, "eps": 1.0})
    optimizer = train.make_optimizer(config)
    grads = {"w": jnp.array([30.0, 40.0])}
    direction, _ = optimizer.update(grads, optimizer.init(grads))
    clipped = np.array([0.06, 0.08])  # of norm 0.1; Adam without memory: g / (|g| + 1)
    np.testing.assert_allclose(direction["w"], clipped / (clipped + 1), rtol=1e-5)


def test_each_array_is_clipped_by_itself(make_config):
    config = make_config()
    with config.unlocked():
        config.update(clip_each=2.0, optimizer={"kind": "adam", "b1": 0.0, "b2": 0.0, "eps": 1.0})
    optimizer = train.make_optimizer(config)
    grads = {"W": jnp.array([[30.0], [40.0]]), "b": jnp.array([1.0, 1.0]), "c": jnp.zeros(2)}
    direction, _ = optimizer.update(grads, optimizer.init(grads))
    clipped = {"W": np.array([[1.2], [1.6]]), "b": np.array([1.0, 1.0]), "c": np.zeros(2)}
    for name, g in clipped.items():  # Adam without memory: g / (|g| + 1)
        np.testing.assert_allclose(direction[name], g / (g + 1), rtol=1e-5)


@pytest.mark.parametrize("norm, expected", [(50.0, 50.0), (400.0, 200.0)])
def test_the_readers_rule_clips_to_the_root_of_100_times_the_norm(make_config, norm, expected):
    """g *= 10 / √‖g‖ where ‖g‖ > 10², as their code has it."""
    config = make_config(clip=0.0)
    with config.unlocked():
        config.update(clip_root=100.0, optimizer={"kind": "adam", "b1": 0.0, "b2": 0.0, "eps": 1.0})
    optimizer = train.make_optimizer(config)
    grads = {"W": jnp.array([0.6 * norm]), "b": jnp.array([0.8 * norm])}
    direction, _ = optimizer.update(grads, optimizer.init(grads))
    for name, share in (("W", 0.6), ("b", 0.8)):  # Adam without memory: g / (|g| + 1)
        g = share * expected
        np.testing.assert_allclose(direction[name], g / (g + 1), rtol=1e-5)


def test_the_authors_adam_is_a_transcription_of_their_code(make_config):
    """optim.py of their order-embedding code, whose b1 and b2 are the complements of Adam's."""
    optimizer = train.make_optimizer(make_config(**{"optimizer.kind": "adam_uncorrected"}))
    b1, b2, e = 0.1, 0.001, 1e-8
    m = v = np.zeros(3)
    state = optimizer.init({"w": jnp.zeros(3)})
    for i_t in range(1, 30):
        g = np.sin(np.arange(3.0) + i_t)
        fix1, fix2 = 1 - b1**i_t, 1 - b2**i_t
        m = b1 * g + (1 - b1) * m
        v = b2 * g**2 + (1 - b2) * v
        expected = np.sqrt(fix2) / fix1 * m / (np.sqrt(v) + e)
        direction, state = optimizer.update({"w": jnp.array(g, jnp.float32)}, state)
        np.testing.assert_allclose(direction["w"], expected, rtol=1e-4, atol=1e-6)


def test_the_authors_adam_takes_the_long_first_steps_that_its_docstring_says():
    optimizer = optim.scale_by_adam_uncorrected()
    state, g, lengths = optimizer.init(jnp.zeros(1)), jnp.ones(1), []
    for _ in range(2000):
        direction, state = jax.jit(optimizer.update)(g, state)
        lengths.append(float(direction[0]))
    assert lengths[0] == pytest.approx(3.51, abs=0.01)
    assert 10 <= np.argmax(lengths) <= 14 and max(lengths) == pytest.approx(6.6, abs=0.1)
    assert lengths[-1] == pytest.approx(1, abs=0.1)


def test_adam_is_torch_adam(make_config):
    torch = pytest.importorskip("torch")
    optimizer, lr = train.make_optimizer(make_config()), 1e-3
    w = np.array([1.0, -2.0, 3.0], np.float32)
    ours, theirs = jnp.array(w), torch.tensor(w, requires_grad=True)
    state, peer = optimizer.init(ours), torch.optim.Adam([theirs], lr=lr)
    for step in range(5):
        grad = np.sin(w + step).astype(np.float32)
        direction, state = optimizer.update(jnp.array(grad), state)
        ours = ours - lr * direction
        theirs.grad = torch.tensor(grad)
        peer.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-6)


# --- Schedules of the learning rate ---


def directions(steps, **schedule):
    """Return what the optimizer makes of gradients of 1, step by step; SGD has no state."""
    config = mnist.get_config("tiny")
    config.optimizer = dict(kind="rmsprop", decay=0.0, eps=0.0)
    config.schedule = schedule
    optimizer, found = train.make_optimizer(config), []
    state = optimizer.init(jnp.zeros(()))
    for _ in range(steps):
        direction, state = optimizer.update(jnp.ones(()), state)
        found.append(float(direction))
    return found, state


def test_inverse_sqrt_decays_from_the_first_update_on():
    found, _ = directions(500, kind="inverse_sqrt", tau=429.0)
    np.testing.assert_allclose(found, 1 / np.sqrt(1 + np.arange(500) / 429), rtol=1e-5)


def test_a_constant_schedule_adds_no_state():
    found, state = directions(3, kind="constant", tau=0.0)
    assert found == [1.0, 1.0, 1.0]
    without = mnist.get_config("tiny")
    without.optimizer = dict(kind="rmsprop", decay=0.0, eps=0.0)
    del without.schedule
    before = train.make_optimizer(without).init(jnp.zeros(()))
    assert jax.tree.structure(state) == jax.tree.structure(before)


@pytest.mark.parametrize(
    "schedule, message",
    [
        (dict(kind="inverse_sqr", tau=1.0), "Did you mean 'inverse_sqrt'"),
        (dict(kind="inverse_sqrt", tau=0.0), "tau is 0.0; it must be a positive number"),
        (dict(kind="inverse_sqrt", tau=-1.0), "tau is -1.0; it must be a positive number"),
        (dict(kind="inverse_sqrt", tau=float("nan")), "tau is nan; it must be a positive number"),
        (dict(kind="constant", tau=429.0), "tau is 429.0, but a constant learning rate has none"),
    ],
)
def test_a_wrong_schedule_raises(schedule, message):
    with pytest.raises(InputError, match=message):
        directions(1, **schedule)


def test_lanes_decay_from_their_own_rates_and_resume(make_config, tmp_path):
    settings = {"schedule.kind": "inverse_sqrt", "schedule.tau": 2.0, "lr": (1e-2, 1e-3)}
    whole = fit(make_config(**settings, steps="4 steps"), tmp_path / "whole")
    fit(make_config(**settings, steps="2 steps"), tmp_path / "parts")
    assert_equal(fit(make_config(**settings, steps="4 steps"), tmp_path / "parts"), whole)
    constant = fit(make_config(lr=(1e-2, 1e-3), steps="4 steps"), tmp_path / "constant")
    moved = [
        np.abs(s.params["Dense_0"]["kernel"] - constant.params["Dense_0"]["kernel"]).max((1, 2))
        for s in (whole,)
    ]
    assert (moved[0] > 1e-5).all()

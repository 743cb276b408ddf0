"""Random settings, damaged run folders and damaged originals: accepted, or rejected in one line.

`python -m scripts.fuzz` tries more of them, with other seeds, and counts what became of them.
"""

import contextlib
import functools
import importlib
import json
import math
import os
from pathlib import Path
import random
import shutil
import tempfile

from flax.traverse_util import flatten_dict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

import experiments
from experiments import datasets
from ln.errors import InputError
from ln.training import runs
from scripts.engines import jobs
from tests import test_runs
from tests.files import PACKED, lay
from tests.test_readers import READERS

LONG = "FUZZ_EXAMPLES" in os.environ  # set by scripts.fuzz
SOME = random.sample(experiments.names(), 2) if LONG else ["mnist"]  # a seed tries two
KEY = jax.random.key(0)


def tries(count):
    """Return the settings of a test that tries so many inputs, always the same ones."""
    return settings(
        max_examples=int(os.environ.get("FUZZ_EXAMPLES", count)),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(what, function):
    """Return what a function returns, None if it rejects its input in one line; count it."""
    try:
        result, message = function(), ""
    except InputError as error:
        result, message = None, f"rejected: {error}"
    assert message.count("\n") == 0 and message.strip() != "rejected:"
    if LONG:  # at once, for scripts.fuzz ends this process when the time is up
        with Path(os.environ["FUZZ_COUNTS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, "rejected" if message else "accepted"]) + "\n")
    return result


# --- Settings ---

WORDS = ["", " ", "0", "-1", "1", "3", "0.5", "nan", "inf", "-inf", "1e30", "1e999", str(10**20)]
WORDS += ["é☃", "()", "(1,)", "1,2", "True", "None", "layer", "5 epochs", "0 steps", "-3 steps"]
WORDS += [str(2**31), "1_0", "0x10", "a=b", "'", '"', "[" * 99, "../x", "\\", "%s", "\0"]
WORDS += ["\ud83d", "x" * 300]


@pytest.fixture(scope="module", params=SOME)
def config(request, tmp_path_factory):
    config = importlib.import_module(f"configs.{request.param}").get_config("tiny")
    config.data_dir = str(tmp_path_factory.mktemp("data"))
    return config


def is_value(word, value):
    """Return whether a value is what a word says."""
    if isinstance(value, bool):
        return word.lower() in (("true", "1") if value else ("false", "0"))
    if isinstance(value, int | float):
        number = float(int(word, 0)) if word.startswith("0x") else float(word)
        return number == value or (math.isnan(number) and math.isnan(value))
    if isinstance(value, str):
        return value == word
    return all(is_value(w, v) for w, v in zip(word.strip("(), ").split(","), value, strict=True))


@tries(30)
@given(data=st.data())
def test_a_setting_takes_effect_or_raises(config, data):
    before = flatten_dict(runs.as_json(config), sep=".")
    key = data.draw(st.sampled_from(sorted(before)), label="key")
    word = data.draw(st.sampled_from(WORDS) | st.text(max_size=5) | st.integers().map(str))
    if word.isdecimal() and 1000 < int(word) < 2**31:
        return  # a size may be as large as memory allows

    def checked():
        run = jobs.override(config, {key: word})
        with contextlib.chdir(config.data_dir):  # where other folders of data may be made
            return run, experiments.check(run)

    if result := outcome("one setting of a config", checked):
        run, task = result
        after = flatten_dict(runs.as_json(run), sep=".")
        assert {k for k in before if before[k] != after[k]} <= {key}
        assert is_value(word, after[key])
        variables, loss = jax.eval_shape(task.init, KEY), functools.partial(task.loss, train=True)
        jax.eval_shape(loss, variables, task.example(), KEY)


# --- Bytes ---

JUNK = [b"", b"\0", b"null", b"{}", b"[" * 100_000, b"NaN", b"1e999", b"\xef\xbb\xbf", b"\xff\xfe"]
JUNK += [b'"\\ud83d"', b"\r", b"\n\n", b"-1", b"9" * 30, b'{"a":' * 2_000]
JUNK += [b"\x80\x02Nr\xff\xff\xff\xff."]
JUNKS = st.sampled_from(JUNK) | st.binary(max_size=9)
DAMAGE = {  # kind -> function of the contents, a place in them, and junk
    "cut": lambda data, n, junk: data[:n],
    "headless": lambda data, n, junk: data[n:],
    "zeroed": lambda data, n, junk: data[:n] + bytes(len(data) - n),
    "a flipped bit": lambda data, n, junk: data[:n] + bytes([data[n] ^ 16]) + data[n + 1 :],
    "junk inside": lambda data, n, junk: data[:n] + junk + data[n:],
    "overwritten": lambda data, n, junk: data[:n] + junk + data[n + len(junk) :],
    "twice": lambda data, n, junk: data + data[n:],
    "junk only": lambda data, n, junk: junk,
}
KINDS, PLACES = st.sampled_from(sorted(DAMAGE)), st.floats(0, 1, exclude_max=True)
NAMES = st.sampled_from(sorted(READERS))


def damaged(data: bytes, kind, place, junk) -> bytes:
    return DAMAGE[kind](data, int(place * len(data)), junk) if data else junk


@tries(60)
@given(NAMES, st.sampled_from([*PACKED, ""]), PLACES, KINDS, PLACES, JUNKS)
def test_damaged_originals_are_read_or_raise(name, end, which, kind, place, junk):
    """A file is damaged, or the archive of them all."""
    folder = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch:
        files = dict(READERS[name][0](patch))
        if end:
            source = lay(folder, {f"all{end}": damaged(PACKED[end](files), kind, place, junk)})
            source /= f"all{end}"
        else:
            path = sorted(files)[int(which * len(files))]
            files[path] = damaged(files[path], kind, place, junk)
            source = lay(folder / "source", files)
        done = outcome(
            f"originals, {kind}", lambda: datasets.prepare(name, folder / "data", source) or True
        )
        assert done or not list((folder / "data").glob("*"))
    shutil.rmtree(folder)


# --- Run folders ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with test_runs.open_run(folder, dict(digits="abc")) as run:
        test_runs.write_steps(run, 1, 2)
        test_runs.save(run, 2, 0.5)
        test_runs.write_steps(run, 3, 4)
        test_runs.save(run, 4, 0.25)
    return folder


@tries(15)
@example(which=0.0, kind="junk only", place=0.0, junk=b'"\\ud83d"')
@given(which=PLACES, kind=KINDS, place=PLACES, junk=JUNKS)
def test_damaged_runs_are_resumed_or_raise(folder, which, kind, place, junk):
    """The restored state is one that was saved."""
    copy = Path(tempfile.mkdtemp()) / "run"
    shutil.copytree(folder, copy)
    paths = sorted(path for path in copy.rglob("*") if path.is_file() and path.suffix != ".lock")
    path = paths[int(which * len(paths))]
    path.write_bytes(damaged(path.read_bytes(), kind, place, junk))

    def resumed():
        with test_runs.open_run(copy, dict(digits="abc")) as run:
            restored = run.restore(test_runs.STATE)
            run.start(0)
        return restored

    outcome(f"file of a run, {kind}: read", lambda: (runs.read(copy), runs.read_config(copy)))
    if restored := outcome(f"file of a run, {kind}: resumed", resumed):
        state, _ = restored
        np.testing.assert_array_equal(state["params"]["w"], test_runs.STATE["params"]["w"])
        assert state["step"].tolist() in ([0, 0], [2, 2], [4, 4])
    shutil.rmtree(copy.parent)

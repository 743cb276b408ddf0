"""Vectors of any sentences: what is written of them, and who is nearest to whom."""

import re

import jax
import numpy as np
import pytest

from configs import skip_thoughts as config_file
from experiments.datasets import arrays, vocabulary
from experiments.skip_thoughts import Task
from ln import train
from ln.errors import InputError
from scripts.samples.skip_thoughts import skip_thoughts
from tests.test_scripts import run
from tests.test_skip_thoughts import WORDS, a_text

pytestmark = pytest.mark.slow  # whole commands


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    words = dict(words=vocabulary.join(WORDS))
    arrays.write(folder, "books", dict(train=a_text([60]) | words, valid=a_text([30], 1)), {})
    config = config_file.get_config("tiny")
    config.update(dataset="books", data_dir=str(folder))
    return Task(config)


@pytest.fixture(scope="module")
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_rows_of_the_vectors_are_the_lines_with_something_on_them(task, variables, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("w1 w2 unheard\n\n  w3   w4\r\nw1 w2 w5\n")
    files = skip_thoughts(task, variables, sentences=str(path), count=2, cases=2)
    sentences = ["w1 w2 unheard", "w3 w4", "w1 w2 w5"]
    assert files["sentences.txt"].splitlines() == sentences
    np.testing.assert_allclose(files["vectors.npy"], task.encoder(variables)(sentences), atol=1e-6)
    assert files["vectors.npy"].dtype == np.float32
    assert "3 sentences, 8 words, 12.5% of them not among" in files["neighbours.txt"]


def test_neighbours_are_those_of_the_largest_cosines_each_once(task, variables, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("w1 w2\nw3 <w4>\nw5\nw5\nw6 w7 w8\n")
    files = skip_thoughts(task, variables, sentences=str(path), count=3, cases=1)
    sentences = ["w3 <w4>", "w5", "w6 w7 w8"]
    h = task.encoder(variables)(["w1 w2", *sentences])
    cosines = h[1:] @ h[0]
    order = np.argsort(-cosines)
    first = files["neighbours.txt"].split("Nearest of the run's")[0]
    found = re.findall(r"(-?\d\.\d{3})  (.*)", first)
    assert [sentence for _, sentence in found] == [sentences[n] for n in order]
    np.testing.assert_allclose([float(c) for c, _ in found], cosines[order], atol=6e-4)
    assert "w3 &lt;w4&gt;" in files["neighbours.html"] and "<w4>" not in files["neighbours.html"]


@pytest.mark.parametrize(
    "contents, message",
    [
        (None, "No such file"),
        (b" \n\n", "no sentences"),
        (b"one\ncaf\xe9\n", "line 2 is not UTF-8"),
    ],
    ids=["missing", "blank", "cp1252"],
)
def test_a_file_that_cannot_be_read_is_refused(task, variables, tmp_path, contents, message):
    path = tmp_path / "mine.txt"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(InputError, match=message):
        skip_thoughts(task, variables, sentences=str(path))


def test_the_command_writes_vectors_and_pages(task, tmp_path):
    workdir = tmp_path / "run"
    train.fit(task, task.config, workdir)
    result = run("scripts.sample", "skip_thoughts", f"--workdir={workdir}", "--end", "--count=1")
    assert result.returncode == 0, result.stderr
    vectors = np.load(workdir / "samples" / "vectors.npy")
    assert len(vectors) == len((workdir / "samples" / "sentences.txt").read_text().splitlines())
    assert {p.name for p in (workdir / "samples").iterdir()} == {
        *("vectors.npy", "sentences.txt", "neighbours.txt", "neighbours.html", "samples.json")
    }

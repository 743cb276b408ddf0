"""Vectors of any sentences: what is written of them, and who is nearest to whom."""

import re

import jax
import numpy as np
import pytest

from configs import skip_thoughts as config_file
from experiments.datasets import arrays, vocabulary
from experiments.datasets.vocabulary import UNKNOWN
from experiments.skip_thoughts import samples as module
from experiments.skip_thoughts.task import Task
from ln.errors import InputError
from ln.training import train
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


@pytest.fixture
def sample(task, variables, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)  # several blocks

    def sample(contents=None, **options):
        """The files of sentences ``bytes``; of those of the validation set, if None."""
        path = tmp_path / "mine.txt"
        if contents is not None:
            path.write_bytes(contents)
            options["sentences"] = str(path)
        return module.sample(task, variables, out=tmp_path / "samples", **options)

    return sample


def test_rows_of_the_vectors_are_the_lines_with_something_on_them(task, variables, sample):
    files = sample(b"w1 w2 unheard\n\n  w3   w4\r\nw1 w2 w5\n", count=2, cases=2)
    sentences = ["w1 w2 unheard", "w3 w4", "w1 w2 w5"]
    assert files["sentences.txt"].splitlines() == sentences
    vectors = np.load(files["vectors.npy"])
    np.testing.assert_allclose(vectors, task.encoder(variables)(sentences), atol=1e-6)
    assert vectors.dtype == np.float32


def test_neighbours_are_those_of_the_largest_cosines_each_once(task, variables, sample):
    files = sample(b"w1 w2\nw3 <w4>\nw5\nw5\nw6 w7 w8\nw9 w3\nw5 w1\n", count=4, cases=1)
    sentences = ["w3 <w4>", "w5", "w6 w7 w8", "w9 w3", "w5 w1"]
    h = task.encoder(variables)(["w1 w2", *sentences])
    cosines = h[1:] @ h[0]
    order = np.argsort(-cosines)[:4]
    first = files["neighbours.txt"].split("Nearest of the run's")[0]
    found = re.findall(r"(-?\d\.\d{3})  (.*)", first)
    assert [sentence for _, sentence in found] == [sentences[n] for n in order]
    np.testing.assert_allclose([float(c) for c, _ in found], cosines[order], atol=6e-4)


def test_words_that_the_model_does_not_know_are_shown_and_counted(sample):
    files = sample(b"W1 <unheard> w2\nw3 w4\nw5 w6 w7 w8", cases=2)
    page, text = files["neighbours.html"], files["neighbours.txt"]
    assert "3 sentences, 11 words, 27.3% of them not among" in text  # < and > are words as well
    assert text.count("Read as") == 1 and "  Read as: w1 ? ? ? w2\n" in text
    unknown = "<mark>?</mark>"
    assert f"<p>Read as: w1 {unknown} {unknown} {unknown} w2</p>" in page
    assert "W1 &lt;unheard&gt; w2" in page and "<unheard>" not in page


def test_a_word_that_the_data_do_not_know_is_no_question_mark(task, variables):
    split = dict(tokens=np.array([2, UNKNOWN, 3]), starts=np.array([0, 3]))
    (sentence,) = module.of_split(task, split, 1)
    assert module.read_as(sentence, {*task.words, "?"}) == f"w0 {module.LOST} w1"


@pytest.mark.parametrize(
    "contents, message",
    [
        (None, "No such file"),
        (b" \n\n", "no sentences"),
        (b"one\ncaf\xe9\n", "line 2 is not UTF-8"),
    ],
    ids=["missing", "blank", "cp1252"],
)
def test_a_file_that_cannot_be_read_is_refused(sample, tmp_path, contents, message):
    with pytest.raises(InputError, match=message):
        sample(contents, **({} if contents else dict(sentences=str(tmp_path / "none.txt"))))
    assert not (tmp_path / "samples").exists()


def test_of_encoding_that_breaks_off_nothing_is_left(sample, tmp_path, monkeypatch):
    def broken(words, unknown):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "share", broken)
    with pytest.raises(KeyboardInterrupt):
        sample(b"w1\nw2\nw3\n")
    assert not any((tmp_path / "samples").iterdir())


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

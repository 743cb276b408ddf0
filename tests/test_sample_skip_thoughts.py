"""Vectors of any sentences, and their nearest neighbours."""

import io
import re

import numpy as np
import pytest

from configs import skip_thoughts as config_file
from experiments.datasets import arrays, vocabulary
from experiments.datasets.vocabulary import UNKNOWN
from experiments.skip_thoughts import samples as module
from experiments.skip_thoughts.task import Task
from ln.errors import InputError
from tests.test_skip_thoughts import WORDS, a_text


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    words = dict(words=vocabulary.join(WORDS))
    arrays.write(folder, "books", dict(train=a_text([60]) | words, valid=a_text([30], 1)), {})
    config = config_file.get_config("tiny")
    config.update(dataset="books", data_dir=str(folder))
    return Task(config)


@pytest.fixture
def sample(task, variables, tmp_path):
    def sample(contents: bytes, **options):
        path = tmp_path / "mine.txt"
        path.write_bytes(contents)
        options = dict(sentences=str(path)) | options
        return module.sample(task, variables, module.Options(**options))

    return sample


def test_rows_of_the_vectors_are_the_lines_with_words(task, variables, sample):
    files = sample(b"\xef\xbb\xbfw1 w2 unheard\n\n  w3   w4\r\nw1 w2 w5\n", count=2, cases=2)
    sentences = ["w1 w2 unheard", "w3 w4", "w1 w2 w5"]
    assert files["sentences.txt"].splitlines() == sentences
    vectors = np.load(io.BytesIO(files["vectors.npy"]))
    np.testing.assert_allclose(vectors, task.encoder(variables)(sentences), atol=1e-6)
    assert vectors.dtype == np.float32


def test_neighbours_have_the_largest_cosines_each_once(task, variables, sample):
    files = sample(b"w1 w2\nw3 <w4>\nw5\nw5\nw6 w7 w8\nw9 w3\nw5 w1\n", count=4, cases=1)
    sentences = ["w3 <w4>", "w5", "w6 w7 w8", "w9 w3", "w5 w1"]
    h = task.encoder(variables)(["w1 w2", *sentences])
    cosines = h[1:] @ h[0]
    order = np.argsort(-cosines)[:4]
    first = files["neighbours.txt"].split("Nearest of the run")[0]
    rows = re.findall(r"(-?\d\.\d{3})   (.*)", first)
    assert [sentence for _, sentence in rows] == [sentences[n] for n in order]
    np.testing.assert_allclose([float(c) for c, _ in rows], cosines[order], atol=6e-4)


def test_unknown_words_are_shown_and_counted(sample):
    files = sample(b"W1 <unheard> w2\nw3 w4\nw5 w6 w7 w8", cases=2)
    page, text = files["neighbours.html"], files["neighbours.txt"]
    assert "3 sentences; 27.3% of their words are not" in text  # < and > are words as well
    assert text.count("Read as") == 1 and "  Read as: w1 □ □ □ w2\n" in text
    assert "<p>Read as: w1 □ □ □ w2</p>" in page
    assert "W1 &lt;unheard&gt; w2" in page and "<unheard>" not in page


def test_an_unknown_word_of_the_data_is_no_question_mark(task):
    split = dict(tokens=np.array([2, UNKNOWN, 3]), starts=np.array([0, 3]))
    (sentence,) = module.sentences_in(task, split, 1)
    assert module.as_read(sentence, {*task.words, "?"}) == ["w0", module.LOST, "w1"]


@pytest.mark.parametrize(
    "contents, options, message",
    [
        (b"", dict(sentences="none.txt"), "No such file"),
        (b" \n\n", {}, "has no text"),
        (b"one\ncaf\xe9\n", {}, "line 2: .* is not UTF-8"),
        (b"one", dict(split="vlid"), "Did you mean 'valid'"),
    ],
)
def test_an_unreadable_file_raises(sample, contents, options, message):
    with pytest.raises(InputError, match=message):
        sample(contents, **options)

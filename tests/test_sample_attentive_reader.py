"""Where the attentive reader looks: whose weights and guesses are shown, and how."""

import io
import json
import re

import jax
import numpy as np
from PIL import Image
import pytest

from configs import attentive_reader as config_file
import experiments
from experiments.attentive_reader import samples as samples
from experiments.attentive_reader.samples import (
    CELL,
    COLUMNS,
    INK,
    LINE,
    MARGIN,
    RIGHT,
    WRONG,
    Paragraph,
    Question,
    Word,
    answered,
    html,
    paragraph,
    paragraphs,
    picture,
    placed,
    sample,
)
from experiments.datasets import vocabulary
from ln.errors import InputError
from ln.training import train
from tests.test_scripts import run

pytestmark = pytest.mark.slow  # pictures and whole commands

FILES = ["attention.png", "attention.html"]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    config = config_file.get_config("tiny")
    config.data_dir = str(tmp_path_factory.mktemp("data"))
    return experiments.load(config)


@pytest.fixture(scope="module")
def workdir(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reader"
    train.fit(task, task.config, folder)
    return folder


@pytest.fixture(scope="module")
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


def question(answer="@entity1"):
    passage = ["@entity1", "<b>", "&", "@entity2", "$x$"]
    weights = np.array([0.5, 0.25, 0.0, 0.25, 0.0])
    guesses = [("@entity2", 0.75), ("@entity1", 0.125)]
    return Question("test 7", passage, weights, ["who", "?"], answer, guesses)


# --- What is shown ---


def test_every_question_has_the_words_weights_and_guesses_of_its_own(task, variables):
    split, names = task.splits["valid"], vocabulary.split(task.splits["train"]["words"])
    found = answered(task, variables, "valid", cases=3, count=4)
    numbers = [int(one.name.removeprefix("valid ")) for one in found]
    assert len(set(numbers)) == 3 and numbers == sorted(numbers)

    T = max(len(one.passage) for one in found) + 1  # padded otherwise, and beside others
    logits, alpha = task.read(variables, task.cases(task.splits["valid"], np.array(numbers), T))
    for b, (n, one) in enumerate(zip(numbers, found, strict=True)):
        for words, text in ((one.passage, "passage"), (one.words, "question")):
            first, end = split[f"{text}_starts"][n : n + 2]
            assert " ".join(words) == vocabulary.decode(split[f"{text}s"][first:end], names)
        assert one.answer == vocabulary.decode([split["answers"][n]], names)
        np.testing.assert_allclose(one.weights, alpha[: len(one.passage), b], atol=1e-5)
        p = np.exp(np.asarray(logits[b], np.float64))
        best = np.argsort(-p)[:4]
        assert [word for word, _ in one.guesses] == [["(end)", "?", *names][k] for k in best]
        assert [chance for _, chance in one.guesses] == pytest.approx(p[best] / p.sum(), rel=1e-4)


def test_the_answer_is_green_and_a_wrong_guess_red():
    head, words, passage, largest, *guesses = paragraphs(question())
    assert {word.ink for word in head.words} == {WRONG} and head.words[-1].text == "@entity1"
    assert [word.ink for word in passage.words] == [RIGHT, INK, INK, WRONG, INK]
    assert [word.shade for word in passage.words] == [1, 0.5, 0, 0.5, 0]
    assert [line.words[1].ink for line in guesses] == [WRONG, RIGHT]
    assert " ".join(w.text for w in largest.words).startswith("The largest weight is 0.500, 2.5")

    head, _, passage, _, *guesses = paragraphs(question(answer="@entity2"))
    assert {word.ink for word in head.words} == {RIGHT}
    assert [word.ink for word in passage.words] == [INK, INK, INK, RIGHT, INK]
    assert [line.words[1].ink for line in guesses] == [RIGHT, INK]


# --- Pages ---


def test_the_page_has_every_word_escaped_on_a_ground_of_its_weight():
    page = html(paragraphs(question()))
    assert "<b>" not in page and "<script" not in page and "http" not in page
    passage = re.findall(r"<p>.+</p>", page)[1]
    assert passage.startswith(f'<p><span style="color:{RIGHT}; background:#ffa528">@entity1</span>')
    assert '<span style="background:#ffd294">&lt;b&gt;</span> &amp;' in passage  # half of it
    assert passage.endswith("</span> $x$</p>")


def test_words_are_laid_out_in_lines_and_never_cut():
    text = 40 * "@entity1 a " + "x" * (COLUMNS + 5) + " b"
    words = placed([paragraph("h1", "title"), paragraph("p", text), paragraph("div", "c")])
    assert [w.word.text for w in words] == ["title", *text.split(), "c"]
    assert words[0][:2] == (0, 0) and words[1][:2] == (0, 2)  # a free line before a paragraph
    for before, after in zip(words[1:-1], words[2:-1], strict=False):
        column = before.column + len(before.word.text) + 1
        fits = column + len(after.word.text) <= COLUMNS
        assert after[:2] == ((column, before.row) if fits else (0, before.row + 1))
    assert words[-1][:2] == (0, words[-2].row + 1)


def test_the_picture_has_the_shade_behind_the_word():
    page = [Paragraph("p", [Word("aaaa"), Word("....", shade=1.0), Word("bb", shade=0.5)])]
    pixels = np.asarray(Image.open(io.BytesIO(picture(page))).convert("RGB")).astype(int)
    for column, width, color in ((5, 4, (255, 165, 40)), (10, 2, (255, 210, 148))):
        rows, columns = np.nonzero((pixels == color).all(-1))
        left = MARGIN + column * CELL
        assert (rows.min(), rows.max() + 1) == pytest.approx((MARGIN, MARGIN + LINE), abs=1)
        assert (columns.min(), columns.max() + 1) == pytest.approx(
            (left, left + width * CELL), abs=1.5
        )


def test_many_questions_make_no_larger_picture(monkeypatch):
    monkeypatch.setattr(samples, "LARGEST", 200)
    pixels = np.asarray(Image.open(io.BytesIO(picture([paragraph("p", "word")] * 20))))
    assert max(pixels.shape) <= 200


# --- The command ---


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(split="tset"), "Did you mean 'test'"),
        (dict(cases=100_000), "--cases=100000: the split 'test' has [0-9]+ questions"),
    ],
    ids=["split", "cases"],
)
def test_what_there_is_not_is_refused(task, variables, options, message):
    with pytest.raises(InputError, match=message):
        sample(task, variables, **options)


def test_the_command_writes_the_files_and_says_what_they_are_of(workdir):
    words = ("attentive_reader", f"--workdir={workdir}", "--split=valid", "--cases=2", "--count=3")
    done = run("scripts.sample", *words)
    assert done.returncode == 0, done.stderr
    folder = workdir / "samples"
    assert {path.name for path in folder.iterdir()} == {*FILES, "samples.json"}
    assert json.loads((folder / "samples.json").read_text())["files"] == FILES
    page = (folder / "attention.html").read_text()
    assert page.count("<h2>") == 2 and page.count("<div>") == 6

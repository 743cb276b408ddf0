"""The page of the attentive reader: whose weights and guesses are shown, and how."""

import re

import jax
import numpy as np
import pytest

from configs import attentive_reader as config_file
import experiments
from experiments.attentive_reader.samples import Options, Question, answered, section
from experiments.datasets import vocabulary
from experiments.pictures import BAD, GOOD, Page, html


def question(answer="@entity1"):
    passage = ["@entity1", "<b>", "&", "@entity2", "$x$"]
    weights = np.array([0.5, 0.25, 0.0, 0.25, 0.0])
    guesses = [("@entity2", 0.75), ("@entity1", 0.125)]
    return Question("test 7", passage, weights, ["who", "?"], answer, guesses)


def test_every_question_has_its_words_weights_and_guesses(tmp_path):
    config = config_file.get_config("tiny")
    config.data_dir = str(tmp_path)
    task = experiments.load(config)
    variables = jax.jit(task.init)(jax.random.key(0))
    split, names = task.splits["valid"], vocabulary.split(task.splits["train"]["words"])
    questions = answered(task, variables, Options(split="valid", cases=3, count=4))
    numbers = [int(q.name.removeprefix("valid ")) for q in questions]
    assert len(set(numbers)) == 3 and numbers == sorted(numbers)

    T = max(len(q.passage) for q in questions) + 1  # padded otherwise, in another batch
    logits, alpha = task.read(variables, task.cases(split, np.array(numbers), T))
    for b, (n, q) in enumerate(zip(numbers, questions, strict=True)):
        for words, text in ((q.passage, "passage"), (q.words, "question")):
            first, end = split[f"{text}_starts"][n : n + 2]
            assert " ".join(words) == vocabulary.decode(split[f"{text}s"][first:end], names)
        assert q.answer == vocabulary.decode([split["answers"][n]], names)
        np.testing.assert_allclose(q.weights, alpha[: len(q.passage), b], atol=1e-5)
        p = np.exp(np.asarray(logits[b], np.float64))
        best = np.argsort(-p)[:4]
        assert [word for word, _ in q.guesses] == [["(end)", "?", *names][k] for k in best]
        assert [chance for _, chance in q.guesses] == pytest.approx(p[best] / p.sum(), rel=1e-4)


@pytest.mark.parametrize(
    "answer, title, marks, guesses",
    [
        ("@entity1", BAD, [GOOD, "", "", BAD, ""], [BAD, GOOD]),
        ("@entity2", GOOD, ["", "", "", GOOD, ""], [GOOD, ""]),
    ],
)
def test_the_answer_and_a_wrong_guess_are_marked(answer, title, marks, guesses):
    shown = section(question(answer))
    _, passage, (largest,) = shown.paragraphs
    assert shown.title.mark == title
    assert [word.mark for word in passage] == marks
    assert [word.shade for word in passage] == [1, 0.5, 0, 0.5, 0]
    assert [item.text.mark for item in shown.lists[0][1]] == guesses
    assert largest.text.startswith("The largest weight is 0.500, 2.5 times")


def test_the_page_has_every_word_escaped_on_its_shade():
    page = html(Page("title", "about", [section(question())]))
    assert "<b>" not in page and "<script" not in page and "http" not in page
    passage = re.findall(r"<p>.+</p>", page)[1]
    assert '<span class="good" style="background:rgb(255 165 40/100.0%)">@entity1<' in passage
    assert '<span style="background:rgb(255 165 40/50.0%)">&lt;b&gt;</span> &amp;' in passage
    assert passage.endswith("</span> $x$</p>")

"""The page of the attentive reader: whose weights and guesses are shown, and how."""

import re

import jax
import numpy as np
import pytest

from configs import attentive_reader as config_file
import experiments
from experiments.attentive_reader.samples import Options, answered, section
from experiments.datasets import vocabulary
from experiments.pictures import BAD, GOOD, html


def shown_question(answer="@entity1"):
    passage = ["@entity1", "<b>", "&", "@entity2", "$x$"]
    weights = np.array([0.5, 0.25, 0.0, 0.25, 0.0])
    guesses = [("@entity2", 0.75), ("@entity1", 0.125)]
    return section("test 7", ["who", "?"], passage, weights, answer, guesses)


def test_every_question_has_its_words_weights_and_guesses(tmp_path):
    config = config_file.get_config("tiny")
    config.data_dir = str(tmp_path)
    task = experiments.load(config)
    variables = jax.jit(task.init)(jax.random.key(0))
    split, names = task.splits["valid"], vocabulary.split(task.splits["train"]["words"])
    shown = answered(task, variables, Options(split="valid", cases=3, count=4))
    numbers = [int(page.title.text.split()[1].rstrip(":")) for page in shown]
    assert len(set(numbers)) == 3 and numbers == sorted(numbers)

    T = int(task.lengths["valid"][numbers].max()) + 1  # padded otherwise, in another batch
    logits, alpha = task.read(variables, task.cases(split, np.array(numbers), T))
    for b, (n, page) in enumerate(zip(numbers, shown, strict=True)):
        question, passage, _ = page.paragraphs
        for words, text in ((passage, "passage"), (question, "question")):
            first, end = split[f"{text}_starts"][n : n + 2]
            written = vocabulary.decode(split[f"{text}s"][first:end], names)
            assert " ".join(word.text for word in words) == written
        answer = vocabulary.decode([split["answers"][n]], names)
        assert page.title.text.endswith(("right", f"wrong, it is {answer}"))
        weights = alpha[: len(passage), b]
        shades = [word.shade for word in passage]
        np.testing.assert_allclose(shades, weights / weights.max(), atol=1e-4)
        p = np.exp(np.asarray(logits[b], np.float64))
        best, ((_, guesses),) = np.argsort(-p)[:4], page.lists
        assert [item.text.text for item in guesses] == [["(end)", "?", *names][k] for k in best]
        chances = [float(item.number) for item in guesses]
        assert chances == pytest.approx(p[best] / p.sum(), abs=6e-5)


@pytest.mark.parametrize(
    "answer, title, marks, guesses",
    [
        ("@entity1", BAD, [GOOD, "", "", BAD, ""], [BAD, GOOD]),
        ("@entity2", GOOD, ["", "", "", GOOD, ""], [GOOD, ""]),
    ],
)
def test_the_answer_and_a_wrong_guess_are_marked(answer, title, marks, guesses):
    shown = shown_question(answer)
    _, passage, (largest,) = shown.paragraphs
    assert shown.title.mark == title
    assert [word.mark for word in passage] == marks
    assert [word.shade for word in passage] == [1, 0.5, 0, 0.5, 0]
    assert [item.text.mark for item in shown.lists[0][1]] == guesses
    assert largest.text.startswith("The largest weight is 0.500, 2.5 times")


def test_the_page_has_every_word_escaped_on_its_shade():
    page = html("title", "about", [shown_question()])
    assert "<b>" not in page and "<script" not in page and "http" not in page
    passage = re.findall(r"<p>.+</p>", page)[1]
    assert '<span class="good" style="background:rgb(255 165 40/100.0%)">@entity1<' in passage
    assert '<span style="background:rgb(255 165 40/50.0%)">&lt;b&gt;</span> &amp;' in passage
    assert passage.endswith("</span> $x$</p>")

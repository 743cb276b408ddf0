"""Show where the attentive reader looks for an answer, and what it answers.

python -m scripts.sample attentive_reader --workdir=runs/x --split=valid

attention.html   questions, each with its passage, in which a word's background is the darker
                 the more attention it gets, and the first guesses at its answer
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from experiments.datasets import vocabulary
from experiments.pictures import BAD, GOOD, QUIET, Item, Page, Section, Text, html, option
from ln.errors import InputError, choose

ABOUT = (
    "The darker the background of a word, the more attention it gets; the darkest gets the most of "
    "its passage. Blue and bold: the answer. Red: the first guess, if it is wrong."
)


@dataclasses.dataclass(frozen=True)
class Options:
    split: str = option("test", "split of the questions")
    cases: int = option(6, "questions", lower_bound=1)
    count: int = option(5, "guesses of each question", lower_bound=1)


class Question(NamedTuple):
    """A question, and how it was answered.

    Attributes:
        name: its split and number.
        passage: its words.
        weights: the attention to each of them.
        words: of the question.
        answer: the right one.
        guesses: words with their probabilities, the most probable first.
    """

    name: str
    passage: list[str]
    weights: np.ndarray
    words: list[str]
    answer: str
    guesses: list[tuple[str, float]]


def sample(task, variables, options: Options) -> dict[str, str]:
    """Return the files by name.

    Args:
        variables: of one lane.

    Raises:
        InputError: no such split, or it has fewer questions.
    """
    sections = [section(question) for question in answered(task, variables, options)]
    title = f"The attention of the attentive reader: {options.split}"
    return {"attention.html": html(Page(title, ABOUT, sections))}


def answered(task, variables, options: Options) -> list[Question]:
    """Return questions, spread evenly over a split, with the model's guesses."""
    split, wanted = options.split, options.cases
    N = len(choose("split", split, task.splits)["answers"])
    if wanted > N:
        raise InputError(f"--cases={wanted}: the split {split!r} has {N} questions.")
    # Batch norm may take its statistics from the batch, so as many are read as in training.
    B = min(N, max(wanted, task.config.batch_size))
    numbers = np.arange(B) * N // B
    batch = task.cases(task.splits[split], numbers, int(task.lengths[split][numbers].max()))
    logits, alpha = map(np.asarray, task.read(variables, batch))
    names = ["(end)", "?", *vocabulary.split(task.splits["train"]["words"])]

    def words(text: str, b: int) -> list[str]:
        return [names[k] for k in batch[text][b, : batch[f"{text}_length"][b]]]

    def question(b: int) -> Question:
        p = np.exp(logits[b] - logits[b].max())
        p /= p.sum()
        best = np.argsort(-p, kind="stable")[: options.count]
        passage = words("passage", b)
        return Question(
            name=f"{split} {numbers[b]}",
            passage=passage,
            weights=alpha[: len(passage), b],
            words=words("question", b),
            answer=names[batch["answer"][b]],
            guesses=[(names[k], float(p[k])) for k in best],
        )

    return [question(b) for b in np.arange(wanted) * B // wanted]


def section(question: Question) -> Section:
    """Return what the page shows of a question."""
    guess, answer, weights = question.guesses[0][0], question.answer, question.weights
    marks = {guess: BAD} | {answer: GOOD}  # a right guess is good
    shades = (weights / weights.max()).tolist()
    passage = [
        Text(word, marks.get(word, ""), shade)
        for word, shade in zip(question.passage, shades, strict=True)
    ]
    ratio = weights.max() / weights.mean()
    largest = f"The largest weight is {weights.max():.3f}, {ratio:.1f} times their mean."
    verdict = "right" if guess == answer else f"wrong, it is {answer}"
    return Section(
        title=Text(f"{question.name}: {verdict}", marks[guess]),
        paragraphs=[[Text(word) for word in question.words], passage, [Text(largest, QUIET)]],
        lists=[
            (
                "First guesses, and their probabilities",
                [Item(f"{p:.4f}", Text(word, marks.get(word, ""))) for word, p in question.guesses],
            )
        ],
    )

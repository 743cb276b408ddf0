"""Where the attentive reader looks for an answer, and what it answers."""

from html import escape
import itertools
from typing import NamedTuple

import numpy as np

from experiments.datasets import vocabulary
from experiments.pictures import DPI, POINT, png
from ln.errors import InputError, choose

# Lengths of the picture are in pixels.
COLUMNS = 100  # characters of a line
FONT, LINE, MARGIN = 13, 20, 16
CELL = 0.602 * FONT  # width of a character, all of them alike in matplotlib's DejaVu Sans Mono
LARGEST = 10_000  # a PNG beyond this is made smaller

INK, GREY, RIGHT, WRONG = "#101010", "#606060", "#0a6b1e", "#b01010"
SHADE = np.array([255, 165, 40])  # behind the word of the largest weight; white behind one of 0

LEGEND = (
    "The darker the ground of a word, the more attention it gets; the darkest gets the most of "
    "its passage. Green: the answer. Red: the first guess, where it is wrong."
)


class Question(NamedTuple):
    """A question, and how it was answered.

    Attributes:
        name: which one it is.
        passage: its words.
        weights: the attention to each of them.
        words: of the question itself.
        answer: the right one.
        guesses: words with their probabilities, the most probable first.
    """

    name: str
    passage: list[str]
    weights: np.ndarray
    words: list[str]
    answer: str
    guesses: list[tuple[str, float]]

    @property
    def guess(self) -> str:
        return self.guesses[0][0]

    def ink(self, word: str) -> str:
        """The color that a word is written in."""
        return {self.guess: WRONG, self.answer: RIGHT}.get(word, INK)  # the later entry counts


class Word(NamedTuple):
    """A word on a page; the nearer its shade is to 1, the darker is the ground behind it."""

    text: str
    ink: str = INK
    shade: float = 0.0

    @property
    def ground(self) -> str:
        red, green, blue = np.round(255 + self.shade * (SHADE - 255)).astype(int)
        return f"#{red:02x}{green:02x}{blue:02x}"


class Paragraph(NamedTuple):
    """Words, and what element of HTML they are."""

    element: str
    words: list[Word]


def sample(
    task, variables, *, count: int = 5, split: str = "test", cases: int = 6
) -> dict[str, bytes | str]:
    """Returns the files by name.

    Args:
        variables: of one lane.
        count: guesses of each question.
        split: where the questions are from.
        cases: how many of them.

    Raises:
        InputError: no such split, or it has fewer questions.
    """
    questions = answered(task, variables, split, cases, count)
    page = [paragraph("h1", f"What the attentive reader looks at: {split}"), paragraph("p", LEGEND)]
    for question in questions:
        page += paragraphs(question)
    return {"attention.png": picture(page), "attention.html": html(page)}


def answered(task, variables, split: str, cases: int, count: int) -> list[Question]:
    """Some questions, spread evenly over a split, see `attentive_reader`."""
    N = len(choose("split", split, task.splits)["answers"])
    if cases > N:
        raise InputError(f"--cases={cases}: the split {split!r} has {N} questions.")
    # Batch norm may take its statistics from the batch: others are read as well.
    B = min(N, max(cases, task.config.batch_size))
    numbers = np.arange(B) * N // B
    T = int(task.lengths[split][numbers].max())
    batch = task.cases(task.splits[split], numbers, T)
    logits, alpha = map(np.asarray, task.read(variables, batch))

    names = ["(end)", "?", *vocabulary.split(task.splits["train"]["words"])]
    found = []
    for b in np.arange(cases) * B // cases:
        passage, question = (
            [names[k] for k in batch[text][b, : batch[f"{text}_length"][b]]]
            for text in ("passage", "question")
        )
        p = np.exp(logits[b] - logits[b].max())
        p /= p.sum()
        guesses = [(names[k], float(p[k])) for k in np.argsort(-p, kind="stable")[:count]]
        found.append(
            Question(
                f"{split} {numbers[b]}",
                passage,
                alpha[: len(passage), b],
                question,
                names[batch["answer"][b]],
                guesses,
            )
        )
    return found


# --- Pages ---


def paragraph(element: str, text: str, ink: str = INK) -> Paragraph:
    return Paragraph(element, [Word(word, ink) for word in text.split()])


def paragraphs(question: Question) -> list[Paragraph]:
    """What a page says of a question."""
    right, weights = question.guess == question.answer, question.weights
    passage = [
        Word(word, question.ink(word), shade)
        for word, shade in zip(question.passage, weights / weights.max(), strict=True)
    ]
    verdict = "right" if right else f"wrong, it is {question.answer}"
    return [
        paragraph("h2", f"{question.name}: {verdict}", RIGHT if right else WRONG),
        Paragraph("p", [Word(word) for word in question.words]),
        Paragraph("p", passage),
        paragraph(
            "p",
            f"The largest weight is {weights.max():.3f}, {weights.max() / weights.mean():.1f} "
            f"times their mean. The first guesses and their probabilities:",
            GREY,
        ),
        *(
            Paragraph("div", [Word(f"{p:.4f}", GREY), Word(word, question.ink(word))])
            for word, p in question.guesses
        ),
    ]


HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>What the attentive reader looks at</title>
<style>
body { max-width: 50em; margin: 2em auto; padding: 0 1em; background: #fff; color: #101010;
  font: 16px/1.6 sans-serif; }
h1 { font-size: 1.4em; }
h2 { font-size: 1.1em; margin-top: 2.5em; border-top: 1px solid #ccc; padding-top: 1em; }
</style>
"""


def html(page: list[Paragraph]) -> str:
    """A page as a file of its own, without scripts."""

    def style(word: Word) -> str:
        found = [f"color:{word.ink}"] if word.ink != INK else []
        found += [f"background:{word.ground}"] if word.shade > 0 else []
        return "; ".join(found)

    def spans(words: list[Word]) -> str:
        found = []
        for css, alike in itertools.groupby(words, style):
            text = escape(" ".join(word.text for word in alike))
            found.append(f'<span style="{css}">{text}</span>' if css else text)
        return " ".join(found)

    lines = [f"<{element}>{spans(words)}</{element}>" for element, words in page]
    return HEAD + "\n".join([*lines, "</html>\n"])


class Placed(NamedTuple):
    """A word of a page, the column and the row that it begins at."""

    column: int
    row: int
    word: Word


def placed(page: list[Paragraph]) -> list[Placed]:
    """The words of all paragraphs in lines of COLUMNS characters, with a free line before each that
    is no "div"."""
    found, row = [], -2
    for element, words in page:
        row += 1 if element == "div" else 2
        column = 0
        for word in words:
            if column and column + len(word.text) > COLUMNS:
                column, row = 0, row + 1
            found.append(Placed(column, row, word))
            column += len(word.text) + 1
    return found


def picture(page: list[Paragraph]) -> bytes:
    """A page as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    words = placed(page)
    width = 2 * MARGIN + CELL * max(COLUMNS, *(column + len(w.text) for column, _, w in words))
    height = 2 * MARGIN + LINE * (words[-1].row + 1)
    zoom = min(1, LARGEST / max(width, height))
    figure = Figure(figsize=(width * zoom / DPI, height * zoom / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    font = dict(family="DejaVu Sans Mono", fontsize=FONT * POINT * zoom, parse_math=False)
    for column, row, word in words:
        x, y = MARGIN + column * CELL, MARGIN + row * LINE
        if word.shade > 0:
            ground = Rectangle((x, y), len(word.text) * CELL, LINE, color=word.ground, linewidth=0)
            axes.add_patch(ground)
        axes.text(x, y + 0.75 * LINE, word.text, color=word.ink, **font)
    return png(figure)

"""Show where the attentive reader looks for an answer, and what it answers.

python -m scripts.sample attentive_reader --workdir=runs/x --split=valid

attention.html   questions, each with its passage, in which a word's background is the darker
                 the more attention it gets, and the first guesses at its answer
"""

import dataclasses

import numpy as np

from experiments.datasets import vocabulary
from experiments.pictures import BAD, GOOD, QUIET, Item, Section, Text, html, option
from ln.errors import choose

ABOUT = (
    "The darker the background of a word, the more attention it gets; the darkest gets the most of "
    "its passage. Blue and bold: the answer. Red: the first guess, if it is wrong."
)


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command."""

    split: str = option("test", "split of the questions")
    cases: int = option(6, "questions", lower_bound=1)
    count: int = option(5, "guesses of each question", lower_bound=1)


def sample(task, variables, options: Options) -> dict[str, str]:
    """Return the files by name.

    Args:
        task: of the run.
        variables: of one lane.
        options: the flags.

    Raises:
        InputError: no such split, or it has fewer questions.
    """
    title = f"The attention of the attentive reader: {options.split}"
    return {"attention.html": html(title, ABOUT, answered(task, variables, options))}


def answered(task, variables, options: Options) -> list[Section]:
    """Return questions, spread evenly over a split, with the model's guesses."""
    from experiments.tasks import spread

    split, wanted = options.split, options.cases
    arrays = choose("split", split, task.splits)
    N = len(arrays["answers"])
    # Batch norm may take its statistics from the batch, so as many are read as in training.
    B = max(wanted, min(N, task.config.batch_size))
    numbers = spread(N, B, f"the split {split!r} has {N} questions")
    batch = task.cases(arrays, numbers, int(task.lengths[split][numbers].max()))
    logits, alpha = map(np.asarray, task.read(variables, batch))
    names = ["(end)", "?", *vocabulary.split(task.splits["train"]["words"])]

    def words(text: str, b: int) -> list[str]:
        return [names[k] for k in batch[text][b, : batch[f"{text}_length"][b]]]

    sections = []
    for b in np.arange(wanted) * B // wanted:
        p = np.exp(logits[b] - logits[b].max())
        p /= p.sum()
        best = np.argsort(-p, kind="stable")[: options.count]
        guesses = [(names[k], float(p[k])) for k in best]
        passage, answer = words("passage", b), names[batch["answer"][b]]
        weights, name = alpha[: len(passage), b], f"{split} {numbers[b]}"
        sections.append(section(name, words("question", b), passage, weights, answer, guesses))
    return sections


def section(
    name: str,
    question: list[str],
    passage: list[str],
    weights: np.ndarray,
    answer: str,
    guesses: list[tuple[str, float]],
) -> Section:
    """Return what the page shows of a question.

    Args:
        name: its split and number.
        question: its words.
        passage: the words of its passage.
        weights: the attention to each of them.
        answer: the right one.
        guesses: words with their probabilities, the most probable first.
    """
    guess, mean = guesses[0][0], weights.mean()
    marks = {guess: BAD} | {answer: GOOD}  # a right guess is good
    shades = (weights / weights.max()).tolist()
    shaded = zip(passage, shades, strict=True)
    largest = f"The largest weight is {weights.max():.3f}, {weights.max() / mean:.1f} times their "
    verdict = "right" if guess == answer else f"wrong, it is {answer}"
    guessed = [Item(f"{p:.4f}", Text(word, marks.get(word, ""))) for word, p in guesses]
    return Section(
        title=Text(f"{name}: {verdict}", marks[guess]),
        paragraphs=[
            [Text(word) for word in question],
            [Text(word, marks.get(word, ""), shade) for word, shade in shaded],
            [Text(f"{largest}mean.", QUIET)],
        ],
        lists=[("First guesses, and their probabilities", guessed)],
    )

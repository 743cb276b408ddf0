"""Neighbours of images and captions: which are listed, and what raises."""

import re

import numpy as np
import pytest

from experiments.datasets import vocabulary
from experiments.order_embeddings.samples import Options, captions_of, sample
from tests.learning import tiny_task

N = 20  # images of a fold


@pytest.fixture(scope="module")
def task(data_dir):
    return tiny_task("order_embeddings", data_dir)


@pytest.fixture(scope="module")
def energies(task, variables):
    """Return the energies of captions and images of the first fold of the test set ``[5 N, N]``."""
    s, v = (np.asarray(x, np.float64) for x in task.points(variables, task.fold("test", 0, N)))
    return np.stack([(np.maximum(caption - v, 0) ** 2).sum(1) for caption in s])


@pytest.fixture(scope="module")
def said(task):
    """Return the captions of that fold, in words."""
    words = vocabulary.split(task.splits["train"]["words"])
    return captions_of(task.splits["test"], N, words)[0]


@pytest.fixture
def answers(task, variables):
    """Return a function: options -> what neighbours.txt says, {title: [(place, E, own, name)]}."""

    def answers(**options):
        page, title, rows = sample(task, variables, Options(**options))["neighbours.txt"], "", {}
        for line in page.splitlines():
            if match := re.fullmatch(r" +(\d+) +(-?[\d.]+) ([ *]) (.+)", line):
                place, energy, star, name = match.groups()
                rows.setdefault(title, []).append((int(place), float(energy), star == "*", name))
            elif not line.startswith("  "):
                title = line
        return rows

    return answers


def number(name):
    """Return the number of an image: "image 7 (a three)" -> 7."""
    return int(re.match(r"image (\d+) \(", name).group(1))


def test_captions_near_an_image_have_the_least_energies(answers, energies, said):
    rows_of = answers(count=7, cases=3)
    images = {title: rows for title, rows in rows_of.items() if title.startswith("image")}
    assert len(images) == 3
    for title, rows in images.items():
        n = number(title)
        own = said[5 * n : 5 * n + 5]
        assert title == f"image {n} ({own[-1]})"
        E = {caption: energies[said.index(caption), n] for caption in said}  # each once
        expected = sorted(E, key=E.get)
        assert [name for _, _, _, name in rows[:7]] == expected[:7]
        for place, energy, star, name in rows:
            assert name == expected[place - 1] and star == (name in own)
            assert energy == pytest.approx(E[name], abs=1e-5)
        assert any(star for _, _, star, _ in rows)


def test_images_near_a_caption_have_the_least_energies(answers, energies, said):
    asked = {t: rows for t, rows in answers(count=4, cases=N).items() if not t.startswith("image")}
    assert 10 < len(asked) <= N and set(asked) <= set(said)
    for caption, rows in asked.items():
        E = energies[said.index(caption)]
        for place, energy, star, name in rows:
            n = number(name)
            assert energy == pytest.approx(np.sort(E)[place - 1], abs=1e-5)
            assert energy == pytest.approx(E[n], abs=1e-5)
            if said.count(caption) == 1:
                assert star == (n == said.index(caption) // 5)
        assert any(star for _, _, star, _ in rows)


def test_images_without_pictures_have_the_names_of_their_files(task, variables, monkeypatch):
    split = {k: v for k, v in task.splits["test"].items() if k != "pictures"}
    names = vocabulary.join(f"COCO_{n:03}.jpg" for n in range(len(split["images"])))
    monkeypatch.setitem(task.splits, "test", split | dict(names=names))
    files = sample(task, variables, Options(cases=2))
    assert "<img" not in files["neighbours.html"]
    assert "\nCOCO_0" in files["neighbours.txt"]


def test_the_page_shows_images_and_their_neighbours(task, variables):
    page = sample(task, variables, Options(cases=2, count=2))["neighbours.html"]
    assert page.count("<img") >= 2 + 2 * 2

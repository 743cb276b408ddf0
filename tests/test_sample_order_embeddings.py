"""Neighbours of images and captions: who is named, what the picture shows, what is refused."""

import io
import json
import re

import jax
import numpy as np
from PIL import Image
import pytest

from configs import order_embeddings as config_file
import experiments
from experiments.datasets import captions, vocabulary
from experiments.order_embeddings.samples import (
    LARGEST,
    OWN,
    SIDE,
    Candidates,
    Text,
    Tile,
    drawn,
    neighbours,
    sample,
)
from ln.errors import InputError
from ln.training import train
from tests.test_scripts import run

pytestmark = pytest.mark.slow  # pictures and whole commands

FILES = ["samples.png", "neighbours.txt"]
N = 20  # images of a fold


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    config = config_file.get_config("tiny")
    config.data_dir = str(tmp_path_factory.mktemp("data"))
    return experiments.load(config)


@pytest.fixture(scope="module")
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def workdir(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "order"
    train.fit(task, task.config, folder)
    return folder


@pytest.fixture(scope="module")
def energies(task, variables):
    """Of the captions and images of the first fold of the test set ``[5 N, N]``, in numpy."""
    s, v = (np.asarray(x, np.float64) for x in task.points(variables, task.fold("test", 0, N)))
    return np.stack([(np.maximum(one - v, 0) ** 2).sum(1) for one in s])


def said_of(task):
    """The captions of that fold, in words, one by one."""
    words = vocabulary.split(task.splits["train"]["words"])
    split, starts = task.splits["test"], task.splits["test"]["starts"]
    return [
        vocabulary.decode(split["tokens"][starts[k] : starts[k + 1]], words) for k in range(5 * N)
    ]


def answers(page):
    """What neighbours.txt says: who asked -> [(place, energy, own, name)]."""
    found, asked = {}, ""
    for line in page.split("\n\nCaptions of ")[0].splitlines():
        row = re.fullmatch(r" +(\d+) +(-?[\d.]+)  ([ *]) (.+)", line)
        if row:
            place, energy, star, name = row.groups()
            found.setdefault(asked, []).append((int(place), float(energy), star == "*", name))
        else:
            asked = line
    return found


def number(name):
    """Of an image: "image 7 (a three)" -> 7."""
    return int(re.match(r"image (\d+) \(", name).group(1))


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


# --- Who is named ---


def test_the_nearest_are_listed_and_the_first_that_belongs_there():
    E, own = np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.array([0, 0, 0, 1, 1], bool)
    assert neighbours(E, own, 2) == [(1, 1, 1.0, False), (2, 2, 2.0, False), (4, 4, 4.0, True)]
    assert neighbours(E, own, 4) == [
        *neighbours(E, own, 2)[:2],
        (3, 0, 3.0, False),
        (4, 4, 4, True),
    ]
    assert [n.place for n in neighbours(E, own, 9)] == [1, 2, 3, 4, 5]
    assert [n.place for n in neighbours(E, own & False, 1)] == [1]


def test_the_captions_nearest_to_an_image_have_the_least_energies(task, variables, energies):
    files = sample(task, variables, count=7, cases=3)
    found, said = answers(files["neighbours.txt"]), said_of(task)
    images = {asked: rows for asked, rows in found.items() if asked.startswith("image")}
    assert len(images) == 3
    for asked, rows in images.items():
        n = number(asked)
        own = said[5 * n : 5 * n + 5]
        assert asked == f"image {n} ({own[-1]})"
        of = {caption: energies[said.index(caption), n] for caption in said}  # each once
        expected = sorted(of, key=of.get)
        assert [name for _, _, _, name in rows[:7]] == expected[:7]
        for place, energy, star, name in rows:
            assert name == expected[place - 1] and star == (name in own)
            assert energy == pytest.approx(of[name], abs=1e-5)
        assert any(star for _, _, star, _ in rows)


def test_the_images_nearest_to_a_caption_have_the_least_energies(task, variables, energies):
    files = sample(task, variables, count=4, cases=N)
    found, said = answers(files["neighbours.txt"]), said_of(task)
    captions_asked = {asked: rows for asked, rows in found.items() if not asked.startswith("image")}
    assert 10 < len(captions_asked) <= N and set(captions_asked) <= set(said)
    for asked, rows in captions_asked.items():
        of = energies[said.index(asked)]
        for place, energy, star, name in rows:
            n = number(name)
            assert energy == pytest.approx(np.sort(of)[place - 1], abs=1e-5)
            assert energy == pytest.approx(of[n], abs=1e-5)
            if said.count(asked) == 1:
                assert star == (n == said.index(asked) // 5)
        assert any(star for _, _, star, _ in rows)


def test_a_caption_of_ones_own_finds_what_that_of_an_image_finds(task, variables, energies):
    said = said_of(task)
    files = sample(task, variables, text=[said[7], f" {said[33]}  "], count=3)
    found = answers(files["neighbours.txt"])
    for asked, k in ((said[7], 7), (f" {said[33]}  ", 33)):
        rows = found[asked]
        assert [number(name) for _, _, _, name in rows] == np.argsort(energies[k])[:3].tolist()
        assert not any(star for _, _, star, _ in rows)


def test_whether_captions_that_say_less_lie_above_others_is_told_of_the_first_image(
    task, variables
):
    page = sample(task, variables, cases=2)["neighbours.txt"]
    n, said = number(next(iter(answers(page)))), said_of(task)
    s, _ = task.points(variables, task.fold("test", 0, N))
    pairs = page.split(f"\n\nCaptions of image {n}, ")[1].splitlines()[3:]
    assert len(pairs) == len(task.splits["test"]["above"])
    for line, (less, more) in zip(pairs, task.splits["test"]["above"], strict=True):
        up, relation, down, one, other = re.fullmatch(
            r" +([\d.]+) ([<>]) ([\d.]+) +(.+) \| (.+)", line
        ).groups()
        assert (one, other) == (said[5 * n + less], said[5 * n + more])
        a, b = np.asarray(s[5 * n + less]), np.asarray(s[5 * n + more])
        expected = (np.maximum(a - b, 0) ** 2).sum(), (np.maximum(b - a, 0) ** 2).sum()
        assert (float(up), float(down)) == pytest.approx(expected, abs=1e-5)
        assert relation == ("<" if expected[0] < expected[1] else ">")


def test_images_without_pictures_go_by_the_names_of_their_files(task, variables, monkeypatch):
    split = {k: v for k, v in task.splits["test"].items() if k not in ("pictures", "above")}
    names = vocabulary.join(f"COCO_{n:03}.jpg" for n in range(len(split["images"])))
    monkeypatch.setitem(task.splits, "test", split | dict(names=names))
    files = sample(task, variables, cases=2)
    assert list(files) == FILES[1:]
    found = answers(files["neighbours.txt"])
    assert len(found) == 4 and sum(asked.startswith("COCO_0") for asked in found) == 2


def test_candidates_are_those_of_the_first_images():
    words = ["a", "b"]
    said = ["a", "b", "a b", "a", "b b", "b a", "a a", "b", "a", "b"]
    split = captions.pack(np.zeros((2, 3)), said, words)
    found = Candidates.of(split, words, 1)
    assert (found.names, found.said, found.pictures) == (["image 0"], said[:5], None)
    assert found.different == ["a", "a b", "b", "b b"] and found.first.tolist() == [0, 2, 1, 4]
    assert Candidates.of(split, words, 2).own(1) == said[5:]


# --- The picture ---


def test_the_picture_shows_the_images_and_frames_the_one_that_belongs_there():
    pictures = np.random.default_rng(0).integers(256, size=(2, 36, 36), dtype=np.uint8)
    items = [Text(10, 20, "one", OWN), Tile(10, 30, 0), Tile(10 + 2 * SIDE, 30, 1, True)]
    pixels = pixels_of(drawn(3 * SIDE + 50, SIDE + 60, items, pictures))
    assert pixels.shape == (SIDE + 60, 3 * SIDE + 50, 3)
    zoom = SIDE // 36
    for tile, inside in ((items[1], 0), (items[2], 1)):  # a frame hides the outermost
        shown = pixels[30 + zoom // 2 :, tile.x + zoom // 2 :][:SIDE:zoom, :SIDE:zoom, 0]
        part = slice(inside, 36 - inside)
        np.testing.assert_allclose(shown[part, part], pictures[tile.image][part, part], atol=1)
    coloured = pixels.max(-1) - pixels.min(-1) > 60
    rows, columns = np.nonzero(coloured[:, 10 + SIDE + 10 :])  # behind the text and the first
    assert (rows.min(), rows.max()) == pytest.approx((30, 30 + SIDE), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((SIDE - 10, 2 * SIDE - 10), abs=2)
    assert coloured[:25, :100].any() and not coloured[30:, : 10 + SIDE + 1].any()


def test_many_neighbours_make_no_larger_picture():
    tiles = [Tile(n * SIDE, 0, 0) for n in range(200)]
    pixels = pixels_of(drawn(200 * SIDE, SIDE, tiles, np.zeros((1, 2, 2))))
    assert max(pixels.shape) <= LARGEST


# --- The files ---


def test_files_are_a_function_of_the_seed(task, variables):
    first, again, other = (
        sample(task, variables, seed=seed, cases=2, count=2) for seed in (0, 0, 1)
    )
    assert list(first) == FILES and first == again
    assert all(first[name] != other[name] for name in FILES)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(text=[""]), "--text='': there is no word in it"),
        (dict(text=["a three", "a thre"]), "the vocabulary has no 'thre'. Did you mean 'three'"),
        (dict(text=["A three"]), "the vocabulary has no 'A'. Did you mean 'a'"),
        (dict(split="tset"), "Did you mean 'test'"),
        (dict(cases=N + 1), "--cases=21: a fold of the split 'test' has 20 images"),
    ],
)
def test_what_cannot_be_found_is_refused(task, variables, options, message):
    with pytest.raises(InputError, match=message):
        sample(task, variables, **options)


# --- The command ---


def test_the_command_writes_the_files_and_says_what_they_are_of(workdir):
    words = ("order_embeddings", f"--workdir={workdir}", "--split=valid", "--cases=2", "--count=3")
    done = run("scripts.sample", *words, "--text=a three", "--text=a big one under a two")
    assert done.returncode == 0, done.stderr
    folder = workdir / "samples"
    assert {path.name for path in folder.iterdir()} == {*FILES, "samples.json"}
    assert json.loads((folder / "samples.json").read_text())["files"] == FILES
    found = answers((folder / "neighbours.txt").read_text())
    assert list(found)[2:] == ["a three", "a big one under a two"]

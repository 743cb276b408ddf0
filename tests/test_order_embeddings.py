"""Order embeddings: model, loss and ranks against numpy, batches, memory, and what is learned."""

from functools import partial
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import order_embeddings as config_file
from experiments import retrieval
from experiments.datasets import captions as packed
from experiments.datasets import vocabulary
from experiments.datasets.vocabulary import END
from experiments.order_embeddings import task as order_embeddings
from experiments.order_embeddings.model import Model
from experiments.order_embeddings.task import Task
from ln.norm import EPSILON, Norm
from tests import reference
from tests.cells import assert_all_close, assert_equal
from tests.cells import draw as normal
from tests.learning import learn

NORMS = {
    "none": Norm(),
    "layer": Norm("layer", ("x", "h")),
    "batch": Norm("batch", ("x", "h"), (), True),
}


# --- The equations, in numpy: one caption, one image, one coordinate after the other ---


def points(kind, p, tokens, lengths, features):
    """Captions and images ``[B, H]``."""
    mask = np.arange(tokens.shape[1])[:, None] < lengths
    xs = p["table"][tokens.T]
    start = np.zeros((len(tokens), len(p["W_image"]["bias"])))
    hs, _ = reference.unrolled(reference.gru, kind, p["encoder"], start, xs, mask, EPSILON)
    s = np.stack([hs[length - 1, n] for n, length in enumerate(lengths)])
    v = features @ p["W_image"]["kernel"] + p["W_image"]["bias"]
    s, v = (np.stack([row / np.sqrt(np.sum(row**2)) for row in rows]) for rows in (s, v))
    return np.abs(s), np.abs(v)


def penalties(s, v):
    E = np.zeros((len(s), len(v)))
    for i, j in itertools.product(range(len(s)), range(len(v))):
        E[i, j] = sum(max(0, s[i, d] - v[j, d]) ** 2 for d in range(s.shape[1]))
    return E


def contrast(E, margin):
    total = 0.0
    for i, j in itertools.permutations(range(len(E)), 2):
        total += max(0, margin - E[i, j] + E[j, j]) + max(0, margin - E[i, j] + E[i, i])
    return total


@pytest.mark.parametrize("kind", NORMS)
def test_points_and_the_loss_are_those_of_the_equations(kind):
    task = make_task(norm=kind, margin=0.5)
    batch, random = task.batch(0), np.random.default_rng(1)
    inputs = batch["tokens"], batch["length"], batch["images"].astype(np.float64)

    def points_and_loss(variables):
        (s, v), _ = task.model(True).apply(variables, *inputs, mutable=["stats"])
        return s, v, task.loss(variables, {**batch, "images": inputs[2]}, None, True)[0]

    with jax.enable_x64(True):
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        variables = jax.tree.map(lambda leaf: 0.5 * random.normal(size=leaf.shape), shapes)
        actual = jax.jit(points_and_loss)(variables)
    s, v = points(kind, variables["params"], *inputs)
    expected = s, v, contrast(penalties(s, v), 0.5)
    assert expected[2] > 0.1
    assert_all_close(actual, expected, 1e-11)


def direct(s, v):
    return (jnp.maximum(s[:, None] - v[None], 0) ** 2).sum(-1)


@pytest.mark.parametrize("block", [None, 1, 2, 6])
def test_the_penalty_and_its_gradient_match_the_formula(block):
    s, v, weights = normal(5, 6), normal(3, 6, seed=1), normal(5, 3, seed=2)
    with jax.enable_x64(True):
        actual, expected = (
            jax.jit(jax.value_and_grad(lambda s, v, f=f: (weights * f(s, v)).sum(), (0, 1)))(s, v)
            for f in (partial(retrieval.violations, block=block), direct)
        )
        E = retrieval.violations(s, v, block)
    np.testing.assert_allclose(E, penalties(s, v), rtol=1e-12)
    assert_all_close(actual, expected, 1e-12)


def test_the_loss_holds_no_array_of_pairs_and_coordinates():
    """The direct formula's would have 8 MB here; the inputs have 0.25 MB, pairs 64 kB."""

    def bytes_of(penalty):
        s = jax.ShapeDtypeStruct((128, 128), jnp.float32)
        loss = jax.grad(lambda s, v: retrieval.contrast(penalty(s, v), 0.05), (0, 1))
        return jax.jit(loss).lower(s, s).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(retrieval.violations) < 1e6
    assert bytes_of(direct) > 8e6


def test_blocks_fill_the_memory_if_starting_a_kernel_costs(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    sizes = (4, 128, 1000, 10_000)
    assert [retrieval.block_of(n, n, 1024) for n in sizes] == [1024, 256, 4, 1]


# --- Ranks ---


def first_places(energies, right):
    """Return the place of the first right candidate in each order in which ties can be broken."""
    orders = np.array(list(itertools.permutations(range(len(energies)))))
    by_energy = np.argsort(energies[orders], axis=1, kind="stable")
    return np.take_along_axis(right[orders], by_energy, 1).argmax(1)


@pytest.mark.parametrize("levels", [1, 2, 3, 1000], ids=lambda n: f"{n}_energies")
@pytest.mark.parametrize("images, captions", [(2, 3), (3, 2), (6, 1), (1, 6)])
def test_ranks_are_means_over_all_orders_of_ties(levels, images, captions):
    E = np.random.default_rng(levels).integers(levels, size=(6, images)).astype(np.float32)
    image = np.arange(6) // captions
    queries = dict(
        image=[(E[m], np.arange(images) == image[m]) for m in range(6)],
        caption=[(E[:, n], image == n) for n in range(images)],
    )
    for what, places in jax.device_get(retrieval.places(jnp.array(E))).items():
        expected = [first_places(*query) for query in queries[what]]
        for K in (1, 2, 3, 5, 10):
            recall = 100 * np.mean([np.mean(places < K) for places in expected])
            assert places.recall(K) == pytest.approx(recall), (what, K)
        ranks = [np.mean(places) for places in expected]
        np.testing.assert_allclose(places.ranks, ranks, err_msg=what)
        assert places.scores()["mean"] == pytest.approx(np.mean(ranks) + 1)
        assert places.scores()["median"] == np.floor(np.median(ranks)) + 1


def scores_of(queries):
    """Return the scores of (energies, right) pairs by counting orders of the ties with comb."""
    chances = []
    for energies, right in queries:
        tied = energies == energies[right].min()
        m, k, before = tied.sum(), (tied & right).sum(), (energies < energies[right].min()).sum()
        first = [math.comb(m - p - 1, k - 1) / math.comb(m, k) for p in range(m)]
        chances.append({before + p: chance for p, chance in enumerate(first)})
    ranks = [sum(place * c for place, c in chance.items()) for chance in chances]
    scores = {
        f"r{K}": 100 * np.mean([sum(c for p, c in chance.items() if p < K) for chance in chances])
        for K in (1, 5, 10)
    }
    return scores | dict(median=np.floor(np.median(ranks)) + 1, mean=np.mean(ranks) + 1)


def test_the_scores_of_a_perfect_and_of_a_blind_model():
    perfect = 1 - np.repeat(np.eye(20), 5, 0)
    for places in jax.device_get(retrieval.places(jnp.array(perfect))).values():
        assert places.scores() == dict(r1=100, r5=100, r10=100, median=1, mean=1)
    blind = jax.device_get(retrieval.places(jnp.zeros((100, 20))))
    assert blind["image"].scores() == pytest.approx(dict(r1=5, r5=25, r10=50, median=10, mean=10.5))
    assert blind["caption"].recall(1) == pytest.approx(5)  # five of a hundred are right
    assert blind["caption"].scores()["mean"] == pytest.approx(1 + 95 / 6)


def test_energies_that_are_no_numbers_find_nothing():
    for places in jax.device_get(retrieval.places(jnp.full((100, 20), jnp.nan))).values():
        assert places.recall(10) == 0 and places.scores()["mean"] >= 20


# --- The task, on made-up data ---

VOCABULARY = [f"word{n}" for n in range(12)]
ABOVE = np.array([(0, 1), (0, 4), (2, 3)], np.int32)


def toy_split(N, seed):
    """Images of a kind each; captions name it, with words that say nothing before or behind."""
    random = np.random.default_rng(seed)
    kinds = random.integers(6, size=N)
    images = np.eye(6)[kinds] + 0.1 * random.random((N, 6))
    said = []
    for kind in kinds:
        for k in range(5):
            noise = [VOCABULARY[n] for n in random.integers(6, 12, size=random.integers(0, 3 + k))]
            said.append(" ".join([*noise, VOCABULARY[kind], *noise[:1]]))
    images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    return packed.pack(images, said, VOCABULARY) | dict(above=ABOVE)


class Toy(Task):
    def load(self):
        splits = {name: toy_split(N, N) for name, N in (("train", 30), ("valid", 23), ("test", 41))}
        splits["train"]["words"] = vocabulary.join(VOCABULARY)
        return splits


def make_task(**changes):
    config = config_file.get_config("tiny")
    config.update_from_flattened_dict(dict(pad_to=4) | changes)
    return Toy(config)


@pytest.fixture(scope="module")
def task():
    return make_task()


def test_a_batch_has_one_caption_per_image_with_an_end(task):
    split = task.splits["train"]
    for step in range(20):
        batch, drawn = task.batch(step, seed=3), task.indices(step, seed=3)
        images, captions = drawn["images"], drawn["captions"]
        assert (captions // 5 == images).all()
        np.testing.assert_array_equal(batch["images"], split["images"][images])
        assert batch["tokens"].shape == (4, task.shape(step)) and task.shape(step) % 4 == 0
        assert task.shape(step) >= batch["length"].max()
        for tokens, length, k in zip(batch["tokens"], batch["length"], captions, strict=True):
            expected = split["tokens"][split["starts"][k] : split["starts"][k + 1]]
            np.testing.assert_array_equal(tokens[: length - 1], expected)
            assert (tokens[length - 1 :] == END).all() and (expected >= 2).all()
        assert batch["images"].dtype == np.float32
        assert batch["tokens"].dtype == batch["length"].dtype == np.int32


def test_a_batch_depends_on_the_step_and_an_epoch_is_complete(task):
    again = make_task()
    for step in (0, 3, 6, 7, 50):
        assert_equal(task.batch(step), again.batch(step))
    assert task.steps_per_epoch == 7
    epochs = [
        np.concatenate([task.indices(7 * e + k, 0)["images"] for k in range(7)]) for e in (0, 1)
    ]
    assert all(len(set(images.tolist())) == 28 for images in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_the_points_of_a_fold_are_those_of_single_captions(task, variables, monkeypatch):
    monkeypatch.setattr(order_embeddings, "BLOCK", 60)  # 100 captions in two blocks
    fold = task.fold("valid", 3, 20)
    assert [tokens.shape for tokens, _ in fold.blocks] == [(60, 8), (60, 12)]
    s, v = task.points(variables, fold)
    assert s.shape == (100, 8) and v.shape == (20, 8)
    split, captions, images = task.splits["valid"], task.captions, task.images
    tokens, length = order_embeddings.pad(split, np.arange(15, 115), 12)
    np.testing.assert_allclose(s, captions(variables, tokens, length), atol=1e-6)
    np.testing.assert_allclose(v, images(variables, split["images"][3:23]), atol=1e-6)


def test_scores_are_means_over_whole_folds(task, variables):
    """Folds of 20: one of 23 validation images, two of 41 test images."""
    assert [len(fold.images) for fold in task.folds["valid"]] == [20]
    assert [len(fold.images) for fold in task.folds["test"]] == [20, 20]
    scores = task.evaluate(variables)
    assert set(scores) == {"valid", "test"}
    s, v = jax.device_get(task.points(variables, task.folds["test"][1]))
    right = np.repeat(np.eye(len(v), dtype=bool), 5, 0)
    E = penalties(s, v).astype(np.float32)
    for what, queries in (
        ("image", zip(E, right, strict=True)),
        ("caption", zip(E.T, right.T, strict=True)),
    ):
        expected = scores_of(queries)
        second = task.score(variables, task.folds["test"][0], None)
        for name, value in expected.items():
            mean = (value + second[f"{what}_{name}"]) / 2
            np.testing.assert_allclose(scores["test"][f"{what}_{name}"], mean, rtol=0.02)
    sums = sum(scores["test"][f"image_{name}"] for name in ("r1", "r5", "r10"))
    np.testing.assert_allclose(scores["test"]["sum"], sums)


@pytest.mark.slow
def test_updates_bring_images_and_captions_together():
    task = make_task(norm="batch", pad_to=12, batch_size=6, fold=10)
    before, after, _ = learn(task, 100, lr=0.01)
    before, after = (task.evaluate(variables)["valid"] for variables in (before, after))
    assert after["image_mean"] < 0.75 * before["image_mean"]
    assert after["sum"] > before["sum"] + 30


def test_the_order_of_captions_is_that_of_the_penalty_both_ways():
    general = np.array([[0.0, 0.6, 0.8], [0.6, 0.0, 0.8], [1.0, 0.0, 0.0]])
    specific = np.array([[0.48, 0.64, 0.6], [0.6, 0.0, 0.8], [0.0, 0.6, 0.8]])
    actual = order_embeddings.hierarchy(general, specific)
    # Penalties there and back: 0.04 and 0.232; 0 and 0; 1 and 1.
    np.testing.assert_allclose(actual["order"], 1 / 3)
    np.testing.assert_allclose(actual["coordinates"], (2 + 3 + 2) / 9)
    np.testing.assert_allclose(actual["every_coordinate"], 1 / 3)


def test_parameters_are_as_many_as_in_the_authors_code():
    """GRU 4,070,400, layer norm 12,288 more, images 4,195,328, and 300 a word."""

    def count(norm):
        shapes = jax.eval_shape(
            Model(9, 300, 1024, norm).init,
            *(jax.random.key(0), jnp.zeros((1, 1), int), jnp.ones(1, int), jnp.zeros((1, 4096))),
        )
        return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    assert count(NORMS["none"]) == 4_070_400 + 4_195_328 + 9 * 300
    assert count(NORMS["layer"]) == count(NORMS["none"]) + 12_288


def test_weights_start_as_in_the_authors_code(variables):
    p = variables["params"]
    for array in (p["table"], p["encoder"]["W_x"]["kernel"], p["encoder"]["W"]["kernel"]):
        assert 0.09 < array.max() < 0.1 and -0.1 < array.min() < -0.09
    assert 0.9 < np.abs(p["W_image"]["kernel"]).max() / np.sqrt(6 / (6 + 8)) < 1
    U = p["encoder"]["U"]["kernel"]
    np.testing.assert_allclose(U @ U.T, np.eye(8), atol=1e-5)

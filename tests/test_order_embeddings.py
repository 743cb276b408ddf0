"""Order embeddings: model, loss and ranks against numpy, batches, memory, and what is learned."""

from functools import partial
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import retrieval
from experiments.datasets.vocabulary import END
from experiments.order_embeddings import task as order_embeddings
from ln.norm import EPSILON, Norm
from tests import reference
from tests.cells import assert_all_close
from tests.cells import draw as normal
from tests.learning import tiny_task

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
def test_points_and_the_loss_are_those_of_the_equations(make_task, kind):
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


def test_scores_are_means_over_whole_folds(task, variables):
    """Three folds of 150 of 500 images; of the validation images the first."""
    assert len(task.splits["test"]["images"]) == 500
    assert [len(fold.images) for fold in task.folds["valid"]] == [150]
    assert [len(fold.images) for fold in task.folds["test"]] == [150] * 3
    scores = task.evaluate(variables)
    assert set(scores) == {"valid", "test"}
    assert set().union(*scores.values()) == set(task.metrics)
    places = []
    for fold in task.folds["test"]:
        E = direct(*task.points(variables, fold))
        places.append(jax.device_get(retrieval.places(E)))
    for what in ("image", "caption"):
        for name in ("r1", "r5", "r10", "median", "mean"):
            mean = np.mean([both[what].scores()[name] for both in places])
            np.testing.assert_allclose(scores["test"][f"{what}_{name}"], mean, rtol=0.02)
    sums = sum(scores["test"][f"image_{name}"] for name in ("r1", "r5", "r10"))
    np.testing.assert_allclose(scores["test"]["sum"], sums)


def test_energies_that_are_no_numbers_find_nothing():
    for places in jax.device_get(retrieval.places(jnp.full((100, 20), jnp.nan))).values():
        assert places.recall(10) == 0 and places.scores()["mean"] >= 20


# --- The task ---


@pytest.fixture(scope="module")
def make_task(data_dir):
    return partial(tiny_task, "order_embeddings", data_dir, pad_to=4)


@pytest.fixture(scope="module")
def task(make_task):
    return make_task(fold=150)


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


def test_the_points_of_a_fold_are_those_of_single_captions(task, variables, monkeypatch):
    monkeypatch.setattr(order_embeddings, "BLOCK", 60)  # 100 captions in two blocks
    fold = task.fold("valid", 3, 20)
    shapes = [tokens.shape for tokens, _ in fold.blocks]
    assert [B for B, _ in shapes] == [60, 60] and shapes[0][1] < shapes[1][1]
    s, v = task.points(variables, fold)
    assert s.shape == (100, 8) and v.shape == (20, 8)
    split, captions, images = task.splits["valid"], task.captions, task.images
    tokens, length = order_embeddings.pad(split, np.arange(15, 115), shapes[1][1])
    np.testing.assert_allclose(s, captions(variables, tokens, length), atol=1e-6)
    np.testing.assert_allclose(v, images(variables, split["images"][3:23]), atol=1e-6)


def test_the_order_of_captions_is_that_of_the_penalty_both_ways():
    general = np.array([[0.0, 0.6, 0.8], [0.6, 0.0, 0.8], [1.0, 0.0, 0.0]])
    specific = np.array([[0.48, 0.64, 0.6], [0.6, 0.0, 0.8], [0.0, 0.6, 0.8]])
    actual = order_embeddings.hierarchy(general, specific)
    # Penalties there and back: 0.04 and 0.232; 0 and 0; 1 and 1.
    np.testing.assert_allclose(actual["order"], 1 / 3)
    np.testing.assert_allclose(actual["coordinates"], (2 + 3 + 2) / 9)
    np.testing.assert_allclose(actual["every_coordinate"], 1 / 3)


def test_weights_start_as_in_the_authors_code(variables):
    p = variables["params"]
    for array in (p["table"], p["encoder"]["W_x"]["kernel"], p["encoder"]["W"]["kernel"]):
        assert 0.09 < array.max() < 0.1 and -0.1 < array.min() < -0.09
    assert 0.9 < np.abs(p["W_image"]["kernel"]).max() / np.sqrt(6 / (512 + 8)) < 1
    U = p["encoder"]["U"]["kernel"]
    np.testing.assert_allclose(U @ U.T, np.eye(8), atol=1e-5)

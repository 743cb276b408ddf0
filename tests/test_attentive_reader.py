"""The attentive reader: equations against numpy, masks, dropout, entities, batches, evaluation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.attentive_reader.model import Model, Noise
from experiments.datasets import cloze, vocabulary
from experiments.datasets.vocabulary import SPECIAL
from ln.norm import EPSILON, Norm
from tests import reference
from tests.cells import assert_all_close
from tests.learning import tiny_task
from tests.products import exhaustive

SITES = ("x", "h", "c")
NORMS = {
    "none": Norm(),
    "layer": Norm("layer", SITES, (("gain", 1.0),)),
    "batch": Norm("batch", (*SITES, "a"), (), True),
}
V, D, H = 9, 3, 4
LENGTHS, QUESTIONS = np.array([5, 2, 4]), np.array([1, 3, 2])
T, S, B = 6, 3, 3


def lengths_to_mask(T, lengths):
    return np.arange(T)[:, None] < lengths


# --- The equations, in numpy: one example and one time step after another ---


def states(kind, p, cell, xs, mask):
    zeros = np.zeros((xs.shape[1], H))
    start = zeros, zeros + p[cell]["h_0"]
    hs, _ = reference.unrolled(reference.lstm, kind, p[cell], start, xs, mask, EPSILON)
    return hs


def reader(kind, p, passage, question, noise):
    """Logits ``[B, V]`` and attention ``[T, B]``; matrices have no norm but in batch norm."""

    def normalize(name, a, mask):
        return reference.normalize(kind, p, name, a, mask, EPSILON)

    mask, question_mask = lengths_to_mask(T, LENGTHS), lengths_to_mask(S, QUESTIONS)
    d = states(kind, p, "of_passage_0", p["table"][passage] * noise.passage, mask)
    q_t = states(kind, p, "of_question_0", p["table"][question] * noise.question, question_mask)
    q = np.stack([q_t[length - 1, n] for n, length in enumerate(QUESTIONS)])

    a_d = normalize("norm_d", (d @ p["W_d"]["kernel"]).reshape(T * B, H), mask.reshape(-1))
    a_d, everyone = a_d.reshape(T, B, H), np.ones(B, bool)
    a_q = normalize("norm_q", q @ p["W_q"]["kernel"], everyone)
    alpha, r, mean = np.zeros((T, B)), np.zeros((B, H)), np.zeros((B, H))
    for n, length in enumerate(LENGTHS):
        e = []
        for t in range(length):
            s = np.sum((d[t, n] @ p["M"]) * (q[n] @ p["M"]))
            e.append(np.sum(p["v"] * np.tanh(a_d[t, n] + a_q[n] + s)))
        alpha[:length, n] = np.exp(e) / np.sum(np.exp(e))
        r[n] = sum(alpha[t, n] * d[t, n] for t in range(length))
        mean[n] = sum(d[t, n] for t in range(length)) / length
    g = np.tanh(
        normalize("norm_r", r @ p["W_r"]["kernel"], everyone)
        + normalize("norm_u", q @ p["W_u"]["kernel"], everyone)
        + normalize("norm_m", mean @ p["W_m"]["kernel"], everyone)
    )
    return (g * noise.g) @ p["W_y"]["kernel"] + p["norm_y"]["bias"], alpha


@pytest.fixture(scope="module", params=NORMS)
def made(request):
    """Return a model of a kind, its variables, its jitted application, and data."""
    kind, random = request.param, np.random.default_rng(0)
    model = Model(vocabulary=V, embedding_dim=D, hidden=H, norm=NORMS[kind])
    passage, question = random.integers(V, size=(T, B)), random.integers(V, size=(S, B))
    masks = lengths_to_mask(T, LENGTHS), lengths_to_mask(S, QUESTIONS)
    noise = Noise(*(np.round(random.random(n)) for n in ((T, B, D), (S, B, D), (B, H))))

    @jax.jit
    def apply(variables, passage, question, noise):
        arguments = passage, masks[0], question, masks[1], noise
        return model.apply(variables, *arguments, mutable=["stats"])[0]

    with jax.enable_x64(True):
        init = lambda key: model.init(key, passage, masks[0], question, masks[1], noise)  # noqa: E731
        shapes = jax.eval_shape(init, jax.random.key(0))
        variables = jax.tree.map(lambda leaf: 0.7 * random.normal(size=leaf.shape), shapes)
        variables["stats"] = jax.tree.map(np.abs, variables.get("stats", {}))
        yield kind, variables, apply, (passage, question, noise)


def test_logits_and_attention_are_those_of_the_equations(made):
    kind, variables, apply, data = made
    actual, expected = apply(variables, *data), reader(kind, variables["params"], *data)
    assert_all_close(actual, expected, 1e-11)
    np.testing.assert_allclose(actual[1].sum(0), 1)


# --- The task ---


@pytest.fixture(scope="module")
def make_task(data_dir):
    return partial(tiny_task, "attentive_reader", data_dir)


def test_entities_get_the_same_new_names_in_all_texts(make_task):
    task = make_task()
    cases = task.batches.cases(3, seed=0)
    plain, batch = task.cases(task.splits["train"], cases, task.shape(3)), task.batch(3)
    words = vocabulary.split(task.splits["train"]["words"])
    (is_entity,) = np.nonzero([word.startswith(cloze.ENTITY) for word in words])
    np.testing.assert_array_equal(task.entities, SPECIAL + is_entity)
    new = {}
    for name in ("passage", "question", "answer"):
        for old, now in zip(plain[name].ravel(), batch[name].ravel(), strict=True):
            assert new.setdefault(old, now) == now
            assert (old in task.entities and now in task.entities) or old == now
    assert len(set(new.values())) == len(new) and any(old != now for old, now in new.items())
    for name, array in task.batch(3).items():  # a function of the step
        np.testing.assert_array_equal(array, batch[name])
    names = [tuple(task.batch(step)["answer"]) for step in range(4)]
    assert len(set(names)) > 1


def test_dropout_keeps_a_share_and_scales_by_it_in_test(make_task):
    task = make_task(dropout_rate=0.75, embedding_dim=50)
    batch = task.example()
    drawn = task.noise(batch, jax.random.key(0), train=True)
    for array in drawn[:2]:
        assert set(np.unique(array)) == {0, 1}
    assert np.mean(drawn.passage) == pytest.approx(0.25, abs=0.03)
    (T, B), S = batch["passage"].T.shape, batch["question"].shape[1]
    assert [a.shape for a in drawn] == [(T, B, 50), (S, B, 50), (B, 6)]
    assert task.noise(batch, None, train=False) == (0.25, 0.25, 0.25)
    everything = make_task(dropout_rate=0.0).noise(batch, jax.random.key(0), train=True)
    assert all((array == 1).all() for array in everything)


@pytest.mark.parametrize("norm", ["batch", exhaustive("layer")])
def test_scores_are_means_over_all_examples_of_a_split(make_task, norm):
    task = make_task(norm=norm, batch_size=400)
    variables = jax.jit(task.init)(jax.random.key(0))
    assert "stats" not in variables  # BN-LSTM keeps no averages
    scores = task.evaluate(variables)
    assert scores.keys() == {"valid", "test"} and scores["test"].keys() == set(task.metrics)
    split, lengths = task.splits["valid"], task.lengths["valid"]
    nll, error, entity_error = [], [], []
    order = np.argsort(lengths, kind="stable")
    for block in (order[:400], order[400:800], order[800:]):  # batch norm: of what is read together
        cases = task.cases(split, block, int(-(-lengths[block].max() // 8) * 8))
        logits, alpha = task.read(variables, cases)
        assert alpha.shape == cases["passage"].T.shape
        for row, answer in zip(np.asarray(logits, np.float64), cases["answer"], strict=True):
            nll.append(reference.negative_log_likelihood(row, answer))
            error.append(row.argmax() != answer)
            entity_error.append(task.entities[row[task.entities].argmax()] != answer)
    expected = dict(nll=nll, error=error, entity_error=entity_error)
    assert scores["valid"].keys() == expected.keys()
    for name, values in expected.items():
        assert len(values) == len(split["answers"]) == 1000
        assert scores["valid"][name] == pytest.approx(np.mean(values), rel=1e-5)


def test_weights_start_as_in_the_code(make_task):
    params = jax.jit(make_task(embedding_dim=16, hidden=16).init)(jax.random.key(0))["params"]
    for cell in ("of_passage_0", "of_question_0"):
        for name in ("W_x", "W_h"):
            for block in jnp.split(params[cell][name]["kernel"], 4, axis=1):
                np.testing.assert_allclose(block @ block.T, 0.05**2 * np.eye(16), atol=1e-6)
        assert (params[cell]["b"] == 0).all() and (params[cell]["h_0"] == 0).all()
    for W in (params["M"], params["W_d"]["kernel"]):
        np.testing.assert_allclose(W @ W.T, 0.05**2 * np.eye(16), atol=1e-6)
    for W in (params["table"], *(params[f"W_{name}"]["kernel"] for name in "qrumy")):
        limit = np.sqrt(6 / (sum(W.shape) + 1))
        assert 0.9 * limit < np.abs(W).max() <= limit
    assert 0.7 / 4 < np.abs(params["v"]).max() <= 1 / 4
    params = jax.jit(make_task(embedding_dim=6, hidden=16).init)(jax.random.key(0))["params"]
    W_x = params["of_passage_0"]["W_x"]["kernel"]
    assert W_x.shape == (6, 64) and 0.9 < np.abs(W_x).max() / np.sqrt(6 / 23) <= 1

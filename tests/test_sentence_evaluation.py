"""Sentence evaluation: nested folds against scikit-learn, softmax regression against numpy, which
sentences go where, and words from elsewhere."""

import gzip

import jax
import numpy as np
import pytest

from experiments import sentence_evaluation as evaluation
from experiments.datasets import vocabulary
from ln.errors import DivergedError, InputError

N, D = 60, 4  # one shape, so that little is compiled


def examples(separable: bool = False):
    """Return vectors of length 1 ``[N, D]`` and labels that they predict in part, or all."""
    random = np.random.default_rng(3)
    y = random.integers(2, size=N)
    x = random.normal(size=(N, D))
    x[:, 1] += (20 if separable else 0.7) * (2 * y - 1)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), y


def regression(C):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8)


# --- Two classes ---


def test_accuracies_and_Cs_equal_those_of_scikit_learn():
    from sklearn.model_selection import GridSearchCV, KFold

    (x, y), accuracies, chosen = examples(), [], []
    order = np.arange(N)
    np.random.RandomState(1234).shuffle(order)
    x_, y_ = x[order].astype(np.float64), y[order]
    for train, test in KFold(10).split(x_):
        search = GridSearchCV(regression(1), {"C": evaluation.CS}, cv=KFold(10))
        search.fit(x_[train], y_[train])
        chosen.append(search.best_params_["C"])
        accuracies.append(search.score(x_[test], y_[test]))
    assert len(set(chosen)) > 2 and len(set(accuracies)) > 2
    actual = evaluation.nested(x, y, 1234)
    np.testing.assert_array_equal(actual[0], accuracies)
    np.testing.assert_array_equal(actual[1], chosen)
    expected = dict(accuracy=100 * np.mean(accuracies), sd=100 * np.std(accuracies))
    assert evaluation.classify(x, y) == pytest.approx(expected)


def test_separable_equal_and_long_vectors_are_classified():
    x, y = examples(separable=True)
    x = np.column_stack([x, x[:, 0]])
    accuracies, chosen = evaluation.nested(x, y, 1234)
    assert (accuracies == 1).all()
    assert (chosen == evaluation.CS[0]).all()  # the first of equals
    assert evaluation.classify(100 * x, y)["accuracy"] == 100
    majority = np.arange(N) % 5 != 0
    assert evaluation.classify(np.ones_like(x), majority)["accuracy"] == pytest.approx(80)


# --- Relatedness ---


def test_an_epoch_equals_adam_in_numpy():
    random = np.random.default_rng(0)
    x = random.random((150, 6)).astype(np.float32)
    p = evaluation.soft_targets(random.uniform(1, 5, size=150))
    state = evaluation.initial(jax.random.key(0), 6)
    (W, b), batches = map(np.float64, state[0]), evaluation.batched(x, p)
    moments = [[np.zeros_like(W), np.zeros_like(W)], [np.zeros_like(b), np.zeros_like(b)]]
    assert abs(W).max() < np.sqrt(6 / 11) and not b.any()
    for t, part in enumerate([slice(0, 128), slice(128, 150)] * 2, start=1):
        e = np.exp(x[part] @ W + b)
        error = (e / e.sum(1, keepdims=True) - p[part]) / len(p[part])
        gradients = x[part].T @ error, error.sum(0)
        for theta, g, (m, v) in zip((W, b), gradients, moments, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g**2 - v)
            theta -= 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    weights, _ = evaluation.fit(state, batches, 2)
    np.testing.assert_allclose(weights[0], W, atol=1e-6)
    np.testing.assert_allclose(weights[1], b, atol=1e-6)


def test_training_stops_at_no_gain_and_keeps_the_best(monkeypatch):
    y = np.arange(1, 6)
    predicted = {"valid": [[1, 1, 1, 1, 2], y, [1, 2, 3, 5, 4], y], "test": [y, [5, 3, 3, 2, 1], y]}
    blocks = []
    monkeypatch.setattr(evaluation, "initial", lambda key, F: (-1, None))
    monkeypatch.setattr(evaluation, "fit", lambda s, *_: blocks.append(_[1]) or (s[0] + 1, None))
    monkeypatch.setattr(evaluation, "predict", lambda k, part: np.array(predicted[part][k]))
    scores = evaluation.relate(np.zeros((5, 1)), y, "valid", y, "test", y)
    assert blocks == [100, 100, 100]
    expected = np.array(predicted["test"][1])
    assert scores["r"] == pytest.approx(np.corrcoef(expected, y)[0, 1])
    assert scores["rho"] == pytest.approx(np.corrcoef([5, 3.5, 3.5, 2, 1], y)[0, 1])
    assert scores["mse"] == pytest.approx(np.mean((expected - y) ** 2))


# --- All tasks ---

PAIRS = dict(train=["a b", "b c", "c", "a b"], valid=["b", "c"], test=["a b", "c d e"])
TASKS = dict(mood=dict(text=vocabulary.join(["a", "b c", "a"]), labels=np.array([1, 0, 0])))
for n, (split, texts) in enumerate(PAIRS.items()):
    scores = np.full(len(texts) // 2, n)
    TASKS[f"pairs_{split}"] = dict(text=vocabulary.join(texts), scores=scores)


def test_every_task_gets_the_vectors_of_its_sentences(monkeypatch):
    calls, asked = [], []

    def encode(sentences, end):
        assert len(set(sentences)) == len(sentences)
        asked.append((len(sentences), end))
        return np.array([[len(text), ord(text[0]), end] for text in sentences], np.float32)

    for name in ("classify", "relate"):
        monkeypatch.setattr(
            evaluation, name, lambda *inputs, name=name: calls.append(inputs) or name
        )
    assert evaluation.evaluate(encode, TASKS) == dict(mood="classify", pairs="relate")
    assert asked == [(2, False), (5, True)]
    (vectors, labels), (x, y, x_valid, y_valid, x_test, y_test) = calls
    np.testing.assert_array_equal(vectors, [[1, 97, 0], [3, 98, 0], [1, 97, 0]])
    np.testing.assert_array_equal(labels, [1, 0, 0])
    pairs = np.array([[3, 97, 1], [1, 99, 1]]), np.array([[3, 98, 1], [3, 97, 1]])
    np.testing.assert_array_equal(x, evaluation.pair_features(*pairs))
    np.testing.assert_array_equal(x_valid, [[0, 1, 0, 1, 98 * 99, 1]])
    np.testing.assert_array_equal(x_test, [[2, 2, 0, 15, 97 * 99, 1]])
    assert [list(part) for part in (y, y_valid, y_test)] == [[0, 0], [1], [2]]


def test_vectors_that_are_not_finite_are_counted():
    def encode(sentences, end):
        return np.array([[0, np.nan]] + [[0, 0]] * (len(sentences) - 1))

    with pytest.raises(DivergedError, match="1 of 2 sentences"):
        evaluation.evaluate(encode, TASKS)


# --- Words that an encoder was not trained with ---


def test_expansion_is_least_squares_and_keeps_the_table():
    random = np.random.default_rng(0)
    words, table = list("abcdefgh"), random.normal(size=(8, 3)).astype(np.float32)
    vectors = {
        word: random.normal(size=2).astype(np.float32) for word in ["x", *"gfedcb", "New_York", "y"]
    }
    names, expanded = evaluation.expand(table, words, vectors.items())
    assert names == [*"abcdefgh", "x", "y"]
    assert expanded.dtype == np.float32
    np.testing.assert_array_equal(expanded[:8], table)
    W = np.linalg.lstsq(np.array([[*vectors[word], 1] for word in "bcdefg"]), table[1:7])[0]
    expected = np.array([[*vectors[word], 1] for word in "xy"]) @ W
    np.testing.assert_allclose(expanded[8:], expected, atol=1e-5)
    assert evaluation.expand(table, words, zip(words, table, strict=True))[0] == words
    with pytest.raises(InputError, match="None of the 8 words"):
        evaluation.expand(table, words, [("x", vectors["x"])])


ROWS = {"the": [1.0, -2.5, 0.25], "naïve": [0.0, 3.0, 1e-3], "New_York": [7.0, 8.0, 9.0]}
TEXT = "".join(f"{word} {' '.join(map(str, row))} \r\n" for word, row in ROWS.items())
FORMATS = {"glove.txt": TEXT.encode(), "head.txt.gz": gzip.compress(b"3 3\n" + TEXT.encode())}


@pytest.mark.parametrize("name", FORMATS)
def test_vectors_are_read_in_every_format(tmp_path, name):
    (tmp_path / name).write_bytes(FORMATS[name])
    vectors = dict(evaluation.read_vectors(tmp_path / name))
    assert list(vectors) == list(ROWS)
    assert all(vector.dtype == np.float32 for vector in vectors.values())
    np.testing.assert_array_equal(list(vectors.values()), np.float32(list(ROWS.values())))


BROKEN = {
    "few.txt": b"a 1 2\nb 1\n",
    "word.txt": b"3 2\na 1 2\nb 1 x\n",
    "short.txt.gz": FORMATS["head.txt.gz"][:-9],
    "gone.txt": None,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_vectors_raises_with_its_name(tmp_path, name):
    if BROKEN[name]:
        (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=f"Cannot read vectors of words from .*{name}"):
        list(evaluation.read_vectors(tmp_path / name))

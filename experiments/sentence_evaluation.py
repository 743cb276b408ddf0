"""Score sentence vectors on tasks (§6.3, table 3) by the protocols of Kiros et al. (2015).

In "Skip-Thought Vectors" the vectors are fixed, and only linear classifiers are trained on them.

Tasks of two classes (MR, CR, SUBJ, MPQA): logistic regression, nested tenfold cross-validation.
Relatedness of pairs (SICK): softmax regression on soft targets, as by Tai et al. (2015). `expand`
gives an encoder vectors for words that it was not trained with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import itertools
from pathlib import Path

import jax
from jax.nn import sigmoid
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
import numpy as np
import optax

from experiments.datasets import text, vocabulary
from experiments.datasets.originals import Budget, opened
from ln.errors import DivergedError, InputError
from ln.training import data

SEED = 1234  # the authors'
FOLDS = 10
CS = 2.0 ** np.arange(9)
CLASSES = np.arange(1, 6)  # scores of relatedness
BATCH, EPOCHS = 128, 100  # Keras' defaults of the time, which the authors rely on
MOST = 30  # blocks of epochs, ours: only vectors that are almost equal still improve then
ADAM = optax.adam(1e-3)

TOLERANCE, STEPS = 1e-4, 200  # of logistic regression; vectors of length 1 need 30 steps at most
TINY = float(np.finfo(np.float32).tiny)

VECTORS = 2**35  # bytes of a file of vectors of words at most, unpacked

Encode = Callable[[list[str], bool], np.ndarray]


def evaluate(encode: Encode, splits: Mapping[str, Mapping[str, np.ndarray]]) -> dict:
    """Return the scores of an encoder on all tasks of a data set.

    Args:
        encode: (N sentences, whether to append END to each) -> vectors ``[N, D]``, float32.
        splits: text and labels of a task of two classes; or text and scores of ``name_train``,
            ``name_valid`` and ``name_test``, where sentences 2 n and 2 n + 1 are pair n.

    Returns:
        {task: {metric: value}}, by `classify` and `relate`.
    """
    scores = {}
    for name, split in splits.items():
        if "labels" in split:
            (vectors,) = encoded(encode, [split], end=False)
            scores[name] = classify(vectors, split["labels"])
        elif name.endswith("_train"):
            task = name.removesuffix("_train")
            parts = [splits[f"{task}_{part}"] for part in ("train", "valid", "test")]
            x, x_valid, x_test = (
                pair_features(v[::2], v[1::2]) for v in encoded(encode, parts, end=True)
            )
            y, y_valid, y_test = (part["scores"] for part in parts)
            scores[task] = relate(x, y, x_valid, y_valid, x_test, y_test)
    return scores


def encoded(encode: Encode, parts: Sequence[Mapping], end: bool) -> list[np.ndarray]:
    """Return the vectors ``[N, D]`` of the sentences of each part; encode each sentence once.

    Raises:
        DivergedError: a vector is not finite.
    """
    sentences = [vocabulary.split(part["text"]) for part in parts]
    unique = {text: n for n, text in enumerate(dict.fromkeys(itertools.chain(*sentences)))}
    vectors = np.asarray(encode(list(unique), end))
    if broken := int((~np.isfinite(vectors).all(1)).sum()):
        raise DivergedError(f"The vectors of {broken} of {len(unique)} sentences are not finite.")
    return [vectors[[unique[text] for text in texts]] for texts in sentences]


# --- Two classes ---


def classify(vectors, labels, seed: int = SEED) -> dict[str, float]:
    """Return the accuracy of logistic regression in percent: mean and sd of ten folds.

    The bias is not penalized; the authors' library did penalize it.

    Args:
        vectors: ``[N, D]``.
        labels: 0 or 1 ``[N]``.
        seed: of the order in which the sentences are cut into folds.
    """
    accuracies, _ = nested(vectors, labels, seed)
    return dict(accuracy=float(100 * accuracies.mean()), sd=float(100 * accuracies.std()))


def nested(vectors, labels, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the accuracy on each of ten outer folds and the C that was chosen for each.

    The C of an outer fold has the highest mean accuracy on ten inner folds of its training set;
    of equals it is the first. The 110 problems of a C differ only in which sentences they train
    on, so they are solved together. scikit-learn's LogisticRegressionCV, which solves them one by
    one, needs 20 times as long on a CPU.
    """
    N = len(labels)
    order = np.random.RandomState(seed).permutation(N)  # as the authors draw it
    y = np.asarray(labels)[order].astype(np.float32)
    used, held = folds(N)
    ordered = np.asarray(vectors, np.float32)[order]
    # The bias is free: subtracting the mean improves the numerics and changes nothing else.
    x = jnp.asarray(np.column_stack([ordered - ordered.mean(0), np.ones(N, np.float32)]))
    mask = jnp.asarray(used.reshape(N, -1), jnp.float32)
    w = jnp.zeros((x.shape[1], mask.shape[1]))
    accuracies = np.empty((FOLDS, len(CS), 1 + FOLDS))
    for k, C in enumerate(CS):
        w, f = logistic_regressions(x, y, mask, C, w)
        right = (np.asarray(f).reshape(used.shape) > 0) == (y[:, None, None] == 1)
        accuracies[:, k] = (right & held).sum(0) / held.sum(0)
    best = accuracies[..., 1:].mean(-1).argmax(1)
    return accuracies[np.arange(FOLDS), best, 0], CS[best]


def folds(N: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of N examples each fold trains on and which it tests on, bool ``[N, 10, 11]``.

    Outer fold i is ``[:, i, 0]``, its inner fold j is ``[:, i, 1 + j]``. Folds are contiguous.
    """
    used, held = np.zeros((2, N, FOLDS, 1 + FOLDS), bool)
    for i, test in enumerate(np.array_split(np.arange(N), FOLDS)):
        train = np.setdiff1d(np.arange(N), test)
        parts = [test, *np.array_split(train, FOLDS)]
        for j, part in enumerate(parts):
            used[train, i, j] = True
            used[part, i, j] = False
            held[part, i, j] = True
    return used, held


@jax.jit
def logistic_regressions(x, y, mask, C, w):
    """Minimize ½|w|² + C Σ_n mask_n log(1 + exp(−(2 y_n − 1) x_n·w)) for each of K masks.

    The method is conjugate gradients for all K at once: a step is two products of matrices. One
    matrix P preconditions them, the mean of the K Hessians at the start. The K solutions are near
    each other, so some ten steps suffice. The steps end when gᵀP⁻¹g, about twice the distance of
    a sum from its minimum, is at most TOLERANCE for all.

    Args:
        x: ``[N, D]``, the last column is 1; its weight, the bias, is not penalized.
        y: 0 or 1 ``[N]``.
        mask: ``[N, K]``.
        C: the weight of the losses.
        w: ``[D, K]``, where to start: the solution for a similar C.

    Returns:
        w and x w ``[N, K]``.
    """
    penalty = jnp.ones_like(w).at[-1].set(0)

    def gradient(w, f):
        return penalty * w + C * (x.T @ (mask * (sigmoid(f) - y[:, None])))

    def step(state):
        n, w, f, g, d, size = state
        f_d = x @ d
        curvature = (penalty * d**2).sum(0) + C * (mask * slope(f) * f_d**2).sum(0)
        t = -(g * d).sum(0) / jnp.maximum(curvature, TINY)  # Newton's step along d
        w, f = w + t * d, f + t * f_d
        new = gradient(w, f)
        z = cho_solve(P, new)
        beta = jnp.maximum(0, ((new - g) * z).sum(0) / jnp.maximum(size, TINY))
        return n + 1, w, f, new, beta * d - z, (new * z).sum(0)

    def unfinished(state):
        return (state[0] < STEPS) & (state[-1].max() > TOLERANCE)

    with jax.default_matmul_precision("highest"):
        f = x @ w
        s = (mask * slope(f)).mean(1)
        P = cho_factor(jnp.diag(penalty[:, 0]) + C * (x.T @ (s[:, None] * x)))
        g = gradient(w, f)
        z = cho_solve(P, g)
        _, w, f, *_ = jax.lax.while_loop(unfinished, step, (0, w, f, g, -z, (g * z).sum(0)))
    return w, f


def slope(f):
    """Return the derivative of the sigmoid."""
    return sigmoid(f) * sigmoid(-f)


# --- Relatedness ---


def pair_features(u, v) -> np.ndarray:
    """Return |u − v| and u ⊙ v, ``[..., 2 D]``, of vectors ``[..., D]``."""
    return np.concatenate([np.abs(u - v), u * v], -1)


def relate(x, y, x_valid, y_valid, x_test, y_test, seed: int = SEED) -> dict[str, float]:
    """Return how well softmax regression predicts the relatedness of the pairs of the test set.

    The scores are the correlations r (Pearson's) and rho (Spearman's) and the mean square error.
    Training continues in blocks of 100 epochs, on the same batches in each epoch, until a block
    does not improve r on the validation set, or for MOST blocks. The best weights are kept.

    Args:
        x: features ``[N, F]`` of the training set.
        y: its scores from 1 to 5, ``[N]``.
        x_valid: those of the validation set.
        y_valid: its scores.
        x_test: those of the test set.
        y_test: its scores.
        seed: of the order of the pairs in training, and of the first weights.
    """
    from scipy.stats import rankdata  # takes a second or two, which training need not wait for

    order = np.random.RandomState(seed).permutation(len(y))
    state = initial(jax.random.key(seed), x.shape[1])
    batches = batched(x[order], soft_targets(y)[order])
    best, best_r = state[0], -np.inf
    for _ in range(MOST):
        state = fit(state, batches, EPOCHS)
        r = pearson(predict(state[0], x_valid), y_valid)
        if not r > best_r:
            break
        best, best_r = state[0], r
    predicted = predict(best, x_test)
    return dict(
        r=pearson(predicted, y_test),
        rho=pearson(rankdata(predicted), rankdata(y_test)),
        mse=float(((predicted - y_test) ** 2).mean()),
    )


def soft_targets(scores) -> np.ndarray:
    """Return probabilities ``[N, 5]`` of the two whole numbers next to a score, their mean."""
    return np.maximum(0, 1 - np.abs(np.asarray(scores)[:, None] - CLASSES)).astype(np.float32)


def initial(key, features: int):
    """Return weights (``[F, 5]`` and ``[5]``) and the state of Adam."""
    W = jax.nn.initializers.glorot_uniform()(key, (features, len(CLASSES)))
    weights = W, jnp.zeros(len(CLASSES))
    return weights, ADAM.init(weights)


def batched(x, p):
    """Return features and targets in batches ``[n, B, ...]`` and the weights of pairs ``[n, B]``.

    The padding of the last batch has weight 0. The weights of a batch add up to 1.
    """
    batches, weights = data.blocks(dict(x=x, p=p), BATCH)
    return jax.device_put((batches["x"], batches["p"], weights / weights.sum(1, keepdims=True)))


@jax.jit
def fit(state, batches, epochs):
    """Train for some epochs with Adam."""

    def step(state, batch):
        weights, moments = state
        x, p, share = batch

        def loss(weights):
            W, b = weights
            return -(share[:, None] * p * jax.nn.log_softmax(x @ W + b)).sum()

        change, moments = ADAM.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, change), moments), None

    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(
            0, epochs, lambda _, state: jax.lax.scan(step, state, batches)[0], state
        )


def predict(weights, x) -> np.ndarray:
    """Return the mean score ``[N]``."""
    W, b = weights
    with jax.default_matmul_precision("highest"):
        return np.exp(np.asarray(jax.nn.log_softmax(x @ W + b))) @ CLASSES


def pearson(x, y) -> float:
    """Return the correlation of two arrays ``[N]``; 0 if one of them is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


# --- Words that an encoder was not trained with ---


def expand(
    table, words: Sequence[str], vectors: Iterable[tuple[str, np.ndarray]]
) -> tuple[list[str], np.ndarray]:
    """Return a table of more words, by a linear map from word vectors that were made elsewhere.

    The map (with a bias) is fitted by least squares to the words of both.

    Args:
        table: ``[V, D]``, only the vectors of words.
        words: V of them.
        vectors: pairs of a word and its vector ``[d]``, such as `read_vectors` yields.

    Returns:
        W words and their table ``[W, D]``: first the given words, unchanged; then the others of
        ``vectors``, except for phrases, which contain "_".
    """
    known = {word: vector for word, vector in vectors if "_" not in word}
    shared = [n for n, word in enumerate(words) if word in known]
    if not shared:
        raise InputError(f"None of the {len(words):,} words of the encoder has a vector.")
    inputs = np.stack([known[words[n]] for n in shared], dtype=np.float64)
    ones = np.ones((len(shared), 1))
    W, *_ = np.linalg.lstsq(np.hstack([inputs, ones]), np.asarray(table)[shared])
    W, b = np.split(W.astype(np.float32), [-1])
    own = set(words)
    new = [word for word in known if word not in own]
    mapped = np.array([known[word] for word in new], np.float32).reshape(-1, len(W)) @ W + b
    return [*words, *new], np.concatenate([table, mapped])


def read_vectors(path: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield words and their vectors ``[d]`` from a file of text, gzipped or not.

    A line has a word, which may contain blanks, and d numbers; the first line may be "words d".

    Raises:
        InputError: the file cannot be read.
    """
    d = None
    try:
        with opened(Path(path), Budget("vectors of words", VECTORS)) as file:
            for line in file:
                parts = line.split()
                if d is None and len(parts) == 2:
                    d = int(parts[1])
                    continue
                d = d or len(parts) - 1
                word = text.clean(b" ".join(parts[:-d]).decode(errors="replace"))
                yield word, np.array(parts[-d:], np.float32)
    except (ValueError, OverflowError, MemoryError, InputError) as error:
        raise InputError(f"Cannot read vectors of words from {path} ({error}).") from error

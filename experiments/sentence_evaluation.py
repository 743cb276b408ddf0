"""What vectors of sentences are good for (§6.3, table 3): the protocols of Kiros et al. (2015),
"Skip-Thought Vectors". The vectors stay as they are, only linear classifiers are trained on them.

Two classes (MR, CR, SUBJ, MPQA): logistic regression, nested tenfold cross-validation. Relatedness
of pairs (SICK): softmax regression on soft targets, as by Tai et al. (2015). And how an encoder
gets by on words that it was not trained with: `expand`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import gzip
import io
import itertools
from pathlib import Path
from typing import BinaryIO

import jax
from jax.nn import sigmoid
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
import numpy as np
import optax

from experiments.datasets import vocabulary
from ln.errors import DivergedError, InputError

SEED = 1234  # the authors'
FOLDS = 10
CS = 2.0 ** np.arange(9)
CLASSES = np.arange(1, 6)  # scores of relatedness
BATCH, EPOCHS = 128, 100  # Keras' defaults of the time, which the authors rely on
MOST = 30  # blocks of epochs, ours: only vectors that are all but equal still improve then
ADAM = optax.adam(1e-3)

TOLERANCE, STEPS = 1e-4, 200  # of logistic regression; vectors of length 1 need 30 steps at most
TINY = float(np.finfo(np.float32).tiny)

Encode = Callable[[list[str], bool], np.ndarray]


def evaluate(encode: Encode, splits: Mapping[str, Mapping[str, np.ndarray]]) -> dict:
    """The scores of an encoder on all tasks of a data set.

    Args:
        encode: (N sentences, whether END shall follow each) -> vectors ``[N, D]``, float32.
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
            vectors = encoded(encode, parts, end=True)
            features = [pair_features(v[::2], v[1::2]) for v in vectors]
            pairs = zip(features, (part["scores"] for part in parts), strict=True)
            scores[task] = relate(*itertools.chain(*pairs))
    return scores


def encoded(encode: Encode, parts: Sequence[Mapping], end: bool) -> list[np.ndarray]:
    """The vectors ``[N, D]`` of each part's sentences; what occurs twice is encoded once.

    Raises:
        DivergedError: a vector is not finite.
    """
    sentences = [vocabulary.split(part["text"]) for part in parts]
    unique = {text: n for n, text in enumerate(dict.fromkeys(sum(sentences, [])))}
    vectors = np.asarray(encode(list(unique), end))
    if broken := int((~np.isfinite(vectors).all(1)).sum()):
        raise DivergedError(f"The vectors of {broken} of {len(unique)} sentences are not finite.")
    return [vectors[[unique[text] for text in texts]] for texts in sentences]


def shuffled(N: int, seed: int) -> np.ndarray:
    """The numbers below N in an order drawn as the authors do."""
    order = np.arange(N)
    np.random.RandomState(seed).shuffle(order)
    return order


# --- Two classes ---


def classify(vectors, labels, seed: int = SEED) -> dict[str, float]:
    """Percentage that logistic regression gets right: mean and standard deviation of ten folds.

    Its bias is not penalized; the library that the authors used did so.

    Args:
        vectors: ``[N, D]``.
        labels: 0 or 1 ``[N]``.
        seed: of the order in which they are cut into folds.
    """
    accuracies, _ = nested(vectors, labels, seed)
    return dict(accuracy=float(100 * accuracies.mean()), sd=float(100 * accuracies.std()))


def nested(vectors, labels, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The accuracy on each of ten outer folds, and the C of each: that of the highest mean accuracy
    on ten folds of what the outer fold leaves to train on, the first of equals.

    All 110 problems of one C, these hundred and the ten on all that an outer fold leaves, are
    solved together, for every C: they differ but in which sentences count.
    """
    N = len(labels)
    order = shuffled(N, seed)
    y = np.asarray(labels)[order].astype(np.float32)
    used, held = folds(N)  # [N, 10 (outer folds), 11 (all, inner folds)]
    positives = np.einsum("nik,n->ik", used, y)
    if N < 2 * FOLDS or not ((0 < positives) & (positives < used.sum(0))).all():
        raise InputError(
            f"{N} sentences, {int(y.sum())} of them positive, are too few to be cut into "
            f"{FOLDS} x {FOLDS} folds with both classes in each."
        )
    x = np.asarray(vectors, np.float32)[order]
    # The bias is free, so that taking the mean away changes nothing but the numerics.
    x = jnp.asarray(np.column_stack([x - x.mean(0), np.ones(N, np.float32)]))
    mask = jnp.asarray(used.reshape(N, -1), jnp.float32)
    w = jnp.zeros((x.shape[1], mask.shape[1]))
    found = []
    for C in CS:
        w, f = logistic_regressions(x, y, mask, C, w)
        right = (np.asarray(f).reshape(used.shape) > 0) == (y[:, None, None] == 1)
        found.append((right & held).sum(0) / held.sum(0))
    found = np.moveaxis(found, 0, 1)  # [10, C, 11]
    best = np.ascontiguousarray(found[..., 1:]).mean(-1).argmax(1)
    return found[np.arange(FOLDS), best, 0], CS[best]


def folds(N: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of N cases are trained on, and which are tested on, bool ``[N, 10, 11]``: of outer fold
    i in ``[:, i, 0]``, of its inner fold j in ``[:, i, 1 + j]``. Folds are contiguous."""
    used, held = np.zeros((2, N, FOLDS, 1 + FOLDS), bool)
    for i, test in enumerate(np.array_split(np.arange(N), FOLDS)):
        train = np.setdiff1d(np.arange(N), test)
        used[train, i] = True
        held[test, i, 0] = True
        for j, inner in enumerate(np.array_split(train, FOLDS), start=1):
            used[inner, i, j] = False
            held[inner, i, j] = True
    return used, held


@jax.jit
def logistic_regressions(x, y, mask, C, w):
    """For each of K masks min_w ½|w|² + C Σ_n mask_n log(1 + exp(−(2 y_n − 1) x_n·w)).

    Conjugate gradients, all K at once, so that a step is two products of matrices. They are
    preconditioned with one matrix P, the mean of the K Hessians at the start, near which the K
    solutions lie: some ten steps suffice. They end where gᵀP⁻¹g, about twice what a sum lies above
    its minimum, is at most TOLERANCE for all.

    Args:
        x: ``[N, D]``, the last column is 1; its weight, the bias, is not penalized.
        y: 0 or 1 ``[N]``.
        mask: ``[N, K]``.
        w: ``[D, K]``, where to start: the solution of a similar C.

    Returns:
        w and x w ``[N, K]``.
    """
    with jax.default_matmul_precision("highest"):
        penalty = jnp.ones_like(w).at[-1].set(0)

        def gradient(w, f):
            return penalty * w + C * (x.T @ (mask * (sigmoid(f) - y[:, None])))

        def line(w, f, d, f_d):
            """The t that minimizes the sums at w + t d: Newton's method on each."""

            def newton(_, t):
                p = sigmoid(f + t * f_d)
                first = (penalty * (w + t * d) * d).sum(0)
                first += C * (mask * (p - y[:, None]) * f_d).sum(0)
                second = (penalty * d**2).sum(0) + C * (mask * p * (1 - p) * f_d**2).sum(0)
                return t - first / jnp.maximum(second, TINY)

            return jax.lax.fori_loop(0, 3, newton, jnp.zeros(w.shape[1]))

        def step(state):
            n, w, f, g, d, size = state
            f_d = x @ d
            t = line(w, f, d, f_d)
            w, f = w + t * d, f + t * f_d
            new = gradient(w, f)
            z = cho_solve(P, new)
            beta = jnp.maximum(0, ((new - g) * z).sum(0) / jnp.maximum(size, TINY))
            return n + 1, w, f, new, beta * d - z, (new * z).sum(0)

        def unfinished(state):
            return (state[0] < STEPS) & (state[-1].max() > TOLERANCE)

        f = x @ w
        s = (mask * sigmoid(f) * sigmoid(-f)).mean(1)
        P = cho_factor(jnp.diag(penalty[:, 0]) + C * (x.T @ (s[:, None] * x)))
        g = gradient(w, f)
        z = cho_solve(P, g)
        _, w, f, *_ = jax.lax.while_loop(unfinished, step, (0, w, f, g, -z, (g * z).sum(0)))
        return w, f


# --- Relatedness ---


def pair_features(u, v) -> np.ndarray:
    """|u − v| and u ⊙ v, ``[..., 2 D]``, of vectors ``[..., D]``."""
    return np.concatenate([np.abs(u - v), u * v], -1)


def relate(x, y, x_valid, y_valid, x_test, y_test, seed: int = SEED) -> dict[str, float]:
    """How well softmax regression tells how related the pairs of the test set are: the correlations
    r (Pearson's) and rho (Spearman's), and the mean square error.

    It is trained in blocks of 100 epochs, on batches that are always the same, until a block does
    not improve r on the validation set, or MOST of them; the best weights so far are kept.

    Args:
        x, y: features ``[N, F]`` and scores from 1 to 5 ``[N]`` of the training set, and so on.
        seed: of the order of the pairs in training, and of the first weights.
    """
    order = shuffled(len(y), seed)
    state = initial(jax.random.key(seed), x.shape[1])
    batches = batched(x[order], soft_targets(y)[order])
    best, r = state[0], -np.inf
    for _ in range(MOST):
        state = fit(state, batches, EPOCHS)
        reached = pearson(predict(state[0], x_valid), y_valid)
        if not reached > r:
            break
        best, r = state[0], reached
    found = predict(best, x_test)
    return dict(
        r=pearson(found, y_test),
        rho=pearson(ranks(found), ranks(y_test)),
        mse=float(((found - y_test) ** 2).mean()),
    )


def soft_targets(scores) -> np.ndarray:
    """Probabilities ``[N, 5]`` of the two whole numbers next to a score, whose mean it is."""
    return np.maximum(0, 1 - np.abs(np.asarray(scores)[:, None] - CLASSES)).astype(np.float32)


def initial(key, features: int):
    """Weights (``[F, 5]`` and ``[5]``) and the state of Adam."""
    W = jax.nn.initializers.glorot_uniform()(key, (features, len(CLASSES)))
    weights = W, jnp.zeros(len(CLASSES))
    return weights, ADAM.init(weights)


def batched(x, p):
    """Features ``[N, F]`` and targets ``[N, 5]`` in batches ``[n, B, ...]``, the last one filled
    up, and what a pair counts in the mean over its batch, ``[n, B]``."""
    N = len(x)
    n = -(-N // BATCH)
    sizes = np.minimum(BATCH, N - BATCH * np.arange(n))
    share = (np.arange(BATCH) < sizes[:, None]) / sizes[:, None]
    x, p = (np.pad(array, ((0, n * BATCH - N), (0, 0))) for array in (x, p))
    return jax.device_put(
        (x.reshape(n, BATCH, -1), p.reshape(n, BATCH, -1), share.astype(np.float32))
    )


@jax.jit
def fit(state, batches, epochs):
    """Some epochs of Adam."""

    def step(state, batch):
        weights, moments = state
        x, p, share = batch

        def loss(weights):
            return -(share[:, None] * p * log_probabilities(weights, x)).sum()

        change, moments = ADAM.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, change), moments), None

    with jax.default_matmul_precision("highest"):
        return jax.lax.fori_loop(
            0, epochs, lambda _, state: jax.lax.scan(step, state, batches)[0], state
        )


def log_probabilities(weights, x):
    W, b = weights
    return jax.nn.log_softmax(x @ W + b)


def predict(weights, x) -> np.ndarray:
    """The mean score ``[N]``."""
    with jax.default_matmul_precision("highest"):
        return np.exp(np.asarray(log_probabilities(weights, x))) @ CLASSES


def pearson(x, y) -> float:
    """Their correlation ``[N]``; 0 where one of them is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def ranks(x) -> np.ndarray:
    """The rank of each number ``[N]``, from 1 on; equal ones share the mean of theirs."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[place]


# --- Words that an encoder was not trained with ---


def expand(table, words: Sequence[str], vectors) -> tuple[list[str], np.ndarray]:
    """A table of more words: a linear map (with a bias) from vectors of words made elsewhere to the
    table, by least squares over the words of both.

    Args:
        table: ``[V, D]``, the vectors of the words alone.
        words: V of them.
        vectors: pairs of a word and its vector ``[d]``, such as `read_vectors` yields, or a dict.

    Returns:
        W words and their table ``[W, D]``: the given ones, as they are; then the others of
        ``vectors``, without phrases, which have "_" in them.
    """
    pairs = vectors.items() if isinstance(vectors, Mapping) else vectors
    known = {word: vector for word, vector in pairs if "_" not in word}
    shared = [n for n, word in enumerate(words) if word in known]
    if not shared:
        raise InputError(f"None of the {len(words):,} words of the encoder has a vector.")
    inputs = np.stack([known[words[n]] for n in shared], dtype=np.float64)
    ones = np.ones((len(shared), 1))
    W, *_ = np.linalg.lstsq(np.hstack([inputs, ones]), np.asarray(table)[shared])
    W, b = np.split(W.astype(np.float32), [-1])
    own = set(words)
    others = [word for word in known if word not in own]
    mapped = np.array([known[word] for word in others], np.float32).reshape(-1, len(W)) @ W + b
    return [*words, *others], np.concatenate([table, mapped])


def read_vectors(path: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Words and their vectors ``[d]`` from a file: in word2vec's binary format where it is called
    .bin, else lines of a word and d numbers, under a line "words d" or none; either in .gz, too.

    Raises:
        InputError: it cannot be read; the message says in which line or at which word.
    """
    path = Path(path)
    gzipped = path.suffix == ".gz"
    name = path.stem if gzipped else path.name
    read = binary if name.endswith(".bin") else lines
    try:
        with io.BufferedReader(gzip.open(path) if gzipped else io.FileIO(path)) as file:
            yield from read(file, path)
    except (OSError, EOFError) as error:
        raise InputError(f"Cannot read vectors of words from {path} ({error}).") from error


def binary(file: BinaryIO, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """A line "words d"; then each word, a space, and its d float32; newlines in between or none."""
    head = file.readline(100).split()
    if not is_head(head):
        raise InputError(f"{path}: expected a first line of two numbers, of words and of theirs.")
    count, d = map(int, head)
    for n in range(1, count + 1):
        word = b""
        while (letter := file.read(1)) not in (b" ", b""):
            word += letter
        numbers = file.read(4 * d)
        if len(numbers) < 4 * d:
            raise InputError(f"{path} ends in word {n:,} of {count:,}; get it again.")
        yield word.lstrip(b"\n").decode(errors="replace"), np.frombuffer(numbers, "<f4")


def lines(file: BinaryIO, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """A word and its d numbers a line, with spaces in between."""
    d = None
    for n, line in enumerate(file, start=1):
        parts = line.split()
        if n == 1 and is_head(parts):
            d = int(parts[1])
            continue
        d = d or len(parts) - 1
        word, numbers = b" ".join(parts[:-d]), parts[-d:]
        try:
            vector = np.array(numbers, np.float32)
        except ValueError:
            vector = None
        if not word or vector is None:
            raise InputError(f"{path}, line {n:,}: expected a word and {d or 'its'} numbers.")
        yield word.decode(errors="replace"), vector


def is_head(parts: list[bytes]) -> bool:
    return len(parts) == 2 and all(part.isdigit() for part in parts)

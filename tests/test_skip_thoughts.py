"""Skip-thoughts: model and loss against numpy, the triples of a text, encoding, memory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import skip_thoughts as config_file
import experiments
from experiments.datasets import arrays, vocabulary
from experiments.datasets.vocabulary import END, UNKNOWN
from experiments.skip_thoughts.model import cross_entropy
from experiments.skip_thoughts.task import Task, Triples, triples
from ln.norm import EPSILON
from tests import reference
from tests.cells import assert_all_close

WORDS = [f"w{n}" for n in range(30)]


def a_text(books, seed=0, longest=12):
    """Books of some numbers of sentences each, words at random."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest, size=sum(books))
    return dict(
        tokens=random.integers(2, 32, size=lengths.sum()).astype(np.uint16),
        starts=np.append(0, lengths.cumsum()),
        books=np.append(0, np.cumsum(books)),
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    train = a_text([40, 3, 1, 2, 60]) | dict(words=vocabulary.join(WORDS))
    arrays.write(folder, "books", dict(train=train, valid=a_text([20], seed=1)), {})
    return folder


@pytest.fixture(scope="module")
def make_task(data_dir):
    def make(**options):
        config = config_file.get_config("tiny")
        config.update(dataset="books", data_dir=str(data_dir), **options)
        return Task(config)

    return make


# --- The equations ---


def nats(task, params, batch):
    """−log p of all neighbours' words, one triple and one word after the other."""
    kind, p = task.config.norm, params

    def gru(name, start, xs, mask):
        return reference.unrolled(reference.gru, kind, p[name], start, xs, mask, EPSILON)[0]

    def mask_of(name):
        return np.arange(batch[name].shape[1])[:, None] < batch[f"{name}_length"]

    zeros = np.zeros((len(batch["sentence"]), task.config.hidden))
    h = gru("encoder", zeros, p["table"][batch["sentence"].T], mask_of("sentence"))[-1]
    total, words = 0.0, 0
    for name in ("previous", "next"):
        tokens, mask = batch[name].T, mask_of(name)
        xs = np.concatenate(
            [np.zeros((1, *p["table"][tokens[:1]].shape[1:])), p["table"][tokens[:-1]]]
        )
        hs = gru(name, h, xs, mask)
        for t, b in zip(*np.nonzero(mask), strict=True):
            a = hs[t, b] @ p["W_y"] + p["b_y"]
            total -= a[tokens[t, b]] - np.log(np.sum(np.exp(a)))
            words += 1
    return total, words


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_the_loss_is_that_of_the_equations(make_task, norm):
    task = make_task(norm=norm)
    batch, random = task.batch(1), np.random.default_rng(1)
    with jax.enable_x64(True):
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        variables = jax.tree.map(lambda leaf: 0.5 * random.normal(size=leaf.shape), shapes)
        loss, (_, metrics) = jax.jit(task.loss, static_argnums=3)(variables, batch, None, True)
    expected, words = nats(task, variables["params"], batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(metrics["nll"], expected / words, rtol=1e-9)


def direct(h, W, b, target, count):
    log_p = jax.nn.log_softmax(h @ W + b)
    nll = -jnp.take_along_axis(log_p, target[..., None], -1)[..., 0]
    return jnp.where(jnp.arange(h.shape[1]) < count[:, None], nll, 0).sum()


@pytest.mark.parametrize("chunk, count", [(4, 9), (4, 0), (64, 10)])
def test_the_loss_in_chunks_matches_the_formula_in_lanes(chunk, count):
    random = np.random.default_rng(0)
    lanes = 3 * random.normal(size=(2, 3, 10, 6)), random.normal(size=(2, 6, 7))
    b, target = random.normal(size=(2, 7)), random.integers(7, size=(3, 10))
    count = np.array([count, count // 2, 10])  # of three groups
    with jax.enable_x64(True):
        actual, expected = (
            jax.jit(
                jax.vmap(jax.value_and_grad(lambda *p, f=f: 2 * f(*p, target, count), (0, 1, 2)))
            )(*lanes, b)
            for f in (lambda *p: cross_entropy(chunk, *p), direct)
        )
        alone = cross_entropy(chunk, lanes[0][0], lanes[1][0], b[0], target, count)
    assert_all_close(actual, expected, 1e-9)
    np.testing.assert_allclose(2 * np.asarray(alone), actual[0][0], rtol=1e-12)


def test_the_logits_of_all_words_are_never_in_memory_at_once():
    """All of them would take 16 MB."""
    N, H, V = 1000, 8, 4000

    def bytes_of(function):
        shapes = (1, N, H), (H, V), (V,)
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        grad = jax.jit(
            jax.grad(lambda *p: function(*p, jnp.zeros((1, N), int), jnp.array([N])), (0, 1, 2))
        )
        return grad.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(lambda *p: cross_entropy(50, *p)) < 4e6
    assert bytes_of(direct) > 16e6


# --- Triples ---


def by_hand(split, longest):
    lengths = np.diff(split["starts"])
    book = np.searchsorted(split["books"], np.arange(len(lengths)), side="right")
    return [
        i
        for i in range(1, len(lengths) - 1)
        if len(set(book[i - 1 : i + 2])) == 1
        and all(0 < n < longest for n in lengths[i - 1 : i + 2])
    ]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_triples_are_short_and_of_one_book_for_all_blocks(block):
    split = a_text([40, 3, 1, 2, 60, 5, 0, 30])
    ends = [*range(0, len(split["starts"]) - 1, block), len(split["starts"]) - 1]
    actual = [triples(split, 9, *pair) for pair in itertools.pairwise(ends)]
    middles, lengths = map(np.concatenate, zip(*actual, strict=True))
    assert middles.tolist() == by_hand(split, 9) and len(middles) > 20
    np.testing.assert_array_equal(lengths, np.diff(split["starts"])[middles])


@pytest.mark.parametrize("block", [32, 1000])
def test_an_epoch_has_every_triple_once_in_another_order(block):
    split = a_text([100, 80, 120])
    batches = Triples(split, 9, block, batch_size=3, run=2, seed=0)
    count = batches.steps_per_epoch
    drawn = [(batches.cases(step, seed=4), batches.length(step)) for step in range(2 * count)]
    epochs = drawn[:count], drawn[count:]
    known = set(by_hand(split, 9))
    for epoch in epochs:
        cases = np.concatenate([middles for middles, _ in epoch])
        assert len(set(cases)) == len(cases) and set(cases) <= known
        for middles, length in epoch:
            assert (np.diff(split["starts"])[middles] == length).all()
    assert [m.tolist() for m, _ in epochs[0]] != [m.tolist() for m, _ in epochs[1]]
    # A function of the step: asked in another order, it is the same.
    again = Triples(split, 9, block, 3, 2, 0).cases(count + 1, seed=4)
    np.testing.assert_array_equal(again, epochs[1][1][0])


def test_a_batch_has_the_neighbours_of_a_sentence_with_ends(make_task):
    task = make_task(vocab_size=12)
    batch, middles = task.batch(2), task.batches.cases(2, seed=0)
    split = task.splits["train"]
    for b, middle in enumerate(middles):
        for name, i in (("previous", middle - 1), ("sentence", middle), ("next", middle + 1)):
            sentence = split["tokens"][split["starts"][i] : split["starts"][i + 1]].astype(int)
            known = np.where(sentence < 12, sentence, UNKNOWN)
            n = batch[f"{name}_length"][b]
            assert batch[name][b, :n].tolist() == [*known, END]


# --- Encoding ---


def test_a_sentence_has_the_same_unit_vector_in_any_batch(make_task):
    task = make_task(norm="layer")
    encode = task.encoder(jax.jit(task.init)(jax.random.key(0)))
    sentences = ["w1 w2 w3", "w4", "", "w9 unheard w3 " * 7]
    h = encode(sentences)
    np.testing.assert_allclose(np.linalg.norm(h, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(encode(sentences[::-1])[::-1], h, atol=1e-6)
    ended = encode(sentences, True)
    np.testing.assert_allclose(ended[2], h[2], atol=1e-6)  # nothing but END in both
    assert abs(ended[0] - h[0]).max() > 1e-4


def test_vectors_are_the_encoders_last_states_by_the_equations(make_task):
    task = make_task(norm="layer")
    variables = jax.jit(task.init)(jax.random.key(1))
    p = jax.tree.map(np.asarray, variables["params"])
    tokens = [2 + WORDS.index("w5"), 2 + WORDS.index("w0"), UNKNOWN, END]
    xs = p["table"][tokens][:, None]
    start, mask = np.zeros((1, task.config.hidden)), np.ones((4, 1), bool)
    hs, _ = reference.unrolled(reference.gru, "layer", p["encoder"], start, xs, mask, EPSILON)
    expected = hs[-1, 0] / np.sqrt(np.sum(hs[-1, 0] ** 2))
    np.testing.assert_allclose(
        task.encoder(variables)(["w5 w0 other"], True)[0], expected, atol=1e-5
    )


def test_word_vectors_teach_new_words(make_task, tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "vectors.txt"
    task = make_task(word_vectors=str(path))
    variables = jax.jit(task.init)(jax.random.key(0))
    table = np.asarray(variables["params"]["table"])[2:]
    A = random.normal(size=(table.shape[1], table.shape[1]))
    rows = dict(zip(task.words, table @ A, strict=True)) | {"new": table[3] @ A}
    path.write_text("".join(f"{w} {' '.join(map(repr, map(float, v)))}\n" for w, v in rows.items()))
    encode = task.encoder(variables)
    h = encode([f"{task.words[3]} w1", "new w1", "newer w1"])
    np.testing.assert_allclose(h[1], h[0], atol=1e-4)
    assert abs(h[2] - h[0]).max() > 1e-3


def test_word_vectors_are_part_of_a_run(make_task, tmp_path):
    path, digests = tmp_path / "vectors.txt", []
    for contents in ("w1 1 2", "w1 1 2", "w1 1 3"):
        path.write_text(contents)
        config = make_task(word_vectors=str(path)).config
        digests.append(experiments.load(config).data["word_vectors"])
    assert digests[0] == digests[1] != digests[2]


def test_scores_are_means_over_all_words_of_a_split(make_task):
    task = make_task(norm="layer")
    variables = jax.device_get(jax.jit(task.init)(jax.random.key(0)))
    pairs = [nats(task, variables["params"], block) for block in map(jax.device_get, task.scored)]
    total, words = map(sum, zip(*pairs, strict=True))
    scores = task.evaluate(variables)
    assert scores["valid"]["nll"] == pytest.approx(total / words, rel=1e-4)
    assert set().union(*scores.values()) == set(task.metrics)

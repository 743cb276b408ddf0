"""Permutation invariant MNIST: the loss, the published settings, the network and the task."""

from functools import partial

import jax
import numpy as np
import pytest

from configs import mnist as config_file
from experiments.tasks import negative_log_likelihood
from ln.norm import EPSILON
from tests import reference
from tests.learning import states_of, tiny_task, variables_of

NORMS = tuple(config_file.get_config().norms)


# --- The loss ---

GAPS = (-100, -30, -3, 0, 3, 12, 20, 40, 60, 72)  # of the right answer's logit to the others


def logits_with(gaps):
    """Logits ``[N, 10]`` and answers y ``[N]``, whose logits are the gaps; all others near 0."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(len(gaps), 10)).astype(np.float32)
    y = random.integers(10, size=len(gaps), dtype=np.int32)
    logits[np.arange(len(gaps)), y] = gaps
    return logits, y


def per_row(function, logits, y):
    return np.stack([function(row, n) for row, n in zip(np.float64(logits), y, strict=True)])


def test_the_loss_is_exact_from_1e_30_to_100_nats():
    logits, y = logits_with(GAPS)
    expected = per_row(reference.negative_log_likelihood, logits, y)
    assert expected.min() < 1e-30 and expected.max() > 100
    actual = jax.jit(negative_log_likelihood)(logits, y)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_the_loss_has_the_gradient_softmax_minus_onehot():
    logits, y = logits_with(GAPS)
    actual = jax.jit(jax.grad(lambda logits: negative_log_likelihood(logits, y).sum()))(logits)
    expected = per_row(reference.negative_log_likelihood_backward, logits, y)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-36)


# --- The network ---


def layers_of(params):
    """Return the names of product and norm of each layer, from below; the last may have no norm."""
    names = sorted(params, key=lambda name: (name.startswith(("Dense", "Identity")), name))
    matrices = [name for name in names if "Dense" in name]
    return list(zip(matrices, [name for name in names if "Dense" not in name], strict=True))


def network(norm, p, x):
    """Logits in training mode, by the equations."""
    every = np.ones(len(x), bool)
    for n, (dense, after) in enumerate(layers_of(p)):
        a = reference.normalize(norm, p, after, x @ reference.weights(p, dense), every, EPSILON)
        x = a if n == 2 else np.maximum(a, 0)
    return x


@pytest.fixture(scope="module", params=NORMS)
def task(request, data_dir):
    return tiny_task("mnist", data_dir, norm=request.param, hidden=32, batch_size=16)


@pytest.fixture(scope="module")
def trained(task):
    """Return variables after twenty updates: no gain is 1 and no bias is 0."""
    return variables_of(states_of(task, 20)[0][-1])


def test_logits_and_the_loss_follow_the_equations(task, trained):
    params, layers = trained["params"], layers_of(trained["params"])
    variables, batch = trained, task.batch(1)
    assert len(layers) == 3
    assert not any("bias" in params[dense] for dense, _ in layers)  # the norm has it
    logits, _ = jax.jit(partial(task.apply, train=True))(variables, batch, None)
    x = np.float64(batch["x"]) / 255
    expected = network(task.config.norm, jax.tree.map(np.float64, params), x)
    assert expected.shape == (16, 10)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    loss, (_, metrics) = jax.jit(partial(task.loss, train=True))(variables, batch, None)
    nll = per_row(reference.negative_log_likelihood, logits, batch["y"]).mean()
    error = float((logits.argmax(1) != batch["y"]).mean())
    assert {name: float(mean) for name, mean in metrics.items()} == pytest.approx(
        dict(nll=nll, error=error), rel=1e-5
    )
    assert loss == metrics["nll"]


# --- The task ---


def test_scores_are_averages_over_all_examples_of_a_split(task, trained):
    variables, scores = trained, task.evaluate(trained)
    # 1,297 examples are a full block and one of 297, which must not weigh as much.
    assert len(task.splits["train"]["y"]) == 1297
    assert set(scores) == set(task.splits) == {"train", "valid", "test"}
    x = np.concatenate([split["x"] for split in task.splits.values()])
    apply = jax.jit(task.model(train=False).apply)
    all_logits = np.asarray(apply(variables, np.float32(x) / 255))
    ends = np.cumsum([len(split["y"]) for split in task.splits.values()])
    for split, logits in zip(task.splits, np.split(all_logits, ends[:-1]), strict=True):
        actual, y = scores[split], task.splits[split]["y"]
        nll = per_row(reference.negative_log_likelihood, logits, y)
        assert actual["nll"] == pytest.approx(nll.mean(), rel=1e-5)
        assert actual["error"] == pytest.approx((logits.argmax(1) != y).mean(), rel=1e-6)
        assert set(actual) == set(task.metrics) == {"nll", "error"}

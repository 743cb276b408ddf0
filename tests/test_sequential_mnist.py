"""Sequential MNIST: the published settings, the sequences, the network and the task."""

from functools import partial
import itertools

import jax
import numpy as np
import pytest

from configs import sequential_mnist as config_file
from experiments import datasets
from ln.norm import EPSILON
from tests import reference
from tests.learning import states_of, tiny_task, variables_of

NORMS = tuple(config_file.get_config().norms)
task_of = partial(tiny_task, "sequential_mnist")


# --- The sequences ---


def test_validation_examples_are_the_last_in_the_original_order(data_dir):
    splits, original = task_of(data_dir).splits, datasets.load("digits", data_dir)
    x = np.concatenate([original["valid"]["x"], original["train"]["x"]])
    assert len(splits["valid"]["x"]) == 200
    assert (splits["train"]["x"] == x[:-200]).all() and (splits["valid"]["x"] == x[-200:]).all()
    assert (splits["test"]["x"] == original["test"]["x"]).all()


@pytest.mark.parametrize("pixels", [1, 16])
def test_a_step_sees_the_next_pixels_of_every_image(data_dir, pixels):
    task = task_of(data_dir, pixels_per_step=pixels)
    x = task.batch(0)["x"]
    xs, noise = task.inputs(dict(x=x), jax.random.key(0), train=True)
    assert xs.shape == (64 // pixels, 4, pixels)
    assert not noise.any()
    for t, case in itertools.product(range(64 // pixels), range(4)):
        expected = x[case, t * pixels : (t + 1) * pixels] / 255
        np.testing.assert_allclose(xs[t, case], expected, rtol=1e-6)


def test_all_images_have_the_same_permutation(data_dir):
    task, x = task_of(data_dir, pixels_per_step=1, permuted=True), np.arange(64, dtype=np.uint8)
    xs, _ = task.inputs(dict(x=np.stack([x, x])), jax.random.key(0), train=True)
    assert (xs[:, 0] == xs[:, 1]).all()
    order = np.round(xs[:, 0, 0] * 255)
    assert sorted(order) == list(range(64)) and (order != x).any()
    reseeded = task_of(data_dir, pixels_per_step=1, permuted=True, permutation_seed=1)
    assert (reseeded.order != task.order).any()


# --- The network and the task ---


@pytest.fixture(scope="module", params=NORMS)
def task(request, data_dir):
    return task_of(
        data_dir, norm=request.param, hidden=16, batch_size=16, pixels_per_step=16, noise=0.1
    )


@pytest.fixture(scope="module")
def lesson(task):
    """Twenty updates on one batch."""
    return states_of(task, 20)


def test_logits_follow_the_equations_from_a_noisy_first_state(task, lesson):
    params, key = jax.tree.map(np.float64, lesson[0][20].params), jax.random.key(5)
    variables, batch = variables_of(lesson[0][20]), task.batch(1)
    xs, noise = task.inputs(batch, key, train=True)
    assert np.std(noise) == pytest.approx(0.1, rel=0.2)
    actual, _ = jax.jit(partial(task.apply, train=True))(variables, batch, key)
    p, kind = params["LSTM_0"], task.config.norm
    carry = np.tile(p["c_0"], (16, 1)), p["h_0"] + np.float64(noise)
    mask = np.ones(xs.shape[:2], bool)
    hs, _ = reference.unrolled(reference.lstm, kind, p, carry, np.float64(xs), mask, EPSILON)
    expected = hs[-1] @ params["Dense_0"]["kernel"] + params["Identity_0"]["bias"]
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)


def test_weights_start_as_in_the_code_of_cooijmans_et_al(task, lesson):
    p, H = jax.tree.map(np.asarray, lesson[0][0].params["LSTM_0"]), 16
    W_h, b = p["W_h"]["kernel"], p["b"]
    np.testing.assert_allclose(W_h[:, : 3 * H] @ W_h[:, : 3 * H].T, np.eye(H), atol=1e-5)
    assert (W_h[:, 3 * H :] == np.eye(H)).all()  # the gate g
    assert b.tolist() == [1.0] * H + [0.0] * 3 * H  # the gate f
    W_x = p["W_x"]["kernel"]
    np.testing.assert_allclose(W_x @ W_x.T, np.eye(16), atol=1e-5)
    assert not p["c_0"].any() and not p["h_0"].any()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_layer_norm_needs_noise_where_images_begin_black(data_dir, noise):
    """A state of zeros stays zero on black pixels, and the derivative of layer norm at zero is
    1/√epsilon = 316, at h and at c, step after step: in float32 the gradient overflows."""
    task = task_of(data_dir, norm="layer", hidden=16, pixels_per_step=4, noise=noise)
    batch = task.batch(0)
    black = dict(batch, x=np.where(np.arange(64) < 48, 0, batch["x"]).astype(np.uint8))
    variables = jax.jit(task.init)(jax.random.key(0))

    def loss(params):
        return task.loss({"params": params}, black, jax.random.key(1), train=True)[0]

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert finite == (noise > 0)

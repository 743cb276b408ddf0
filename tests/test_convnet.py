"""Convolutional networks: norms of conv layers against numpy, the model, activity."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.convnet.task import border, image_shape
from ln.norm import EPSILON
from tests.learning import tiny_task

# --- The network ---


@pytest.fixture(scope="module")
def make_task(data_dir):
    return partial(tiny_task, "convnet", data_dir)


def convolved(x, W):
    """3 x 3, zeros around, one position after the other."""
    B, height, width, _ = x.shape
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    a = np.zeros((B, height, width, W.shape[-1]))
    for i in range(height):
        for j in range(width):
            a[:, i, j] = np.einsum("bijc,ijcd->bd", around[:, i : i + 3, j : j + 3], W)
    return a


AXES = {"layer": (1, 2, 3), "layer_units": (1, 2, 3), "layer_channels": (3,), "batch": (0, 1, 2)}


def forward(p, x, axes):
    """Logits and activities of a norm over some axes, by the equations."""
    kind = "BatchNorm" if 0 in axes else "LayerNorm"

    def normalized(a, norm, axes):
        mu = a.mean(axes, keepdims=True)
        sigma = np.sqrt(((a - mu) ** 2).mean(axes, keepdims=True) + EPSILON)
        return p[norm]["gain"] * (a - mu) / sigma + p[norm]["bias"]

    h, activities = x, []
    for k in range(2):
        W = p[f"Dense_{k}"]["kernel"]
        a = convolved(h, W.reshape(3, 3, -1, W.shape[1]))
        h = np.maximum(normalized(a, f"{kind}_{k}", axes), 0)
        activities.append(h)
        B, height, width, C = h.shape
        h = h.reshape(B, height // 2, 2, width // 2, 2, C).max((2, 4))
    a = h.reshape(len(h), -1) @ p["Dense_2"]["kernel"]
    h = np.maximum(normalized(a, f"{kind}_2", (0,) if 0 in axes else (1,)), 0)
    return h @ p["Dense_3"]["kernel"] + p["Identity_0"]["bias"], activities


@pytest.mark.parametrize("norm", AXES)
def test_logits_and_activities_follow_the_equations(make_task, norm):
    task = make_task(norm=norm, channels=(2, 3))
    batch, random, train = task.batch(0), np.random.default_rng(0), norm == "batch"
    with jax.enable_x64(True):
        shapes = jax.eval_shape(task.init, jax.random.key(0))
        variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes)
        per_case = jax.jit(partial(task.per_case, train=train))
        actual, _ = per_case(variables, batch, None)
    params = variables["params"]
    first = params["BatchNorm_0" if norm == "batch" else "LayerNorm_0"]
    assert first["gain"].shape == ((8, 8, 2) if norm == "layer_units" else (2,))
    x = batch["x"].reshape(-1, 8, 8, 1) / np.float32(255)
    logits, activities = forward(params, x, AXES[norm])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(actual["nll"], -log_p[np.arange(4), batch["y"]], rtol=1e-5)
    for k, h in enumerate(activities, start=1) if not train else ():
        active, edge = (h > 0).mean(-1), border(*h.shape[1:3])
        np.testing.assert_allclose(actual[f"border_{k}"], active[:, edge].mean(1), atol=1e-6)
        np.testing.assert_allclose(actual[f"inside_{k}"], active[:, ~edge].mean(1), atol=1e-6)


def test_images_are_square_of_one_colour_or_of_three():
    assert image_shape(64) == (8, 8, 1)
    assert image_shape(784) == (28, 28, 1)
    assert image_shape(3072) == (32, 32, 3)
    assert border(2, 5).all() and border(4, 5).sum() == 14

"""Norms: the equations, Table 1, where float32 is hard, and who brings which parameter.

W is ``[D, H]`` here, one column per unit; the paper writes its transpose.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.test_util import check_grads
from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import mnist
from ln.errors import InputError
from ln.norm import (
    EPSILON,
    KINDS,
    SITES,
    BatchNorm,
    Dense,
    Identity,
    LayerNorm,
    Linear,
    Norm,
    RMSNorm,
    WeightNormDense,
    batch_moments,
    batch_norm,
    declare_site,
    layer_norm,
    make_norm,
    rms_norm,
    weight_norm,
)
from tests import reference

N, D, H = 8, 5, 6  # cases, inputs, units


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def assert_all_close(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def bits(array):
    return np.asarray(array).tobytes()


# --- The equations ---

GAIN, BIAS = 1 + 0.3 * draw(H, seed=1), draw(H, seed=2)


@jax.jit
def batch_norm_of(a, gain, bias, epsilon):
    return batch_norm(a, *batch_moments(a), gain, bias, epsilon)


@partial(jax.jit, static_argnums=0)
def value_and_backward(function, d_y, *arguments):
    y, backward = jax.vjp(function, *arguments)
    return y, backward(d_y)


@pytest.mark.parametrize("epsilon", [0.0, EPSILON, 0.5])
@pytest.mark.parametrize(
    "ours, forward, backward",
    [
        (layer_norm, reference.layer_norm, reference.layer_norm_backward),
        (batch_norm_of, reference.batch_norm, reference.batch_norm_backward),
    ],
    ids=["layer", "batch"],
)
def test_outputs_and_gradients_are_those_of_the_equations(
    ours, forward, backward, epsilon, float64
):
    a, d_y = 3 + 2 * draw(N, H, seed=3), draw(N, H, seed=4)
    y, (d_a, d_gain, d_bias, _) = value_and_backward(ours, d_y, a, GAIN, BIAS, epsilon)
    assert y.dtype == np.float64
    assert_all_close(y, forward(a, GAIN, BIAS, epsilon), 1e-12)
    for found, expected in zip((d_a, d_gain, d_bias), backward(d_y, a, GAIN, epsilon), strict=True):
        assert_all_close(found, expected, 1e-12)


def test_weight_norm_and_its_gradients_are_those_of_the_equations(float64):
    v, d_w = draw(D, H, seed=3), draw(D, H, seed=4)
    w, (d_v, d_gain) = value_and_backward(weight_norm, d_w, v, GAIN)
    assert_all_close(w, reference.weight_norm(v, GAIN), 1e-12)
    expected_d_v, expected_d_gain = reference.weight_norm_backward(d_w, v, GAIN)
    assert_all_close(d_v, expected_d_v, 1e-12)
    assert_all_close(d_gain, expected_d_gain, 1e-12)


@pytest.mark.parametrize(
    "function, arguments",
    [
        (lambda a, gain, bias: layer_norm(a, gain, bias), (draw(N, H), GAIN, BIAS)),
        (lambda a, gain, bias: batch_norm_of(a, gain, bias, EPSILON), (draw(N, H), GAIN, BIAS)),
        (weight_norm, (draw(D, H), GAIN)),
    ],
    ids=["layer", "batch", "weight"],
)
def test_gradients_are_finite_differences(function, arguments, float64):
    check_grads(jax.jit(function), arguments, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_layer_norm_treats_all_leading_axes_alike(float64):
    a = draw(3, N, H)
    expected = reference.layer_norm(a.reshape(-1, H), GAIN, BIAS, EPSILON)
    assert_all_close(layer_norm(a, GAIN, BIAS), expected.reshape(a.shape), 1e-12)


def test_layer_norm_outputs_have_mean_0_and_mean_square_1(float64):
    y = layer_norm(5 + 3 * draw(N, H), 1.0, 0.0, epsilon=0.0)
    assert_all_close(y.mean(-1), 0, 1e-12)
    assert_all_close((y**2).mean(-1), 1, 1e-12)


def test_the_gradient_that_layer_norm_lets_through_is_orthogonal_to_1_and_to_its_output(float64):
    a, d_y = draw(N, H, seed=3), draw(N, H, seed=4)
    _, (d_a, *_) = value_and_backward(layer_norm, d_y, a, GAIN, BIAS, 0.0)
    a_hat = layer_norm(a, 1.0, 0.0, epsilon=0.0)
    assert_all_close(d_a.sum(-1), 0, 1e-12)
    assert_all_close((d_a * a_hat).sum(-1), 0, 1e-12)
    assert (abs((d_y * a_hat).sum(-1)) > 1e-2).all()  # nothing was orthogonal before


def test_layer_norm_is_flax_layer_norm(float64):
    a, d_y = draw(N, H, seed=3), draw(N, H, seed=4)
    theirs = nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, dtype=jnp.float64)

    def flax_layer_norm(a, gain, bias):
        return theirs.apply({"params": {"scale": gain, "bias": bias}}, a)

    found = value_and_backward(layer_norm, d_y, a, GAIN, BIAS)
    expected = value_and_backward(flax_layer_norm, d_y, a, GAIN, BIAS)
    jax.tree.map(partial(assert_all_close, tolerance=1e-12), found, expected)


def test_rms_norm_is_flax_rms_norm(float64):
    a, d_y = draw(N, H, seed=3), draw(N, H, seed=4)
    theirs = nn.RMSNorm(epsilon=EPSILON, use_fast_variance=False, dtype=jnp.float64)

    def flax_rms_norm(a, gain):
        return theirs.apply({"params": {"scale": gain}}, a)

    found = value_and_backward(rms_norm, d_y, a, GAIN)
    expected = value_and_backward(flax_rms_norm, d_y, a, GAIN)
    jax.tree.map(partial(assert_all_close, tolerance=1e-12), found, expected)


def test_layer_norm_is_torch_layer_norm(float64):
    torch = pytest.importorskip("torch")
    a, d_y = draw(N, H, seed=3), draw(N, H, seed=4)
    tensors = [torch.tensor(array, requires_grad=True) for array in (a, GAIN, BIAS)]
    theirs = torch.nn.functional.layer_norm(tensors[0], (H,), *tensors[1:], eps=EPSILON)
    theirs.backward(torch.tensor(d_y))
    y, gradients = value_and_backward(layer_norm, d_y, a, GAIN, BIAS)
    assert_all_close(y, theirs.detach().numpy(), 1e-12)
    for found, tensor in zip(gradients, tensors, strict=True):
        assert_all_close(found, tensor.grad.numpy(), 1e-12)


# --- Section 5: invariances and what follows from them ---

NORMS = ("batch", "weight", "layer")


@partial(jax.jit, static_argnums=0)
def outputs(norm, W, x, gain=GAIN, bias=BIAS):
    """The normalized summed inputs of one layer, without an epsilon, as in the paper."""
    match norm:
        case "batch":
            return batch_norm_of(x @ W, gain, bias, 0.0)
        case "weight":
            return x @ weight_norm(W, gain) + bias
        case "layer":
            return layer_norm(x @ W, gain, bias, epsilon=0.0)


@partial(jax.jit, static_argnums=0)
def gradient(norm, W, x):
    """d loss/d W for a loss that is not linear in the outputs."""
    return jax.grad(lambda W: (draw(len(x), H, seed=8) * jnp.tanh(outputs(norm, W, x))).sum())(W)


W, X = draw(D, H, seed=5), draw(N, D, seed=6)
random = np.random.default_rng(7)
TRANSFORMED = {
    "weight matrix re-scaling": (3.7 * W, X),
    "weight matrix re-centring": (W + random.normal(size=(D, 1)), X),
    "weight vector re-scaling": (W * np.exp(random.uniform(-1.6, 1.6, H)), X),
    "dataset re-scaling": (W, 3.7 * X),
    "dataset re-centring": (W, X + random.normal(size=D)),
    "single case re-scaling": (W, X * np.exp(random.uniform(-1.6, 1.6, (N, 1)))),
}
TABLE_1 = {
    "batch": (True, False, True, True, True, False),
    "weight": (True, False, True, False, False, False),
    "layer": (True, True, False, True, False, True),
}


@pytest.mark.parametrize(
    "norm, transformation, invariant",
    [
        (norm, transformation, invariant)
        for norm in NORMS
        for transformation, invariant in zip(TRANSFORMED, TABLE_1[norm], strict=True)
    ],
)
def test_outputs_are_invariant_exactly_where_table_1_says_so(
    norm, transformation, invariant, float64
):
    change = abs(outputs(norm, *TRANSFORMED[transformation]) - outputs(norm, W, X)).max()
    if invariant:
        assert change < 1e-12
    else:
        assert change > 1e-2


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_negative_scale_flips_the_sign(norm, float64):
    flipped = outputs(norm, -3.7 * W, X, bias=np.zeros(H))
    assert_all_close(flipped, -outputs(norm, W, X, bias=np.zeros(H)), 1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_twice_the_weights_halve_the_gradient(norm, float64):
    once, twice = gradient(norm, W, X), gradient(norm, 2 * W, X)
    assert abs(once).max() > 1e-2
    assert_all_close(twice, once / 2, 1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_is_orthogonal_to_the_weights(norm, float64):
    per_unit = (gradient(norm, W, X) * W).sum(0)  # <dL/dw_i, w_i>
    assert abs(per_unit.sum()) < 1e-12
    if norm == "layer":
        assert abs(per_unit).max() > 1e-2  # only of the matrix as a whole
    else:
        assert abs(per_unit).max() < 1e-12


def test_under_layer_norm_the_gradients_of_the_units_sum_to_zero(float64):
    assert abs(gradient("layer", W, X).sum(1)).max() < 1e-12
    assert abs(gradient("batch", W, X).sum(1)).max() > 1e-2


def test_two_units_under_layer_norm_tell_only_which_is_larger(float64):
    a = np.array([[1.0, 2.0], [-300.0, 0.1], [5.0, 4.999], [7.0, -1e6]])
    y = layer_norm(a, np.array([2.0, 3.0]), np.array([10.0, 20.0]), epsilon=0.0)
    assert_all_close(y, [[8, 23], [8, 23], [12, 17], [12, 17]], 1e-9)


def test_one_unit_under_layer_norm_is_always_its_bias():
    y = layer_norm(draw(N, 1).astype(np.float32), jnp.full(1, 2.0), jnp.full(1, 0.5))
    assert (y == 0.5).all()


def test_batch_norm_of_a_single_case_is_the_bias():
    """Claim 31: it cannot be used online."""
    y, _ = train_on(draw(1, H), bias=np.float32(BIAS))
    np.testing.assert_array_equal(y, np.float32(BIAS)[None])


# --- float32 ---


def test_large_means_cost_layer_norm_little_in_float32():
    a = np.float32(2000 + draw(64, 256))
    exact = reference.layer_norm(np.float64(a), 1.0, 0.0, EPSILON)
    assert abs(layer_norm(a, 1.0, 0.0) - exact).max() < 1e-2
    fast = nn.LayerNorm(epsilon=EPSILON)  # its default is E[a²] − E[a]²
    lost = abs(fast.apply(fast.init(jax.random.key(0), a), a) - exact).max()
    assert lost > 1e-2


def test_large_means_cost_batch_norm_little_in_float32():
    a = np.float32(2000 + draw(256, 64))
    exact = reference.batch_norm(np.float64(a), np.ones(64), np.zeros(64), EPSILON)
    assert abs(batch_norm_of(a, 1.0, 0.0, EPSILON) - exact).max() < 1e-2
    naive = batch_norm(a, a.mean(0), (a**2).mean(0) - a.mean(0) ** 2, 1.0, 0.0)
    assert not (abs(naive - exact) < 1e-2).all()


@pytest.mark.parametrize("constant", [0.0, 7.0, -2000.0])
@pytest.mark.parametrize("function", [layer_norm, batch_norm_of], ids=["layer", "batch"])
def test_constant_inputs_give_the_bias_and_finite_gradients(function, constant):
    a, d_y = np.full((N, H), constant, np.float32), np.float32(draw(N, H))
    gain, bias = np.float32(GAIN), np.float32(BIAS)
    y, (*gradients, _) = value_and_backward(function, d_y, a, gain, bias, EPSILON)
    np.testing.assert_array_equal(y, np.tile(bias, (N, 1)))
    assert all(np.isfinite(g).all() for g in gradients)


OTHERS = {
    "ordinary": np.float32(draw(N, 37, seed=9)),
    "huge": np.full((N, 37), 1e30, np.float32),
    "constant": np.zeros((N, 37), np.float32),
    "infinite": np.full((N, 37), np.inf, np.float32),
    "NaN": np.full((N, 37), np.nan, np.float32),
}


@pytest.mark.parametrize("others", OTHERS)
def test_layer_norm_of_a_case_is_bit_equal_whatever_the_rest_of_the_batch(others):
    a, d_y = np.float32(draw(N, 37)), np.float32(draw(N, 37, seed=4))
    gain, bias = np.float32(draw(37, seed=1)), np.float32(draw(37, seed=2))
    changed = np.where(np.arange(N)[:, None] == 3, a, OTHERS[others])
    alone, (alone_d_a, *_) = value_and_backward(layer_norm, d_y, a, gain, bias)
    found, (found_d_a, *_) = value_and_backward(layer_norm, d_y, changed, gain, bias)
    assert bits(found) != bits(alone)
    assert bits(found[3]) == bits(alone[3])
    assert bits(found_d_a[3]) == bits(alone_d_a[3])


def test_batch_norm_of_a_case_depends_on_the_rest_of_the_batch():
    a, d_y = np.float32(draw(N, H)), np.float32(draw(N, H, seed=4))
    changed = np.where(np.arange(N)[:, None] == 3, a, np.float32(draw(N, H, seed=9)))
    alone = value_and_backward(batch_norm_of, d_y, a, 1.0, 0.0, EPSILON)
    found = value_and_backward(batch_norm_of, d_y, changed, 1.0, 0.0, EPSILON)
    assert abs(found[0][3] - alone[0][3]).max() > 1e-2
    assert abs(found[1][0][3] - alone[1][0][3]).max() > 1e-2


# --- Batch norm: statistics ---


def train_on(a, mask=None, stats=None, bias=None, **options):
    """Outputs and new statistics of one training step, gains 1."""
    a = np.float32(a)
    units = a.shape[-1]
    if stats is None:
        stats = dict(mean=np.zeros(units), var=np.ones(units), count=np.float32(0))
    params = dict(gain=np.ones(units), bias=np.zeros(units) if bias is None else bias)
    variables = jax.tree.map(np.float32, dict(params=params, stats=stats))
    module = BatchNorm(train=True, **options)
    y, new = jax.jit(partial(module.apply, mutable=["stats"]))(variables, a, mask)
    return y, new["stats"]


SEEN = dict(mean=np.float32(draw(H)), var=np.float32(draw(H) ** 2), count=np.float32(7))


def test_running_averages_are_plain_means_at_first_and_exponential_later(float64):
    batches = 2 + draw(130, 4, H)
    module = BatchNorm(train=True)
    variables = module.init(jax.random.key(0), batches[0])

    def step(stats, a):
        _, new = module.apply(variables | {"stats": stats}, a, mutable=["stats"])
        return new["stats"], new["stats"]

    _, found = jax.jit(partial(jax.lax.scan, step))(variables["stats"], batches)
    for name, values in [("mean", batches.mean(1)), ("var", batches.var(1))]:
        expected = []
        for n, value in enumerate(values, start=1):
            if n <= 100:
                expected.append(values[:n].mean(0))
            else:
                expected.append(0.99 * expected[-1] + 0.01 * value)
        assert_all_close(found[name], expected, 1e-12)
    assert_all_close(found["count"], np.arange(1, 131), 0)


def test_momentum_is_the_weight_of_the_old_average():
    a = draw(N, H, seed=1)
    _, new = train_on(a, stats=SEEN | dict(count=1000), momentum=0.7)
    assert_all_close(new["mean"], 0.7 * SEEN["mean"] + 0.3 * a.mean(0), 1e-6)
    assert_all_close(new["var"], 0.7 * SEEN["var"] + 0.3 * a.var(0), 1e-6)


@pytest.mark.parametrize("value", [5.0, 1e30, np.inf, np.nan])
def test_masked_out_cases_have_no_influence(value):
    a, mask = np.float32(draw(N, H)), np.arange(N) % 3 != 0
    y, stats = train_on(np.where(mask[:, None], a, np.float32(value)), mask, SEEN)
    expected = reference.batch_norm(np.float64(a[mask]), np.ones(H), np.zeros(H), EPSILON)
    assert_all_close(y[mask], expected, 1e-5)
    _, without = train_on(a[mask], stats=SEEN)
    jax.tree.map(partial(assert_all_close, tolerance=1e-6), stats, without)


def test_masked_out_cases_receive_no_gradient_from_the_others():
    a, mask = np.float32(draw(N, H)), np.arange(N) % 3 != 0

    @jax.jit
    @jax.grad
    def gradient(a):
        y = batch_norm(a, *batch_moments(a, mask), 1.0, 0.0)
        return (draw(N, H, seed=4) * y * mask[:, None]).sum()

    d_a = gradient(a)
    assert (d_a[~mask] == 0).all()
    assert (d_a[mask] != 0).all()


def test_a_step_without_any_case_changes_nothing():
    y, stats = train_on(draw(N, H), np.zeros(N, bool), SEEN)
    assert jax.tree.map(bits, stats) == jax.tree.map(bits, SEEN)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("masked", [False, True])
def test_the_unbiased_variance_divides_by_n_minus_1(masked):
    a, mask = np.float32(draw(4, H)), np.array([True, True, False, True])
    rows = a[mask] if masked else a
    mu, var = batch_moments(a, mask if masked else None, unbiased=True)
    assert_all_close(mu, rows.mean(0), 1e-6)
    assert_all_close(var, rows.var(0, ddof=1), 1e-6)
    _, biased = batch_moments(a, mask if masked else None)
    assert_all_close(var, biased * len(rows) / (len(rows) - 1), 1e-6)


def test_outputs_and_averages_use_the_unbiased_variance_where_asked():
    a = draw(4, H)
    y, stats = train_on(a, unbiased=True)
    expected = (a - a.mean(0)) / np.sqrt(a.var(0, ddof=1) + EPSILON)
    assert_all_close(y, expected, 1e-5)
    assert_all_close(stats["var"], a.var(0, ddof=1), 1e-5)


def test_the_unbiased_variance_of_one_case_is_0():
    _, var = batch_moments(jnp.ones((1, H)), unbiased=True)
    assert (var == 0).all()


def test_without_averages_the_statistics_are_the_batchs_in_test_too():
    a, params = np.float32(draw(N, H, seed=3)), dict(gain=np.float32(GAIN), bias=np.float32(BIAS))
    mask = np.arange(N) < N - 1
    for train in (True, False):
        module = BatchNorm(train, averages=False)
        y, new = module.apply(dict(params=params), a, mask, mutable=["stats"])
        expected = reference.batch_norm(a[mask], GAIN, BIAS, EPSILON)
        assert_all_close(y[mask], expected, 1e-5)
        assert not new


def test_in_test_mode_the_averages_are_used_and_left_alone():
    a = np.float32(draw(N, H, seed=3))
    variables = dict(params=dict(gain=np.float32(GAIN), bias=np.float32(BIAS)), stats=SEEN)
    y, new = BatchNorm(train=False).apply(variables, a, mutable=["stats"])
    expected = GAIN * (a - SEEN["mean"]) / np.sqrt(SEEN["var"] + EPSILON) + BIAS
    assert_all_close(y, expected, 1e-5)
    assert jax.tree.map(bits, new["stats"]) == jax.tree.map(bits, SEEN)


def test_initializing_leaves_the_averages_untouched():
    stats = BatchNorm(train=True).init(jax.random.key(0), jnp.full((N, H), 9.0))["stats"]
    assert (stats["mean"] == 0).all() and (stats["var"] == 1).all() and stats["count"] == 0


# --- Norm and make_norm ---


def norm_of(kind, sites, train=True, **options):
    norms = dict(it=dict(kind=kind, sites=sites, **options))
    return make_norm(ConfigDict(dict(norm="it", norms=norms)), train)


class Layer(nn.Module):
    norm: Norm
    site: str

    @nn.compact
    def __call__(self, x):
        return self.norm(self.site)(self.norm.dense(self.site, H)(x))


def parameters(module, *shape):
    """The parameters' paths and shapes."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros(shape, np.float32))
    leaves = jax.tree_util.tree_leaves_with_path(shapes.get("params", {}))
    return {jax.tree_util.keystr(path, simple=True, separator="."): x.shape for path, x in leaves}


def equation(kind, x, kernel, gain=None, bias=0.0):
    """A normalized layer in float64; what Layer should compute."""
    match kind:
        case "layer":
            return reference.layer_norm(x @ kernel, gain, bias, EPSILON)
        case "batch":
            return reference.batch_norm(x @ kernel, gain, bias + np.zeros(H), EPSILON)
        case "rms":
            return reference.rms_norm(x @ kernel, gain, bias, EPSILON)
        case "weight":
            return x @ reference.weight_norm(kernel, gain) + bias
    return x @ kernel + bias


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", mnist.get_config().norms)
def test_every_norm_of_the_config_sits_at_its_sites_and_nowhere_else(name, site):
    config = mnist.get_config()
    config.norm = name
    layer = Layer(make_norm(config, train=True), site)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), np.float32(X))["params"]
    params = jax.tree.map(lambda leaf: np.float32(draw(*leaf.shape, seed=len(leaf.shape))), shapes)
    y, _ = layer.apply({"params": params}, np.float32(X), mutable=["stats"])

    leaves = {path[-1].key: leaf for path, leaf in jax.tree.leaves_with_path(params)}
    sits = site in config.norms[name].get("sites", ())
    assert ("gain" in leaves) == sits
    expected = equation(config.norms[name].get("kind") if sits else None, X, **leaves)
    assert_all_close(y, expected, 1e-4)


# Whether there is a bias at x, h, c, a, out. At x and h it is the cell's.
BIASES = {
    "none": (False, False, False, True, True),
    "layer": (True, True, True, True, True),
    "batch": (False, False, True, True, True),
    "rms": (False, False, True, True, True),
    "weight": (False, False, False, True, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_bias_sits_under_a_norm_and_a_layer_has_exactly_one(kind):
    sites = [site for site in SITES if site != "conv"]  # tests/test_convnet.py has that
    norm = norm_of(kind, [s for s in sites if (kind, s) != ("weight", "c")])
    for site, expected in zip(sites, BIASES[kind], strict=True):
        found = parameters(Layer(norm, site), N, D)
        biases = [path for path in found if path.endswith("bias")]
        assert len(biases) == expected, (site, found)
        assert not any("Dense" in path for path in biases)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_site_there_is_a_plain_layer(kind):
    x, kernel, bias = np.float32(X), np.float32(W), np.float32(BIAS)
    layer = Layer(norm_of(kind, sites=("c",) if kind != "weight" else ("h",)), "a")
    params = {"Dense_0": {"kernel": kernel}, "Identity_0": {"bias": bias}}
    plain = nn.Dense(H).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    assert bits(layer.apply({"params": params}, x)) == bits(plain)


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_weight_vectors_have_the_length_of_their_gain(gain):
    dense = norm_of("weight", ("a",), gain=gain).dense("a", H)
    assert isinstance(dense, WeightNormDense)
    columns, variables = dense.init_with_output(jax.random.key(0), np.eye(D, dtype=np.float32))
    assert_all_close(np.linalg.norm(columns, axis=0), np.full(H, gain), 1e-6)
    grown = {"kernel": 3 * variables["params"]["kernel"], "gain": np.arange(H, dtype=np.float32)}
    columns = dense.apply({"params": grown}, np.eye(D, dtype=np.float32))
    assert_all_close(np.linalg.norm(columns, axis=0), np.arange(H), 1e-6)


OPTIONS = {
    "layer": dict(gain=0.5, epsilon=1e-3),
    "rms": dict(gain=0.5, epsilon=1e-3),
    "batch": dict(gain=0.5, momentum=0.9, unbiased=True, averages=False, epsilon=1e-3),
    "weight": dict(gain=0.5),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_the_config_says_of_a_norm_reaches_its_module(kind):
    norm = norm_of(kind, ("a",), **OPTIONS[kind])
    module = norm.dense("a", H) if kind == "weight" else norm("a")
    assert {name: getattr(module, name) for name in OPTIONS[kind]} == OPTIONS[kind]


@pytest.mark.parametrize("train", [True, False])
def test_the_mode_is_bound_in_the_norm(train):
    assert norm_of("batch", ("a",), train)("a").train == train


def test_gains_start_at_the_gain_and_biases_at_0():
    for module in (LayerNorm(gain=0.1), BatchNorm(train=True, gain=0.1)):
        params = module.init(jax.random.key(0), jnp.ones((N, H)))["params"]
        assert (params["gain"] == np.float32(0.1)).all() and params["gain"].shape == (H,)
        assert (params["bias"] == 0).all() and params["bias"].shape == (H,)


def test_two_norms_of_one_config_are_equal_and_hashable():
    """What jit and flax ask of an attribute."""
    one, two = (norm_of("batch", ["a"], unbiased=True, gain=1.0) for _ in range(2))
    assert one == two and hash(one) == hash(two)


KEY = jax.random.key(0)


def refused(*words):
    return pytest.raises(InputError, match="^" + "".join(f"(?=.*{word})" for word in words))


def test_a_misspelt_norm_is_refused_with_the_nearest_name():
    config = mnist.get_config()
    config.norm = "layr"
    with refused("config.norm", "'layr'", "Did you mean 'layer'", "Known: batch, layer, none"):
        make_norm(config, train=True)


def test_a_misspelt_kind_is_refused_with_the_nearest_name():
    with refused("config.norms.it: ", "norm kind", "'bacth'", "Did you mean 'batch'"):
        norm_of("bacth", ("a",))


def test_an_option_of_another_kind_is_refused():
    with refused("option", "'momentum'", "Known: epsilon, gain, gains, over"):
        norm_of("layer", ("a",), momentum=0.9)


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "arguments, words",
    [
        (("layernorm", ("x",)), ("norm kind 'layernorm'", "Did you mean 'layer'")),
        (("layer", ("x", "hh")), ("norm site 'hh'", "Did you mean 'h'")),
        (("layer", "xh"), ("must be a tuple of names", "got 'xh'")),
        (("layer",), ("has no sites", "would normalize nothing")),
        (("weight", ("x", "c")), ("weight norm needs a matrix",)),
        (("weight", ("x",), {"gian": 1.0}), ("weight norm option 'gian'", "Did you mean 'gain'")),
        (("layer", ("x",), True), ("options must be a dict", "got True")),
        (("layer", ("x",), {"gian": 1.0}), ("layer norm option 'gian'", "Did you mean 'gain'")),
        (("layer", ("x",), {"gain": "1"}), ("gain must be a finite number; got '1'",)),
        (("layer", ("x",), {"gain": float("nan")}), ("gain must be a finite number; got nan",)),
        (("layer", ("x",), {"epsilon": -1e-5}), ("epsilon must be", "0 or more", "got -1e-05")),
        (("batch", ("x",), {"momentum": 1.5}), ("momentum must be", "from 0 to 1", "got 1.5")),
        (("batch", ("x",), {"unbiased": 1}), ("unbiased must be True or False; got 1",)),
        (("layer", ("x",), {}, "yes"), ("train must be True or False; got 'yes'",)),
    ],
)
def test_invalid_norm_arguments_raise(arguments, words):
    """A Norm that is accepted does what its words say: a misspelt one would normalize nothing."""
    with refused(*words):
        Norm(*arguments)


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LayerNorm(gain="1"), "gain must be a finite number; got '1'"),
        (lambda: LayerNorm(over="layr"), "Did you mean 'layer'"),
        (lambda: RMSNorm(bias=1), "bias must be True or False; got 1"),
        (lambda: BatchNorm(train=None), "train must be True or False; got None"),
        (lambda: BatchNorm(train=True, momentum=-0.1), "momentum must be a number from 0 to 1"),
        (lambda: Dense(0), "Dense: features must be a whole number of 1 or more; got 0"),
        (lambda: WeightNormDense(2.5), "features must be a whole number of 1 or more; got 2.5"),
        (lambda: Norm().dense("a", True), "features must be a whole number of 1 or more; got True"),
        (lambda: Linear("4", Norm()), "Linear: features must be a whole number"),
        (lambda: Linear(4, "layer"), "norm must be a Norm, such as ln.Norm.+; got 'layer'"),
        (lambda: LayerNorm().init(KEY, np.float32(1)), "LayerNorm needs summed inputs"),
        (lambda: RMSNorm(spatial=True).init(KEY, np.ones((2, 3))), "with 3 axes or more"),
        (lambda: LayerNorm().init(KEY, np.ones((2, 0))), "none of the last 1 of size 0"),
        (lambda: BatchNorm(train=True).init(KEY, np.ones((3, 2, 4))), "needs summed inputs .B, H."),
        (
            lambda: batch_moments(np.ones((2, 3)), np.ones(2)),
            "mask must be booleans .2,.; got float",
        ),
        (
            lambda: batch_moments(np.ones((2, 3)), [True, False]),
            "mask must be an array of booleans",
        ),
    ],
)
def test_invalid_module_arguments_raise(make, words):
    with refused(words):
        make()


def test_options_are_equal_in_any_order_and_form():
    pairs = (("momentum", 0.9), ("gain", 0.5))
    assert Norm("batch", ["a"], dict(pairs)) == Norm("batch", ("a",), pairs[::-1])


def test_a_declared_site_owns_its_bias(monkeypatch):
    """A model outside this project declares its sites; all other names still raise."""
    monkeypatch.setattr("ln.norm._DECLARED", [])
    with refused("norm site 'attention'"):
        Norm("layer", ("attention",))
    assert declare_site("attention") == declare_site("attention") == "attention"
    for kind in KINDS:
        paths = parameters(Layer(Norm(kind, ("attention",)), "attention"), N, D)
        assert sum(path.endswith("bias") for path in paths) == 1, kind
    with refused("norm site 'atention'", "Did you mean 'attention'"):
        Norm("layer", ("atention",))
    with refused("must be an identifier"):
        declare_site("my site")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_misspells_a_site_is_refused_under_every_norm(kind):
    with refused("norm site", "'ot'", "Did you mean 'out'"):
        norm_of(kind, ("a",))("ot")
    with refused("norm site", "'ot'", "Did you mean 'out'"):
        norm_of(kind, ("a",)).dense("ot", H)


# --- A norm of one's own ---


class Shorter(nn.Module):
    """Make every example shorter than its gain."""

    gain: float = 1.0
    train: bool = False

    @nn.compact
    def __call__(self, a, mask=None):
        gain = self.param("gain", nn.initializers.constant(self.gain), a.shape[-1:])
        return gain * a / jnp.sqrt(1 + (a**2).sum(-1, keepdims=True))


class Halved(Dense):
    """A matrix that counts half."""

    def weights(self, D):
        return super().weights(D) / 2


@pytest.mark.parametrize("kind", [Shorter, f"{__name__}:Shorter"])
def test_a_class_is_a_norm(kind):
    config = mnist.get_config()
    config.norms.mine, config.norm = (
        dict(kind=f"{__name__}:Shorter", sites=("a",), gain=0.5),
        "mine",
    )
    norm = Norm(kind, ("a",), {"gain": 0.5}, True)
    assert hash(norm) == hash(Norm(kind, ["a"], (("gain", 0.5),), True))
    for made in (norm, make_norm(config, train=True)):
        module = made("a")
        assert isinstance(module, Shorter) and module.gain == 0.5 and module.train
        y = Layer(made, "a").init_with_output(jax.random.key(0), 1e4 * np.float32(X))[0]
        assert_all_close(jnp.linalg.norm(y, axis=-1), 0.5, 1e-4)
        assert isinstance(made("out"), Identity)


def test_a_dense_class_replaces_the_matrix():
    norm = Norm(Halved, ("a",))
    params = {"params": {"kernel": np.float32(W)}}
    assert_all_close(norm.dense("a", H).apply(params, np.float32(X)), X @ W / 2, 1e-5)
    assert isinstance(norm("a"), Identity)


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "kind, words",
    [
        (f"{__name__}:Shortr", "Shortr"),
        ("no_such_module:Mine", "No module named 'no_such_module'"),
        (":Mine", "cannot be imported"),
        (f"{__name__}:draw", "must be a subclass of flax.linen.Module"),
        (dict, "must be a subclass of flax.linen.Module"),
        (3, "must be a subclass of flax.linen.Module; got 3"),
    ],
)
def test_a_kind_that_is_no_norm_raises(kind, words):
    with refused(words):
        Norm(kind, ("a",))


def test_options_of_a_class_are_its_fields():
    with refused("Shorter norm option 'gian'", "Did you mean 'gain'"):
        Norm(Shorter, ("a",), {"gian": 1.0})
    with refused("option 'train'"):
        Norm(Shorter, ("a",), {"train": True})

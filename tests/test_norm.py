"""Norms: the equations, Table 1, where float32 is hard, and who brings which parameter.

W is ``[D, H]`` here, one column per unit; the paper writes its transpose.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
import pytest

from configs import mnist
from ln import BatchNorm, LayerNorm, Norm, RMSNorm, layer_norm
from ln import norm as norms
from ln.errors import InputError
from ln.norm import EPSILON, KINDS, SITES, Dense, Identity, Linear, batch_moments, make_norm
from tests import reference
from tests.cells import Shorter, assert_all_close, draw

N, D, H = 8, 5, 6  # examples, inputs, units


def bits(array):
    return np.asarray(array).tobytes()


# --- The equations ---

GAIN, BIAS = 1 + 0.3 * draw(H, seed=1), draw(H, seed=2)


@jax.jit
def batch_norm_of(a, gain, bias, epsilon):
    return norms.batch_norm(a, *batch_moments(a), gain, bias, epsilon)


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
    y, (*gradients, _) = value_and_backward(ours, d_y, a, GAIN, BIAS, epsilon)
    assert y.dtype == np.float64
    assert_all_close(y, forward(a, GAIN, BIAS, epsilon), 1e-12)
    assert_all_close(tuple(gradients), backward(d_y, a, GAIN, epsilon), 1e-12)


def test_weight_norm_and_its_gradients_follow_the_equations(float64):
    v, d_w = draw(D, H, seed=3), draw(D, H, seed=4)
    w, gradients = value_and_backward(norms.weight_norm, d_w, v, GAIN)
    assert_all_close(w, reference.weight_norm(v, GAIN), 1e-12)
    assert_all_close(gradients, reference.weight_norm_backward(d_w, v, GAIN), 1e-12)


@pytest.mark.parametrize(
    "ours, module, names",
    [(layer_norm, nn.LayerNorm, ("scale", "bias")), (norms.rms_norm, nn.RMSNorm, ("scale",))],
)
def test_norms_are_those_of_flax(ours, module, names, float64):
    a, d_y, parameters = draw(N, H, seed=3), draw(N, H, seed=4), (GAIN, BIAS)[: len(names)]
    theirs = module(epsilon=EPSILON, use_fast_variance=False, dtype=jnp.float64)

    def apply(a, *parameters):
        return theirs.apply({"params": dict(zip(names, parameters, strict=True))}, a)

    actual = value_and_backward(ours, d_y, a, *parameters)
    assert_all_close(actual, value_and_backward(apply, d_y, a, *parameters), 1e-12)


W, X = draw(D, H, seed=5), draw(N, D, seed=6)


def test_batch_norm_of_a_single_example_is_the_bias():
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
    naive = norms.batch_norm(a, a.mean(0), (a**2).mean(0) - a.mean(0) ** 2, 1.0, 0.0)
    assert not (abs(naive - exact) < 1e-2).all()


OTHERS = {
    "ordinary": np.float32(draw(N, 37, seed=9)),
    "huge": np.full((N, 37), 1e30, np.float32),
    "constant": np.zeros((N, 37), np.float32),
    "infinite": np.full((N, 37), np.inf, np.float32),
    "NaN": np.full((N, 37), np.nan, np.float32),
}


@pytest.mark.parametrize("others", OTHERS)
def test_layer_norm_of_an_example_ignores_the_rest_of_the_batch(others):
    a, d_y = np.float32(draw(N, 37)), np.float32(draw(N, 37, seed=4))
    gain, bias = np.float32(draw(37, seed=1)), np.float32(draw(37, seed=2))
    changed = np.where(np.arange(N)[:, None] == 3, a, OTHERS[others])
    alone, (alone_d_a, *_) = value_and_backward(layer_norm, d_y, a, gain, bias)
    actual, (found_d_a, *_) = value_and_backward(layer_norm, d_y, changed, gain, bias)
    assert bits(actual) != bits(alone)
    assert bits(actual[3]) == bits(alone[3])
    assert bits(found_d_a[3]) == bits(alone_d_a[3])


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


def test_averages_are_plain_at_first_and_exponential_later(float64):
    batches = 2 + draw(130, 4, H)
    module = BatchNorm(train=True)
    variables = module.init(jax.random.key(0), batches[0])

    def step(stats, a):
        _, new = module.apply(variables | {"stats": stats}, a, mutable=["stats"])
        return new["stats"], new["stats"]

    _, stats = jax.jit(partial(jax.lax.scan, step))(variables["stats"], batches)
    for name, values in [("mean", batches.mean(1)), ("var", batches.var(1))]:
        expected = []
        for n, value in enumerate(values, start=1):
            if n <= 100:
                expected.append(values[:n].mean(0))
            else:
                expected.append(0.99 * expected[-1] + 0.01 * value)
        assert_all_close(stats[name], expected, 1e-12)
    assert_all_close(stats["count"], np.arange(1, 131), 0)


def test_momentum_is_the_weight_of_the_old_average():
    a = draw(N, H, seed=1)
    _, new = train_on(a, stats=SEEN | dict(count=1000), momentum=0.7)
    assert_all_close(new["mean"], 0.7 * SEEN["mean"] + 0.3 * a.mean(0), 1e-6)
    assert_all_close(new["var"], 0.7 * SEEN["var"] + 0.3 * a.var(0), 1e-6)


@pytest.mark.parametrize("value", [5.0, 1e30, np.inf, np.nan])
def test_masked_out_examples_have_no_influence(value):
    a, mask = np.float32(draw(N, H)), np.arange(N) % 3 != 0
    y, stats = train_on(np.where(mask[:, None], a, np.float32(value)), mask, SEEN)
    expected = reference.batch_norm(np.float64(a[mask]), np.ones(H), np.zeros(H), EPSILON)
    assert_all_close(y[mask], expected, 1e-5)
    _, without = train_on(a[mask], stats=SEEN)
    assert_all_close(stats, without, 1e-6)


def test_a_step_without_any_example_changes_nothing():
    y, stats = train_on(draw(N, H), np.zeros(N, bool), SEEN)
    assert jax.tree.map(bits, stats) == jax.tree.map(bits, SEEN)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("masked", [False, True])
def test_the_unbiased_variance_divides_by_n_minus_1(masked):
    a, mask = np.float32(draw(4, H)), np.array([True, True, False, True])
    rows = a[mask] if masked else a
    y, stats = train_on(a, mask if masked else None, unbiased=True)
    expected = (a - rows.mean(0)) / np.sqrt(rows.var(0, ddof=1) + EPSILON)
    assert_all_close(y, expected, 1e-5)
    assert_all_close(stats["var"], rows.var(0, ddof=1), 1e-5)
    assert (batch_moments(a[:1], unbiased=True)[1] == 0).all()


def test_without_averages_a_test_takes_the_batchs_statistics():
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
    """Return the parameters' paths and shapes."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros(shape, np.float32))
    leaves = jax.tree_util.tree_leaves_with_path(shapes.get("params", {}))
    return {jax.tree_util.keystr(path, simple=True, separator="."): x.shape for path, x in leaves}


def equation(kind, x, kernel, **own):
    """Return the output that Layer should compute, in float64."""
    W = reference.weight_norm(kernel, own["gain"]) if kind == "weight" else kernel
    return reference.normalize(kind, {"it": own}, "it", x @ W, np.ones(len(x), bool), EPSILON)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", mnist.get_config().norms)
def test_every_norm_sits_at_its_sites_and_nowhere_else(name, site):
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


# True if there is a bias at x, h, c, a, out. At x and h it is the cell's.
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
        actual = parameters(Layer(norm, site), N, D)
        biases = [path for path in actual if path.endswith("bias")]
        assert len(biases) == expected, (site, actual)
        assert not any("Dense" in path for path in biases)


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_weight_vectors_have_the_length_of_their_gain(gain):
    dense = norm_of("weight", ("a",), gain=gain).dense("a", H)
    assert isinstance(dense, norms.WeightNormDense)
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
def test_the_options_of_a_norm_reach_its_module(kind):
    norm = norm_of(kind, ("a",), **OPTIONS[kind])
    module = norm.dense("a", H) if kind == "weight" else norm("a")
    assert {name: getattr(module, name) for name in OPTIONS[kind]} == OPTIONS[kind]
    if kind == "batch":
        assert module.train and not norm_of(kind, ("a",), train=False)("a").train


def test_gains_start_at_the_gain_and_biases_at_0():
    for module in (LayerNorm(gain=0.1), BatchNorm(train=True, gain=0.1)):
        params = module.init(jax.random.key(0), jnp.ones((N, H)))["params"]
        assert (params["gain"] == np.float32(0.1)).all() and params["gain"].shape == (H,)
        assert (params["bias"] == 0).all() and params["bias"].shape == (H,)


def test_equal_norms_have_one_hash():
    """Jit and flax ask this of an attribute, in any order and form of the options."""
    pairs = (("momentum", 0.9), ("gain", 0.5))
    first, second = Norm("batch", ["a"], dict(pairs)), Norm("batch", ("a",), pairs[::-1])
    assert first == second and hash(first) == hash(second)
    made, again = (norm_of("batch", ["a"], unbiased=True, gain=1.0) for _ in range(2))
    assert made == again and hash(made) == hash(again)


KEY = jax.random.key(0)


def refused(words):
    return pytest.raises(InputError, match=words)


MINE = f"{Shorter.__module__}:Shorter"
INVALID = {
    "norm kind 'layernorm'. Did you mean 'layer'": lambda: Norm("layernorm", ("x",)),
    "norm site 'hh'. Did you mean 'h'": lambda: Norm("layer", ("x", "hh")),
    "must be a tuple of names.* got 'xh'": lambda: Norm("layer", "xh"),
    "has no sites.*would normalize nothing": lambda: Norm("layer"),
    "weight norm needs a matrix": lambda: Norm("weight", ("x", "c")),
    "options must be a dict.* got True": lambda: Norm("layer", ("x",), True),
    "layer norm option 'gian'. Did": lambda: Norm("layer", ("x",), {"gian": 1.0}),
    "gain must be a finite number; got '1'": lambda: Norm("layer", ("x",), {"gain": "1"}),
    "gain must be .*; got nan": lambda: Norm("layer", ("x",), {"gain": float("nan")}),
    "epsilon must be.*0 or more.*got -1e-05": lambda: Norm("layer", ("x",), {"epsilon": -1e-5}),
    "momentum must be.*from 0 to 1.*got 1.5": lambda: Norm("batch", ("x",), {"momentum": 1.5}),
    "unbiased must be True or False; got 1": lambda: Norm("batch", ("x",), {"unbiased": 1}),
    "train must be .*; got 'yes'": lambda: Norm("layer", ("x",), {}, "yes"),
    "Shortr": lambda: Norm("tests.cells:Shortr", ("a",)),
    "No module named 'no_such_module'": lambda: Norm("no_such_module:Mine", ("a",)),
    "cannot be imported": lambda: Norm(":Mine", ("a",)),
    "must be a subclass of flax.linen.Module": lambda: Norm("tests.cells:draw", ("a",)),
    "a subclass of flax.linen.Module; got .*dict": lambda: Norm(dict, ("a",)),
    "Shorter norm option 'gian'. Did you mean 'gain'": lambda: Norm(Shorter, ("a",), {"gian": 1}),
    "option 'train'": lambda: Norm(Shorter, ("a",), {"train": True}),
    "^config.norms.it: .*norm kind 'bacth'. Did you mean 'batch'": lambda: norm_of("bacth", ("a",)),
    "'momentum'.*Known: epsilon, gain, gains, over": lambda: norm_of("layer", ("a",), momentum=1),
    "Did you mean 'layer'": lambda: LayerNorm(over="layr"),
    "bias must be True or False; got 1": lambda: RMSNorm(bias=1),
    "train must be True or False; got None": lambda: BatchNorm(train=None),
    "Dense: features must be a whole number of 1 or more; got 0": lambda: Dense(0),
    "Linear: features must be a whole number": lambda: Linear("4", Norm()),
    "norm must be a Norm, such as ln.Norm.+; got 'layer'": lambda: Linear(4, "layer"),
    "LayerNorm needs summed inputs": lambda: LayerNorm().init(KEY, np.float32(1)),
    "with 3 axes or more": lambda: RMSNorm(spatial=True).init(KEY, np.ones((2, 3))),
    "none of the last 1 of size 0": lambda: LayerNorm().init(KEY, np.ones((2, 0))),
    "needs summed inputs .B, H.": lambda: BatchNorm(train=True).init(KEY, np.ones((3, 2, 4))),
    "mask must be booleans .2,.; got float": lambda: batch_moments(np.ones((2, 3)), np.ones(2)),
    "mask must be an array of booleans": lambda: batch_moments(np.ones((2, 3)), [True, False]),
}


@pytest.mark.wrong_values
@pytest.mark.parametrize("words", INVALID)
def test_invalid_arguments_raise(words):
    """A Norm that is accepted does what its words say: a misspelt one would normalize nothing."""
    with refused(words):
        INVALID[words]()


def test_a_declared_site_owns_its_bias(monkeypatch):
    """A model outside this project declares its sites; all other names still raise."""
    monkeypatch.setattr("ln.norm._DECLARED", [])
    with refused("norm site 'attention'"):
        Norm("layer", ("attention",))
    assert norms.declare_site("attention") == norms.declare_site("attention") == "attention"
    for kind in KINDS:
        paths = parameters(Layer(Norm(kind, ("attention",)), "attention"), N, D)
        assert sum(path.endswith("bias") for path in paths) == 1, kind
    with refused("norm site 'atention'. Did you mean 'attention'"):
        Norm("layer", ("atention",))
    with refused("must be an identifier"):
        norms.declare_site("my site")


@pytest.mark.parametrize("kind", KINDS)
def test_every_norm_raises_at_a_misspelt_site(kind):
    norm = norm_of(kind, ("a",))
    for use in (norm, partial(norm.dense, features=H)):
        with refused("norm site 'ot'. Did you mean 'out'"):
            use("ot")


# --- A norm of one's own ---


class Halved(Dense):
    """A matrix that counts half."""

    def weights(self, D):
        return super().weights(D) / 2


@pytest.mark.parametrize("kind", [Shorter, MINE])
def test_a_class_is_a_norm(kind):
    config = mnist.get_config()
    config.norms.mine, config.norm = dict(kind=MINE, sites=("a",), gain=0.5), "mine"
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

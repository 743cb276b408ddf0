"""Permutation invariant MNIST: the loss, the published settings, the network and the task."""

from functools import partial
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import mnist as config_file
from experiments import datasets
from experiments.datasets.corpora import mnist as mnist_files
from experiments.mnist.model import Model
from experiments.mnist.task import INITIALIZERS, Task
from experiments.tasks import negative_log_likelihood, pixels
from ln.errors import InputError
from ln.norm import EPSILON, make_norm
from ln.training import train
from tests import reference

NORMS = tuple(config_file.get_config().norms)
SWEEP = list(config_file.sweep())


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where the built-in digits are prepared, once."""
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("digits", folder)
    return folder


def bits(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), tree)


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
    found = jax.jit(negative_log_likelihood)(logits, y)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_usual_form_of_the_loss_would_be_0_where_figure_6_has_points():
    logits, y = logits_with((40, 60))
    usual = jax.jit(optax.softmax_cross_entropy_with_integer_labels)(logits, y)
    expected = per_row(reference.negative_log_likelihood, logits, y)
    assert (abs(usual - expected) > 0.5 * expected).all()


def test_the_loss_has_the_gradient_softmax_minus_onehot():
    logits, y = logits_with(GAPS)
    found = jax.jit(jax.grad(lambda logits: negative_log_likelihood(logits, y).sum()))(logits)
    expected = per_row(reference.negative_log_likelihood_backward, logits, y)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-36)


@pytest.mark.parametrize("offset", [0.0, 1024.0, -(2.0**20)])
def test_the_same_number_added_to_all_logits_changes_nothing(offset):
    gaps = np.array([-30, -2, 0, 1, 5, 40])
    logits = np.zeros((len(gaps), 10), np.float32)
    logits[:, 3] = gaps
    found = jax.jit(negative_log_likelihood)(logits + np.float32(offset), np.full(len(gaps), 3))
    np.testing.assert_allclose(found, np.log1p(9 * np.exp(-gaps)), rtol=1e-5)


# --- The settings ---


def test_published_hyperparameters_are_pinned():
    config = config_file.get_config()
    assert (config.experiment, config.dataset) == ("mnist", "mnist")
    assert config.hidden == 1000
    assert config.steps == "65 epochs"
    assert config.batch_size == 128
    assert config.optimizer.kind == "adam"
    assert config.clip == 0
    norms = {name: dict(norm) for name, norm in config.norms.items()}
    assert norms["none"] == {}
    assert norms["layer"] == dict(kind="layer", sites=("a",), gain=1.0)
    assert norms["batch"] == dict(kind="batch", sites=("a", "out"), gain=1.0, unbiased=False)
    assert 60_000 - mnist_files.VALID == 55_000


@pytest.mark.parametrize(
    "norm, count",
    [("none", 1_796_010), ("layer", 1_798_010), ("batch", 1_798_020), ("weight", 1_798_010)],
)
def test_the_number_of_parameters_is_that_of_figure_6(norm, count):
    """A norm adds a gain per normalized unit and nothing else."""
    config = config_file.get_config()
    config.norm = norm
    model = Model(config.hidden, make_norm(config, train=True), INITIALIZERS[config.init])
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((2, 784), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


def test_the_sweep_is_figure_6():
    expected = set(itertools.product(("none", "batch", "layer"), (128, 4)))
    assert {(run["norm"], run["batch_size"]) for run in SWEEP} == expected
    assert len(SWEEP) == 6
    for run in SWEEP:
        unbiased = run.get("norms.batch.unbiased", False)
        assert unbiased == ((run["norm"], run["batch_size"]) == ("batch", 4))
        assert len(set(run["seeds"])) >= 3


@pytest.mark.parametrize("scale", config_file.SCALES)
@pytest.mark.parametrize("run", SWEEP, ids=[f"{run['norm']}-{run['batch_size']}" for run in SWEEP])
def test_every_run_of_the_sweep_applies_to_its_config(run, scale):
    config = config_file.get_config(scale)
    config.update_from_flattened_dict(run)
    assert (config.norm, config.batch_size, config.seeds) == (
        run["norm"],
        run["batch_size"],
        run["seeds"],
    )
    unbiased = run.get("norms.batch.unbiased", False)
    assert config.norms.batch.unbiased == unbiased
    norm = make_norm(config, train=True)
    assert norm.kind == run["norm"]
    assert dict(norm.options).get("unbiased", False) == unbiased


@pytest.mark.parametrize("batch_size", [128, 4])
def test_calls_divide_an_epoch_so_that_one_program_does_all_steps(batch_size):
    assert 55_000 // batch_size % config_file.get_config().steps_per_call == 0


def test_a_misspelt_scale_is_refused_with_the_nearest_name():
    with pytest.raises(KeyError, match='Did you mean "small"'):
        config_file.get_config("smal")


# --- The network ---

# Product and norm of each layer, from below, by their names in the parameters.
LAYERS = {
    "none": [("Dense_0", "Identity_0"), ("Dense_1", "Identity_1"), ("Dense_2", "Identity_2")],
    "batch": [("Dense_0", "BatchNorm_0"), ("Dense_1", "BatchNorm_1"), ("Dense_2", "BatchNorm_2")],
    "layer": [("Dense_0", "LayerNorm_0"), ("Dense_1", "LayerNorm_1"), ("Dense_2", "Identity_0")],
    "weight": [
        ("WeightNormDense_0", "Identity_0"),
        ("WeightNormDense_1", "Identity_1"),
        ("Dense_0", "Identity_2"),
    ],
}


def network(norm, p, x):
    """Logits in training mode, by the equations."""
    for n, (dense, after) in enumerate(LAYERS[norm]):
        W = p[dense]["kernel"]
        if dense.startswith("WeightNorm"):
            W = reference.weight_norm(W, p[dense]["gain"])
        a = x @ W
        if after.startswith("LayerNorm"):
            a = reference.layer_norm(a, p[after]["gain"], p[after]["bias"], EPSILON)
        elif after.startswith("BatchNorm"):
            a = reference.batch_norm(a, p[after]["gain"], p[after]["bias"], EPSILON)
        else:
            a = a + p[after]["bias"]
        x = a if n == 2 else np.maximum(a, 0)
    return x


@pytest.fixture(scope="module", params=NORMS)
def task(request, data_dir):
    config = config_file.get_config("tiny")
    config.norm = request.param
    config.hidden = 32
    config.batch_size = 16
    config.data_dir = str(data_dir)
    return Task(config)


@pytest.fixture(scope="module")
def fresh(task):
    """(seed, lr) -> the state before the first step, compiled."""
    return jax.jit(partial(train.init_state, task, train.make_optimizer(task.config)))


@pytest.fixture(scope="module")
def lesson(task, fresh):
    """60 steps on one batch: the states before each of them and at the end, and the losses."""
    step = jax.jit(partial(train.train_step, task, train.make_optimizer(task.config)))
    state, batch = fresh(jnp.int32(0), jnp.float32(1e-2)), task.batch(0)
    states, losses = [state], []
    for _ in range(60):
        state, metrics = step(state, batch)
        states.append(state)
        losses.append(float(metrics["loss"]))
    return states, losses


def variables_of(state):
    return {"params": state.params, "stats": state.stats}


def test_the_network_is_relu_of_normalized_sums_twice_and_normalized_logits(task, lesson):
    params = lesson[0][20].params  # where no gain is 1 and no bias is 0 any more
    layers = LAYERS[task.config.norm]
    assert set(params) == {name for layer in layers for name in layer}
    x = pixels(task.batch(1)["x"])
    apply = jax.jit(partial(task.model(train=True).apply, mutable=["stats"]))
    found, _ = apply({"params": params}, x)
    expected = network(task.config.norm, jax.tree.map(np.float64, params), np.float64(x))
    assert expected.shape == (16, 10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_every_layer_has_exactly_one_bias_and_none_below_its_norm(task, lesson):
    params = lesson[0][0].params
    for dense, norm in LAYERS[task.config.norm]:
        assert "bias" not in params[dense]
        assert "bias" in params[norm]


def test_intensities_are_between_0_and_1():
    assert pixels(np.array([0, 51, 255], np.uint8)).tolist() == pytest.approx([0, 0.2, 1])


def test_only_batch_norm_makes_a_case_depend_on_its_batch(task, lesson):
    logits = jax.jit(
        lambda x: task.model(train=True).apply(
            variables_of(lesson[0][-1]), pixels(x), mutable=["stats"]
        )[0]
    )
    x, others = task.batch(0)["x"], task.batch(1)["x"].copy()
    others[3] = x[3]
    same = logits(x)[3].tobytes() == logits(others)[3].tobytes()
    assert same == (task.config.norm != "batch")


# --- The task ---


def test_an_example_looks_like_a_batch(task):
    def looks(batch):
        return {name: (array.shape, array.dtype) for name, array in batch.items()}

    assert looks(task.example()) == looks(task.batch(0))


def test_an_epoch_shows_training_images_with_their_labels_and_none_twice(task):
    x, y = task.splits["train"]["x"], task.splits["train"]["y"]
    batches = [task.batch(step) for step in range(task.steps_per_epoch)]
    assert len(y) - 16 < 16 * len(batches) <= len(y)
    shown = [(*x, y) for batch in batches for x, y in zip(batch["x"], batch["y"], strict=True)]
    known = {(*x, y) for x, y in zip(x, y, strict=True)}
    assert set(shown) <= known
    assert len(set(shown)) == len(shown) == len(batches) * 16


def test_batches_are_a_function_of_the_step(task):
    assert bits(task.batch(7)) == bits(task.batch(7))
    assert bits(task.batch(7)) != bits(task.batch(8))


def test_one_step_changes_every_parameter(lesson):
    before, after = (jax.tree.leaves_with_path(state.params) for state in lesson[0][:2])
    for (path, old), (_, new) in zip(before, after, strict=True):
        assert (old != new).any(), path


def test_only_batch_norm_keeps_statistics_and_the_first_step_makes_them_those_of_its_batch(
    task, lesson
):
    before, after = lesson[0][:2]
    if task.config.norm != "batch":
        assert after.stats == {}
        return
    a = np.float64(pixels(task.batch(0)["x"])) @ np.float64(before.params["Dense_0"]["kernel"])
    found = after.stats["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], a.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], a.var(0), rtol=1e-4, atol=1e-5)
    assert found["count"] == 1


def test_sixty_steps_on_one_batch_lower_the_loss_tenfold(lesson):
    losses = lesson[1]
    assert losses[0] > 1
    assert losses[-1] < losses[0] / 10


def test_a_step_logs_the_means_over_its_batch(task, lesson):
    variables, batch = variables_of(lesson[0][20]), task.batch(1)
    key = jax.random.key(0)
    per_case, _ = jax.jit(partial(task.per_case, train=True))(variables, batch, key)
    loss, (_, metrics) = jax.jit(partial(task.loss, train=True))(variables, batch, key)
    assert set(metrics) == {"nll", "error"}
    for name, value in metrics.items():
        np.testing.assert_allclose(value, np.float64(per_case[name]).mean(), rtol=1e-5)
    assert loss == metrics["nll"]


@pytest.fixture(scope="module")
def scores(task, lesson):
    """Scores of a half-trained network, and its variables before and after they were found."""
    variables = variables_of(lesson[0][20])
    before = bits(variables)
    found = task.evaluate(variables)
    return found, before, bits(variables)


def test_scores_are_averages_over_all_cases_of_a_split(task, lesson, scores):
    # 1,297 cases are a full block and one of 297, which must not weigh as much.
    assert len(task.splits["train"]["y"]) == 1297
    assert set(scores[0]) == set(task.splits) == {"train", "valid", "test"}
    x = np.concatenate([split["x"] for split in task.splits.values()])
    apply = jax.jit(task.model(train=False).apply)
    all_logits = np.asarray(apply(variables_of(lesson[0][20]), np.float32(x) / 255))
    ends = np.cumsum([len(split["y"]) for split in task.splits.values()])
    for split, logits in zip(task.splits, np.split(all_logits, ends[:-1]), strict=True):
        found, y = scores[0][split], task.splits[split]["y"]
        nll = per_row(reference.negative_log_likelihood, logits, y)
        assert found["nll"] == pytest.approx(nll.mean(), rel=1e-5)
        assert found["error"] == pytest.approx((logits.argmax(1) != y).mean(), rel=1e-6)
        assert set(found) == {"nll", "error"}


def test_evaluating_has_no_effect_on_the_variables(task, lesson, scores):
    found, before, after = scores
    assert before == after
    assert task.evaluate(variables_of(lesson[0][20])) == found


def test_initial_variables_are_a_function_of_the_seed(fresh):
    one, again, other = (fresh(jnp.int32(seed), jnp.float32(1e-2)) for seed in (0, 0, 1))
    assert bits(one) == bits(again)
    kernels, others = (jax.tree.leaves_with_path(state.params) for state in (one, other))
    for (path, kernel), (_, other) in zip(kernels, others, strict=True):
        assert path[-1].key != "kernel" or (kernel != other).all()


# --- Refusals, before any long work ---


@pytest.mark.parametrize(
    "setting, value, words",
    [
        ("dataset", "digts", "Unknown data set 'digts'. Did you mean 'digits'"),
        ("init", "he_norml", "Unknown config.init 'he_norml'. Did you mean 'he_normal'"),
        ("norm", "bacth", "Unknown config.norm 'bacth'. Did you mean 'batch'"),
        ("batch_size", 1298, "config.batch_size is 1298; this data set has 1297 cases"),
        ("batch_size", 0, "config.batch_size is 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting, value, words, data_dir):
    config = config_file.get_config("tiny")
    config.data_dir = str(data_dir)
    config[setting] = value
    with pytest.raises(InputError) as caught:
        Task(config)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["init", "norm", "dataset"])
def test_a_misspelt_name_is_refused_before_data_are_made(setting, tmp_path):
    config = config_file.get_config("tiny")
    config.data_dir = str(tmp_path / "data")
    config[setting] = "nonsense"
    with pytest.raises(InputError, match="'nonsense'"):
        Task(config)
    assert not (tmp_path / "data").exists()

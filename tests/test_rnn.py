"""Recurrent layers: the equations, the fast loop against autodiff of them, masks, statistics."""

from functools import lru_cache, partial
from itertools import product
from pathlib import Path
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ln import fused
from ln.norm import EPSILON, Norm
from ln.rnn import GRU, LSTM, RNN, orthogonal_blocks, plain_by_default, scan, uniform, unroll
from tests import reference
from tests.cells import (
    FAST,
    SCHEDULES,
    SITES,
    Layer,
    Shorter,
    assert_all_close,
    draw,
    init,
    norm_of,
    randomized,
)
from tests.products import covering

T, B, D, H = 5, 4, 3, 6
LENGTHS = np.array([5, 3, 4, 2])  # at every step two examples or more, or none would vary
MASK = np.arange(T)[:, None] < LENGTHS
EQUATIONS = {RNN: reference.rnn, LSTM: reference.lstm, GRU: reference.gru}
NORMS = ("none", "layer", "rms", "batch", "weight", Shorter)
README = Path(__file__).parents[1] / "README.md"


def weighted_sines(outputs, np=np):
    """Return a number that depends on every element in its own way."""
    return sum(
        (np.cos(np.arange(leaf.size)).reshape(leaf.shape) * np.sin(leaf)).sum()
        for leaf in jax.tree.leaves(outputs)
    )


class Made:
    """A cell with random parameters in float64, and what each schedule computes of it.

    Args:
        form: "masked"; "unmasked"; "inside", with the bias under the norm as in the authors' code;
            or "learned", with a learned first carry.
    """

    def __init__(self, Cell, kind, form="learned"):
        self.equations, self.kind, self.inside = EQUATIONS[Cell], kind, form == "inside"
        self.mask = None if form == "unmasked" else MASK
        parts = Cell.PARTS if form == "learned" else ()
        self.cell = Cell(H, norm_of(kind, Cell), learned=parts, bias_inside=self.inside)
        self.xs, given = draw(T, B, D), tuple(draw(B, H, seed=3 + n) for n in range(2))
        self.carry = None if parts else given if Cell is LSTM else given[0]
        with jax.enable_x64(True):
            fresh = init(Layer(self.cell), self.xs, self.mask)
        self.stats = jax.tree.map(np.asarray, fresh.get("stats", {}))
        self.params = randomized(fresh["params"])
        self.variables = {"params": self.params, "stats": self.stats}

    @lru_cache  # noqa: B019
    def results(self, schedule):
        """Return (outputs, new statistics), and the gradients by parameters, inputs and carry."""

        def loss(params, xs, carry):
            layer = Layer(self.cell, SCHEDULES[schedule])
            variables = {"params": params, "stats": self.stats}
            outputs, new = layer.apply(variables, xs, self.mask, carry, mutable=["stats"])
            return weighted_sines(outputs, jnp), (outputs, new.get("stats", {}))

        with jax.enable_x64(True):
            both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
            (_, outputs), gradients = both(self.params, self.xs, self.carry)
        return jax.device_get((outputs, gradients))

    def expected(self, params, xs, carry):
        """Return outputs by the equations, in numpy."""
        p = params["cell"]
        if carry is None:
            carry = tuple(np.tile(p[f"{part}_0"], (B, 1)) for part in self.cell.PARTS)
            carry = carry if len(carry) > 1 else carry[0]
        mask = np.ones((T, B), bool) if self.mask is None else self.mask
        return reference.unrolled(
            self.equations, self.kind, p, carry, xs, mask, EPSILON, inside=self.inside
        )


make = lru_cache(Made)

# --- The equations ---

EXAMPLES = covering(2, product(SITES, NORMS, SCHEDULES, ["masked"]))
EXAMPLES += zip(SITES, ["layer"] * 3, SCHEDULES, ["inside"] * 3, strict=True)
EXAMPLES += zip(SITES, ["none", "layer", "rms"], reversed(SCHEDULES), ["learned"] * 3, strict=True)
EXAMPLES += [(LSTM, "batch", "cpu", "unmasked"), (GRU, "layer", "accelerator", "unmasked")]


@pytest.mark.parametrize("Cell, kind, schedule, form", EXAMPLES)
def test_outputs_and_gradients_are_those_of_the_equations(Cell, kind, schedule, form):
    """Gradients are finite differences along random directions of all that is differentiated."""
    made, step = make(Cell, kind, form), 3e-6
    (outputs, _), gradients = made.results(schedule)
    at = (made.params, made.xs, made.carry)
    assert_all_close(outputs, made.expected(*at), 1e-10)

    def loss(t, towards):
        moved = jax.tree.map(lambda leaf, d: leaf + t * d, at, towards)
        return weighted_sines(made.expected(*moved))

    for seed in range(3):
        random = np.random.default_rng(seed)
        towards = jax.tree.map(lambda leaf, r=random: r.normal(size=np.shape(leaf)), at)
        near, far = (loss(t, towards) - loss(-t, towards) for t in (step, 2 * step))
        expected = (8 * near - far) / (12 * step)  # to fourth order
        assert abs(expected) > 1e-4
        products = jax.tree.map(lambda d, g: (d * g).sum(), towards, gradients)
        assert sum(jax.tree.leaves(products)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "Cell, kind, schedule", covering(1, product(SITES, ("batch", "layer"), FAST))
)
def test_the_fast_loop_is_autodiff_of_the_plain_one(Cell, kind, schedule):
    made = make(Cell, kind, "masked")
    assert_all_close(made.results(schedule), made.results("plain"), 1e-10)


# --- Masks and lengths ---


@pytest.mark.parametrize("Cell, schedule", covering(1, product(SITES, SCHEDULES)))
def test_padding_of_any_content_changes_no_end_of_an_example(Cell, schedule):
    made = make(Cell, "layer")
    xs = np.where(MASK[..., None], made.xs, np.nan)
    layer = Layer(made.cell, SCHEDULES[schedule])

    def loss(params, xs, mask):
        hs, carry = layer.apply({"params": params}, xs, mask)
        return weighted_sines(fused.hidden(carry), jnp), hs

    case = 1  # of length 3
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, hs), gradients = both(made.params, xs[:, [case]], MASK[:, [case]])
        (_, alone), expected = both(made.params, xs[: LENGTHS[case], [case]], None)
    assert_all_close(hs[: LENGTHS[case]], alone, 1e-10)
    assert (hs[LENGTHS[case] :] == hs[LENGTHS[case] - 1]).all()
    assert_all_close(gradients, expected, 1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_past_every_end_leave_the_statistics_alone(schedule):
    made = make(LSTM, "batch")
    layer = Layer(made.cell, SCHEDULES[schedule])
    mask = np.arange(4)[:, None] < np.array([2, 3, 3, 2])  # step 3 is past every end
    with jax.enable_x64(True):
        apply = jax.jit(partial(layer.apply, mutable=["stats"]))
        _, new = apply(made.variables, made.xs[:4], mask)
    for norm, leaves in jax.device_get(new["stats"]["cell"]).items():
        before = made.stats["cell"][norm]
        assert leaves["mean"].shape == (T, H if norm == "norm_c" else 4 * H)
        assert leaves["count"].tolist() == [1, 1, 1, 0, 0]
        assert (leaves["mean"][3:] == before["mean"][3:]).all()
        assert (leaves["mean"][:3] != before["mean"][:3]).any(1).all()


def longer(kind, xs):
    """States in test on xs, of any length, of a layer initialized with T steps."""
    made = make(LSTM, kind)
    stats = jax.tree.map(lambda leaf: np.abs(leaf) + np.abs(draw(*leaf.shape, seed=5)), made.stats)
    cell = made.cell.clone(norm=norm_of(kind, LSTM, train=False))
    with jax.enable_x64(True):
        hs, _ = Layer(cell).apply({"params": made.params, "stats": stats}, xs)
    return made, stats, hs


def test_layer_norm_has_nothing_of_the_length_of_its_sequences():
    made = make(LSTM, "layer")
    assert made.stats == {}
    xs = draw(3 * T, B, D, seed=6)
    assert all(T not in np.shape(leaf) for leaf in jax.tree.leaves(made.params))
    _, _, hs = longer("layer", xs)
    _, _, beginning = longer("layer", xs[:T])
    assert hs.shape == (3 * T, B, H)
    assert_all_close(hs[:T], beginning, 1e-12)


def test_batch_norm_of_longer_sequences_uses_the_last_statistics():
    xs = draw(T + 2, B, D, seed=6)
    made, stats, hs = longer("batch", xs)
    cell = made.cell.clone(norm=norm_of("batch", LSTM, train=False))
    carry = tuple(np.tile(made.params["cell"][f"{part}_0"], (B, 1)) for part in ("c", "h"))
    for t, x in enumerate(xs):
        step_stats = jax.tree.map(lambda leaf, t=t: leaf[min(t, T - 1)], stats["cell"])
        with jax.enable_x64(True):
            carry, h = cell.apply({"params": made.params["cell"], "stats": step_stats}, carry, x)
        assert_all_close(hs[t], h, 1e-10)


# --- Use ---


def test_step_by_step_is_unroll():
    """As in sampling, where the next input depends on the last output."""
    made = make(GRU, "layer")
    cell, variables = made.cell, {"params": made.params["cell"]}
    with jax.enable_x64(True):
        hs, last = Layer(cell).apply({"params": made.params}, made.xs)
        carry = cell.apply(variables, B, method="initial")
        for t, x in enumerate(made.xs):
            a_x = cell.apply(variables, x, method="project")
            carry, h = cell.apply(variables, carry, a_x, method="step")
            assert_all_close(h, hs[t], 1e-12)
    assert_all_close(carry, last, 1e-12)


class Attending(nn.Module):
    """A loop of one's own: what a cell sees is chosen by what it has seen, of memory and mask."""

    norm: Norm
    REAL = np.arange(7)[:, None] < np.array([7, 5, 6, 3])  # booleans, which have no gradient

    def setup(self):
        self.cell = LSTM(H, self.norm)
        self.query = self.norm.dense("out", D)
        self.twice = self.norm.dense("out", D)

    def step(self, carry, inputs, memory, real):
        x, scale = inputs["x"], inputs["scale"]
        q = self.query(carry[1]) + self.twice(x) + self.twice(jnp.tanh(self.query(carry[1])))
        scores = jnp.where(real, jnp.einsum("bd,mbd->mb", q, memory), -jnp.inf)
        attended = (jax.nn.softmax(scores, 0)[..., None] * memory).sum(0)
        carry, h = self.cell(carry, jnp.concatenate([x * scale, attended], -1))
        return carry, {"h": h, "c": carry[0], "found": attended}

    def __call__(self, xs, memory, carry, schedule=None):
        inputs = {"x": xs, "scale": np.arange(1, len(xs) + 1)}
        return scan(Attending.step, self, carry, inputs, memory, self.REAL, schedule=schedule)


LOOP = draw(T, B, D), draw(7, B, D, seed=1), (draw(B, H, seed=2), draw(B, H, seed=3))


@pytest.mark.parametrize("kind, schedule", covering(1, product(("layer", "batch", "weight"), FAST)))
def test_a_fast_loop_of_ones_own_is_autodiff_of_the_plain_one(kind, schedule, monkeypatch):
    """Values, statistics, and gradients by parameters, inputs, what is shared and the carry; with
    whole numbers among the inputs, matrices used twice in a step, and products of products."""
    monkeypatch.setattr(fused, "default", lambda: SCHEDULES[schedule])
    sites = ("x", "h", "out") if kind == "weight" else ("x", "h", "c")
    model = Attending(Norm(kind, sites, (), train=True))

    def compute(schedule):
        def loss(params, *arguments):
            variables = {"params": params, "stats": stats}
            outputs, new = model.apply(variables, *arguments, schedule, mutable=["stats"])
            return weighted_sines(outputs, jnp), (outputs, new.get("stats", {}))

        both = jax.jit(jax.value_and_grad(loss, argnums=range(4), has_aux=True))
        return jax.device_get(both(params, *LOOP))

    with jax.enable_x64(True):
        fresh = init(model, *LOOP)
        params, stats = randomized(fresh["params"]), fresh.get("stats", {})
        assert_all_close(compute(None), compute("plain"), 1e-10)


def test_a_loop_of_ones_own_has_statistics_by_step():
    model, (xs, memory, carry) = Attending(norm_of("batch", LSTM)), LOOP
    with jax.enable_x64(True):
        params, stats = (init(model, *LOOP)[kind] for kind in ("params", "stats"))
        apply = jax.jit(partial(model.apply, mutable=["stats"]), static_argnames="method")
        (_, actual), new = apply({"params": params, "stats": stats}, *LOOP)
        assert new["stats"]["cell"]["norm_c"]["mean"].shape == (T, H)
        for t, x in enumerate(xs):
            step_stats = jax.tree.map(lambda leaf, t=t: leaf[t], (stats, new["stats"]))
            variables, inputs = {"params": params, "stats": step_stats[0]}, {"x": x, "scale": t + 1}
            (carry, outputs), after = apply(
                variables, carry, inputs, memory, Attending.REAL, method="step"
            )
            assert_all_close(outputs["h"], actual["h"][t], 1e-12)
            assert_all_close(after["stats"], step_stats[1], 1e-12)


def test_large_matrices_of_two_layers_are_initialized():
    # Batches of QR waited for one another forever, from 400 units on.
    initialize = jax.jit(lambda keys: [orthogonal_blocks(key, (400, 800)) for key in keys])
    blocks = initialize(jax.random.split(jax.random.key(0)))
    assert all(np.isfinite(W).all() for W in blocks)


def test_W_h_starts_orthogonal_and_b_at_0_but_the_forget_gate():
    params = init(Layer(LSTM(H, forget_bias=1.0)), draw(T, B, D))["params"]["cell"]
    blocks = np.split(params["W_h"]["kernel"], 4, axis=1)
    for n, block in enumerate(blocks):
        np.testing.assert_allclose(block @ block.T, np.eye(H), atol=1e-5)
        assert all(abs(block - earlier).max() > 0.1 for earlier in blocks[:n])
    assert params["b"].tolist() == [1.0] * H + [0.0] * (3 * H)


def test_the_example_in_the_readme_runs_and_is_short():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "class Tagger" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    names = {}
    exec(code, names)
    gradients = jax.tree.leaves(names["gradient"])
    assert all(np.isfinite(leaf).all() for leaf in gradients)
    assert any(leaf.any() for leaf in gradients)


# --- Transformations ---


def test_it_can_be_differentiated_twice_backwards():
    made = make(LSTM, "layer")

    def penalty(schedule, xs):
        """Return a gradient's size, whose derivative a gradient penalty needs."""

        def loss(xs):
            outputs = Layer(made.cell, schedule).apply({"params": made.params}, xs, MASK)
            return weighted_sines(outputs, jnp)

        return (jax.grad(loss)(xs) ** 2).sum()

    with jax.enable_x64(True):
        actual = jax.jit(jax.grad(partial(penalty, fused.CPU)))(made.xs)
        expected = jax.jit(jax.grad(partial(penalty, "plain")))(made.xs)
    assert abs(np.asarray(expected)).max() > 1e-3
    assert_all_close(actual, expected, 1e-8)


@pytest.mark.parametrize("Cell, schedule", covering(1, product([LSTM, GRU], SCHEDULES)))
def test_bfloat16_rounds_the_operands_of_products_only(Cell, schedule):
    # H and D as large as it takes for a sum to show that it was not made in bfloat16
    xs, layers = np.float32(draw(T, B, 64)), {}
    for dtype in (None, jnp.bfloat16):
        cell = Cell(64, Norm("layer", ("x", "h", "c")), dtype=dtype)
        layers[dtype] = Layer(cell, SCHEDULES[schedule])
    params = init(layers[None], xs)["params"]

    def both(dtype):
        def loss(params):
            hs, carry = layers[dtype].apply({"params": params}, xs)
            return (hs**2).sum(), (hs, carry)

        (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return outputs, gradients

    actual, exact = both(jnp.bfloat16), both(None)
    for value, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(exact), strict=True):
        assert value.dtype == np.float32
        assert 0 < abs(value - wanted).max() < 0.03 * abs(wanted).max()


def unrolled(schedule):
    layer, xs = Layer(LSTM(32, norm_of("layer", LSTM)), schedule), np.zeros((64, 8, 16), np.float32)
    return layer, (xs,)


def looped(schedule):
    xs = jnp.ones((100, B, D)), jnp.ones((7, B, D)), (jnp.zeros((B, H)),) * 2
    return Attending(norm_of("layer", LSTM)), (*xs, schedule)


@pytest.mark.parametrize("T, steps", [(500, 20), (784, 16), (64, 16), (7, 20), (23, 20)])
def test_a_loop_leaves_no_rest_where_it_can(T, steps):
    assert fused.steps_per_turn(T, most=20) == steps
    assert fused.steps_per_turn(T, most=1) == 1


@pytest.mark.parametrize("make", [unrolled, looped])
def test_the_fast_loop_needs_less_memory_than_autodiff(make):
    def memory(schedule):
        model, arguments = make(schedule)

        def loss(variables):
            return sum(leaf.sum() for leaf in jax.tree.leaves(model.apply(variables, *arguments)))

        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))
        compiled = jax.jit(jax.grad(loss)).lower(variables).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(None) < 0.75 * memory("plain")


# --- Refusals ---


def refused(cell=None, xs=None, **arguments):
    cell = LSTM(H) if cell is None else cell
    xs = draw(T, B, D) if xs is None else xs
    params = Layer(cell).init(jax.random.key(0), draw(T, B, D))
    return partial(Layer(cell).apply, params, xs, **arguments)


@pytest.mark.wrong_values
@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LSTM(0), "units must be a whole number of 1 or more; got 0"),
        (lambda: LSTM(H, "layer"), "norm must be a Norm, such as ln.Norm(); got 'layer'"),
        (lambda: GRU(H, learned=("c",)), "('h',); got ('c',)"),
        (lambda: LSTM(H, learned="ch"), "learned must be a tuple"),
        (lambda: LSTM(H, bias_inside=1), "bias_inside must be True or False; got 1"),
        (lambda: GRU(H, init_W_h="zeros"), "init_W_h must be an initializer; got 'zeros'"),
        (lambda: GRU(H, dtype=int), "dtype must be None or a float type"),
        (lambda: RNN(H, activation="tanh"), "activation must be a function; got 'tanh'"),
        (lambda: LSTM(H, forget_bias="1"), "forget_bias must be a finite number; got '1'"),
        (lambda: unroll("LSTM", draw(T, B, D)), "cell must be an RNN, LSTM or GRU; got 'LSTM'"),
        (lambda: unroll(LSTM(H), draw(T, B, D)), "call it inside a Flax module"),
        (lambda: scan("step", LSTM(H), 0.0, draw(T, B)), "step must be a function (module, carry"),
        (lambda: scan(print, "LSTM", 0.0, draw(T, B)), "scan needs a module with parameters"),
        (refused(xs=draw(T, B)), "xs must be [T, B, D], none of them 0; got (5, 4)"),
        (lambda: LSTM(H).initial(2.5), "B, the number of examples, must be a whole number"),
        (lambda: uniform(-1.0), "limit must be a finite number, 0 or more; got -1.0"),
        (lambda: orthogonal_blocks(None, (4, 6)), "needs a shape (H, n H); got (4, 6)"),
        (refused(mask=MASK.T), "mask must be booleans (5, 4); got bool (4, 5)"),
        (refused(mask=MASK & (LENGTHS > 2)), "is false at every step of example(s) [3]"),
        (
            partial(Layer(LSTM(H), "plian").init, jax.random.key(0), np.zeros((T, B, D))),
            "schedule must be None, 'plain' or a fused.Schedule; got 'plian'",
        ),
    ],
)
def test_invalid_arguments_raise_with_what_was_got(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value)


def test_training_raises_on_sequences_beyond_its_statistics():
    made = make(LSTM, "batch")
    variables = made.variables
    with jax.enable_x64(True), pytest.raises(ValueError, match="as long as the longest"):
        Layer(made.cell).apply(variables, draw(T + 1, B, D), mutable=["stats"])


def test_plain_by_default_allows_forward_derivatives():
    """Models that choose no schedule compute the same by `unroll` and by `scan`."""

    class Loop(nn.Module):
        norm: Norm = Norm("layer", ("x", "h", "c"))

        def setup(self):
            self.cell = LSTM(3, self.norm)

        def __call__(self, xs):
            hs, _ = unroll(self.cell, xs)
            start = self.cell.initial(xs.shape[1])
            return hs.sum() + scan(lambda m, c, x: m.cell(c, x), self, start, xs)[1].sum()

    xs = jnp.ones((4, 2, 5))
    loss = partial(Loop().apply, init(Loop(), xs))

    def slope_along(xs):
        return jax.jvp(loss, (xs,), (xs,))

    with pytest.raises(TypeError, match="schedule=.plain."):
        slope_along(xs)
    with plain_by_default():
        value, slope = jax.jit(slope_along)(xs)
    expected, gradient = jax.jit(jax.value_and_grad(loss))(xs)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(slope) == pytest.approx(float((gradient * xs).sum()), abs=1e-4)

"""Section 5 as numbers: verdicts on another seed, checks that fail, and the page."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import theory
from experiments.claims import CLAIMS
from experiments.theory import layers, recurrence
from ln.norm import Norm
from ln.rnn import RNN
from tests.test_report import page_of

NUMBERS = {claim.number for claim in CLAIMS if claim.experiment == "theory"}

# All other statements hold.
EXCEPTIONS = {
    (9, ""): False,  # the curvature
    (None, "Eq. 13 is exact for layer norm."): False,
    (12, "Layer norm stabilizes the dynamics (tanh, input at every step)."): None,
    (12, "Layer norm stabilizes the dynamics (ReLU, input at every step)."): None,
}


@pytest.fixture(scope="module")
def analysis():
    return theory.analysis(7)


@pytest.mark.slow
def test_verdicts_are_the_same_on_another_seed(analysis):
    for check in (check for result in analysis.values() for check in result.checks):
        assert check.holds is EXCEPTIONS.get((check.number, check.statement), True), check
    assert jnp.zeros(()).dtype == jnp.float32  # float64 ends with the analysis


def test_a_wrong_table_fails(monkeypatch, float64):
    monkeypatch.setitem(layers.TABLE_1, "data set re-centring", ("batch", "weight"))
    first, *others = layers.invariances(0).checks
    assert first.holds is False and all(check.holds for check in others)


def test_a_wrong_formula_fails(monkeypatch, float64):
    right = layers.eq_13
    monkeypatch.setattr(layers, "eq_13", lambda *args: right(*args) * (1 + 1e-9))
    assert [check.holds for check in layers.fisher(0).checks] == [False] * 3


def test_readings_are_those_of_an_rnn(float64):
    """The gradients are those of the whole rest of the sequence by each hidden state."""
    T, B, D, H = 4, 3, 2, 5
    random = np.random.default_rng(0)
    W_x, W_h = random.normal(size=(D, H)), random.normal(size=(H, H))
    xs, direction = random.normal(size=(T, B, D)), random.normal(size=(B, H))
    gain, bias = 1 + random.normal(size=H), random.normal(size=H)

    def step(h, x):
        a = h @ W_h + x @ W_x
        deviation = jnp.sqrt(a.var(1, keepdims=True) + 1e-5)
        return jnp.tanh(gain * (a - a.mean(1, keepdims=True)) / deviation + bias), a

    def end(h, start):
        return (direction * functools.reduce(lambda h, x: step(h, x)[0], xs[start:], h)).sum()

    h, summed, gradients = np.zeros((B, H)), [], []
    for t, x in enumerate(xs, start=1):
        h, a = step(h, x)
        summed.append(np.sqrt((a**2).mean()))
        gradients.append(np.linalg.norm(jax.jit(jax.grad(end), static_argnums=1)(h, t)))
    norm_a = dict(bias=bias, gain=gain)
    params = dict(W_x=dict(kernel=W_x), W_h=dict(kernel=W_h), norm_a=norm_a)
    cell = RNN(H, Norm("layer", ("a",)))
    shown = recurrence.readings(cell, {"params": params}, xs, direction)
    np.testing.assert_allclose(shown, (summed, gradients), rtol=1e-12)


RANGES = [((3, 3), True), ((3, 6), None), ((6, 12), None), ((12, 12), False)]


@pytest.mark.parametrize("decades, holds", RANGES)
def test_stability_compares_both_ranges(decades, holds):
    """Without norm both ranges are 10 decades."""

    def pair(*decades):
        return tuple(np.logspace(0, n, 6).reshape(2, 3) for n in decades)

    check = recurrence.stability("tanh", pair(10, 10), pair(*decades))
    assert check.holds is holds
    assert f"10.0 without norm, {decades[0]:.1f} with layer norm" in check.because


@pytest.mark.slow
def test_the_page_shows_all_checks(tmp_path, analysis, monkeypatch):
    monkeypatch.setattr("experiments.theory.analysis", lambda: analysis)
    page = page_of(None, tmp_path, theory=True)
    assert re.findall(r'<h2 id="(\w+)">', page) == [f.__name__ for f in theory.DEMONSTRATIONS]
    assert {int(n) for n in re.findall(r"<dt>(\d+)\. ", page)} == NUMBERS
    words = re.findall(r'class="verdict [\w-]+">([\w ]+)<', page)
    for word, holds in (("contradicted", False), ("not decided", None)):  # each is there twice
        assert words.count(word) == 2 * list(EXCEPTIONS.values()).count(holds)
    assert page.count("Erratum:") == 5 and not re.search(r"[ >]nan\b", page)

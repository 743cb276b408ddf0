"""Section 5 as numbers: verdicts on another seed, checks that fail, and the page."""

from pathlib import Path
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.claims import CLAIMS
from experiments.theory import layers, recurrence, theory
from experiments.theory.checks import sci
from ln.norm import Norm
from ln.rnn import RNN
from tests import reference

NUMBERS = {claim.number for claim in CLAIMS if claim.experiment == "theory"}

# All other statements hold.
EXCEPTIONS = {
    (9, ""): False,  # the curvature
    (None, "Eq. 13 is exact for layer norm."): False,
    (12, "Layer norm stabilizes the dynamics (tanh, input at every step)."): None,
    (12, "Layer norm stabilizes the dynamics (ReLU, input at every step)."): None,
}


@pytest.mark.parametrize("function", theory.DEMONSTRATIONS, ids=lambda f: f.__name__)
def test_verdicts_are_the_same_on_another_seed(function):
    for check in function(7).checks:
        assert check.holds is EXCEPTIONS.get((check.number, check.statement), True), check
    assert jnp.zeros(()).dtype == jnp.float32  # float64 ends with the demonstration


def test_a_wrong_table_fails(monkeypatch):
    monkeypatch.setitem(layers.TABLE_1, "data set re-centring", ("batch", "weight"))
    first, *others = layers.invariances().checks
    assert first.holds is False and all(check.holds for check in others)


def test_a_wrong_formula_fails(monkeypatch):
    right = layers.eq_13
    monkeypatch.setattr(layers, "eq_13", lambda *args: right(*args) * (1 + 1e-9))
    assert [check.holds for check in layers.fisher().checks] == [False] * 3


@pytest.mark.parametrize("kind", ["none", "layer"])
def test_readings_agree_with_an_rnn_in_numpy(kind):
    T, B, D, H = 4, 3, 2, 5
    random = np.random.default_rng(0)
    W_x, W_h = random.normal(size=(D, H)), random.normal(size=(H, H))
    xs, direction = random.normal(size=(T, B, D)), random.normal(size=(B, H))
    gain, bias = 1 + random.normal(size=H), random.normal(size=H)

    def run(h, start=0):
        """Return the states from step `start` on, beginning with h, and the summed inputs."""
        states, summed = [h], []
        for x in xs[start:]:
            a = states[-1] @ W_h + x @ W_x
            z = reference.layer_norm(a, gain, bias, 1e-5) if kind == "layer" else a + bias
            states, summed = [*states, np.tanh(z)], [*summed, a]
        return states, summed

    def gradient(h, start):
        """Return ∂⟨direction, h_T⟩/∂h by central differences."""
        G = np.zeros((B, H))
        for place in np.ndindex(B, H):
            step = np.zeros((B, H))
            step[place] = 1e-6
            ends = [run(moved, start)[0][-1] for moved in (h + step, h - step)]
            G[place] = (direction * (ends[0] - ends[1])).sum() / 2e-6
        return G

    states, summed = run(np.zeros((B, H)))
    norm_a = dict(bias=bias) | (dict(gain=gain) if kind == "layer" else {})
    params = dict(W_x=dict(kernel=W_x), W_h=dict(kernel=W_h), norm_a=norm_a)
    with jax.enable_x64(True):
        cell = RNN(H, Norm(kind, ("a",)))
        rms, lengths = recurrence.readings(cell, {"params": params}, xs, direction)
    np.testing.assert_allclose(rms, [np.sqrt((a**2).mean()) for a in summed], rtol=1e-12)
    expected = [np.linalg.norm(gradient(states[t], t)) for t in range(1, T + 1)]
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)


RANGES = [((3, 3), True), ((3, 6), None), ((6, 12), None), ((12, 12), False)]


@pytest.mark.parametrize("decades, holds", RANGES)
def test_stability_compares_both_ranges(decades, holds):
    """Without norm both ranges are 10 decades."""

    def pair(*decades):
        return tuple(np.logspace(0, n, 6).reshape(2, 3) for n in decades)

    check = recurrence.stability("tanh", pair(10, 10), pair(*decades))
    assert check.holds is holds
    assert f"10.0 without norm, {decades[0]:.1f} with layer norm" in check.because


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (3.14, "3.1"), (-0.5, "-5.0e-1"), (9.97e-16, "1.0e-15"), (1e17, "1.0e17")],
)
def test_numbers_have_two_digits(value, text):
    assert sci(value) == text


@pytest.mark.slow
def test_the_page_shows_all_checks_and_pictures(tmp_path):
    command = [sys.executable, "-m", "scripts.report", "--theory", f"--out={tmp_path}"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="(\w+)">', page) == [f.__name__ for f in theory.DEMONSTRATIONS]
    assert {int(n) for n in re.findall(r"<dt>(\d+)\. ", page)} == NUMBERS
    words = re.findall(r'class="verdict [\w-]+">([\w ]+)<', page)
    for word, holds in (("contradicted", False), ("not decided", None)):  # each is there twice
        assert words.count(word) == 2 * list(EXCEPTIONS.values()).count(holds)
    assert page.count("Erratum:") == 5 and not re.search(r"[ >]nan\b", page)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|<script|@import|url\(""", page)
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"growth", "fisher", "dynamics"}

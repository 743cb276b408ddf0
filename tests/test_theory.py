"""Section 5 as numbers: verdicts on another seed, verdicts that turn, and the page."""

from pathlib import Path
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.rules import CONFIRMED, CONTRADICTED, NOT_DECIDED
from experiments.theory import theory
from ln.norm import Norm
from ln.rnn import RNN
from tests import reference

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = {*range(1, 13), 30, 31}

# What does not hold as the paper has it; all else does.
EXCEPTIONS = {
    "Doubling the weights changes the curvature along them by a factor ½.": CONTRADICTED,
    "Eq. 13 is the Fisher information of a model with layer norm.": CONTRADICTED,
} | {
    "With layer norm the hidden-to-hidden dynamics are much more stable "
    f"({f}, input at every step).": NOT_DECIDED
    for f in ("tanh", "ReLU")
}


def words(found):
    return {claim.text: claim.verdict.word for claim in found.claims}


@pytest.mark.parametrize("function", theory.DEMONSTRATIONS, ids=lambda f: f.__name__)
def test_verdicts_are_the_same_on_another_seed(function):
    found = function(7)
    for text, word in words(found).items():
        assert word == EXCEPTIONS.get(text, CONFIRMED), text
    assert "onfirmed where" in found.rule
    assert found.tables or found.panels
    for table in found.tables:
        assert all(len(row) == 1 + len(table.head) for row in table.rows)
        assert not any("nan" in cell or "inf" == cell for row in table.rows for cell in row)
    assert jnp.zeros(()).dtype == jnp.float32  # float64 ends with the demonstration


def test_a_wrong_table_is_contradicted(monkeypatch):
    monkeypatch.setitem(theory.TABLE_1, "weight", (True, False, True, True, False, False))
    (first, *others) = theory.invariances().claims
    assert first.verdict.word == CONTRADICTED and first.verdict.because.startswith("17 of 18")
    assert {claim.verdict.word for claim in others} == {CONFIRMED}
    (table,) = theory.invariances().tables
    assert [row[4] for row in table.rows].count("invariant: contradicted") == 1


def test_a_wrong_formula_is_contradicted(monkeypatch):
    right = theory.eq_13
    monkeypatch.setattr(theory, "eq_13", lambda *args: right(*args) * (1 + 1e-9))
    assert set(words(theory.fisher()).values()) == {CONTRADICTED}


@pytest.mark.parametrize("kind", ["none", "layer"])
def test_readings_are_those_of_an_rnn_in_numpy(kind):
    T, B, D, H = 4, 3, 2, 5
    random = np.random.default_rng(0)
    W_x, W_h = random.normal(size=(D, H)), random.normal(size=(H, H))
    xs, direction = random.normal(size=(T, B, D)), random.normal(size=(B, H))
    gain, bias = 1 + random.normal(size=H), random.normal(size=H)

    def run(h, start):
        """The loss when the state after ``start`` steps is h, and the summed inputs from there."""
        summed = []
        for x in xs[start:]:
            summed.append(h @ W_h + x @ W_x)
            a = summed[-1]
            h = np.tanh(reference.layer_norm(a, gain, bias, 1e-5) if kind == "layer" else a + bias)
            states.append(h)
        return (direction * h).sum(), np.array(summed)

    states = []
    _, summed = run(np.zeros((B, H)), 0)
    lengths = []
    for t, h in enumerate(states[:T], start=1):
        G = np.zeros((B, H))
        for place in np.ndindex(B, H):
            step = np.zeros((B, H))
            step[place] = 1e-6
            G[place] = (run(h + step, t)[0] - run(h - step, t)[0]) / 2e-6
        lengths.append(np.linalg.norm(G))

    norm_a = dict(bias=bias) | (dict(gain=gain) if kind == "layer" else {})
    params = dict(W_x=dict(kernel=W_x), W_h=dict(kernel=W_h), norm_a=norm_a)
    with jax.enable_x64(True):
        cell = RNN(H, Norm(kind, ("a",)))
        rms, found = theory.readings(cell, {"params": params}, xs, direction)
    np.testing.assert_allclose(rms, [np.sqrt((a**2).mean()) for a in summed], rtol=1e-12)
    np.testing.assert_allclose(found, lengths, rtol=1e-6)


@pytest.mark.parametrize(
    "layer, word",
    [
        ((3.0, 3.0), CONFIRMED),  # decades of rms and of gradients; without a norm both are 10
        ((3.0, 6.0), NOT_DECIDED),
        ((6.0, 12.0), NOT_DECIDED),
        ((12.0, 12.0), CONTRADICTED),
    ],
)
def test_stability_is_judged_by_the_ranges_of_both_readings(layer, word):
    def spread(decades):
        return np.logspace(0, decades, 6).reshape(2, 3)

    verdict = theory.stability((spread(10.0), spread(10.0)), tuple(map(spread, layer)))
    assert verdict.word == word
    assert f"10.0 decades (1.0 to 1.0e10), with layer norm {layer[0]:.1f}" in verdict.because


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (3.14, "3.1"), (-0.5, "-5.0e-1"), (9.97e-16, "1.0e-15"), (1e17, "1.0e17")],
)
def test_numbers_have_two_digits(value, text):
    assert theory.sci(value) == text


def report(*words):
    command = [sys.executable, "-m", "scripts.report", "--theory", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_page_has_every_demonstration_with_its_verdicts_and_pictures(tmp_path):
    done = report(f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"The report: {tmp_path / 'index.html'}"
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    names = [function.__name__ for function in theory.DEMONSTRATIONS]
    assert re.findall(r'<h2 id="(\w+)">', page) == names
    assert {int(n) for n in re.findall(r"<dt>(\d+)\. ", page)} == NUMBERS
    verdicts = re.findall(r'class="verdict [\w ]+">([\w ]+)<', page)
    shown = len(verdicts) // 2  # each once in the overview, once with its numbers
    for word in (CONTRADICTED, NOT_DECIDED):
        assert verdicts.count(word) == 2 * list(EXCEPTIONS.values()).count(word)
    assert shown > len(NUMBERS)
    assert page.count("Erratum:") == 5 and "seed 0" in page and "scripts.report --theory" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|<script|@import|url\(""", page)
    assert page.count('src="data:image/png;base64,iVBOR') >= 8
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {name for name in names if f"{name}.png" in page}
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".html"}


@pytest.mark.slow
def test_a_page_of_someone_else_is_kept(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    done = report(f"--out={tmp_path}")
    assert done.returncode == 2 and "Choose another --out" in done.stderr
    assert (tmp_path / "index.html").read_text() == "mine"

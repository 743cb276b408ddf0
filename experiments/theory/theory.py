"""Section 5 and the exact claims of the paper, as numbers: what scripts/report.py --theory shows.

Each demonstration is a function of a seed and returns tables, panels and claims with verdicts that
are computed, never typed in. Its docstring is the rule by which it judges. All of it is float64,
without an epsilon, except where the modules of ln/norm.py themselves are looked at.
"""

from collections.abc import Callable
import dataclasses
from functools import partial, wraps
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.rules import CONFIRMED, CONTRADICTED, NOT_DECIDED, Verdict
from experiments.theory import geometry
from experiments.theory.geometry import NORMS, TABLE_1, pack
from ln.norm import Norm, layer_norm
from ln.rnn import RNN, unroll

SEED = 0
EXACT = 1e-12  # two float64 results that differ by less are the same
DIFFERENT = 1e-2  # and by more, not; between the two nothing is confirmed
NAMES = dict(none="no norm", batch="batch norm", weight="weight norm", layer="layer norm")


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence of the paper, or what follows from it, and its verdict.

    ``number`` is None where the sentence is none of the paper's claims that we count.
    """

    number: int | None
    source: str
    text: str
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]  # of the columns after the first
    rows: list[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Line:
    """``style`` is a norm, or the place between 0 and 1 of a number that lines are ordered by."""

    name: str
    y: np.ndarray
    style: str | float
    x: np.ndarray | None = None  # steps 0, 1, … where it is not given


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes with lines, or, with ``matrix [P, P]``, a picture in units' blocks."""

    title: str
    x_label: str = ""
    y_label: str = ""
    lines: tuple[Line, ...] = ()
    y_log: bool = False
    y_limits: tuple[float, float] | None = None
    x_log: bool = False
    matrix: np.ndarray | None = None
    limit: float = 1.0  # of the colours of a matrix, −limit to limit
    blocks: int = 1


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """What the page shows of a demonstration; ``rule`` is its docstring."""

    title: str
    setting: str
    claims: tuple[Claim, ...]
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()
    columns: int = 2
    caption: str = ""
    errata: tuple[str, ...] = ()
    rule: str = ""


def demonstration(function: Callable[[int], Demonstration]) -> Callable[[int], Demonstration]:
    """Runs it in float64, and gives it its docstring as the rule."""

    @wraps(function)
    def run(seed: int = SEED) -> Demonstration:
        with jax.enable_x64(True):
            found = function(seed)
        return dataclasses.replace(found, rule=" ".join(inspect.getdoc(function).split()))

    return run


def sci(value) -> str:
    """ "3.1e-16": two digits are enough to tell rounding from a difference."""
    mantissa, exponent = f"{float(value):.1e}".split("e")
    return mantissa + (f"e{int(exponent)}" if int(exponent) else "") if value else "0"


def decide(holds) -> str:
    return CONFIRMED if holds else CONTRADICTED


def claim(number, source, text, holds, because) -> Claim:
    return Claim(number, source, text, Verdict(decide(holds), because))


def relative(found, expected) -> float:
    """‖found − expected‖ / ‖expected‖."""
    return float(jnp.linalg.norm((found - expected).ravel()) / jnp.linalg.norm(expected.ravel()))


outputs = jax.jit(geometry.outputs, static_argnums=0)
fisher_information = jax.jit(geometry.fisher_information, static_argnums=0)
eq_13 = jax.jit(geometry.eq_13, static_argnums=0)
layer_norm_fisher = jax.jit(geometry.layer_norm_fisher)


class Layer:
    """A random layer and random cases: x ``[N, D]``, W ``[D, H]``, bias and gain ``[H]``."""

    def __init__(self, seed: int, N: int, D: int, H: int):
        self.random = np.random.default_rng(seed)
        self.x, self.W = self.random.normal(size=(N, D)), self.random.normal(size=(D, H))
        self.bias, self.gain = self.random.normal(size=H), 1 + 0.3 * self.random.normal(size=H)
        self.y = self.random.integers(2, size=(N, H)).astype(float)
        self.setting = f"{N} cases, {D} inputs, {H} units"

    @property
    def theta(self):
        return pack(self.W, self.bias, self.gain)

    def outputs(self, norm, W=None, x=None):
        W, x = self.W if W is None else W, self.x if x is None else x
        return outputs(norm, W, self.bias, self.gain, x)

    def gradient(self, norm, W=None):
        """d/dW ``[D, H]`` of the mean over cases of −log P(y | x)."""
        return gradient(norm, self.W if W is None else W, self.bias, self.gain, self.x, self.y)


@partial(jax.jit, static_argnums=0)
def gradient(norm, W, bias, gain, x, y):
    def loss(W):
        return -geometry.log_likelihood(geometry.outputs(norm, W, bias, gain, x), y).mean()

    return jax.grad(loss)(W)


@demonstration
def invariances(seed):
    """The largest change of an output, in units of order 1. Confirmed where every change is below
    1e-12 that should be nothing, and every other one above 0.01; contradicted otherwise. Scales are
    3.7 for all, and from 0.2 to 5 for single units and cases; shifts are standard normal.
    """
    layer = Layer(seed, N=64, D=7, H=5)
    random, (N, D), H = layer.random, layer.x.shape, layer.W.shape[1]
    scales = [np.exp(random.uniform(np.log(0.2), np.log(5), n)) for n in (H, N)]
    transformed = geometry.transformations(
        layer.W, layer.x, 3.7, random.normal(size=D), scales[0], random.normal(size=D), scales[1]
    )

    def change(norm, W, x):
        return float(abs(layer.outputs(norm, W, x) - layer.outputs(norm)).max())

    rows, words, changes = [], [], {}
    for n, (name, (W, x)) in enumerate(transformed.items()):
        row = [name]
        for norm in NORMS:
            changed = changes[norm, name] = change(norm, W, x)
            invariant = TABLE_1[norm][n]
            words.append(decide(changed < EXACT if invariant else changed > DIFFERENT))
            row += [sci(changed), f"{'invariant' if invariant else 'no'}: {words[-1]}"]
        rows.append(tuple(row))
    negative = ["weight matrix re-scaling by −3.7"]
    for norm in NORMS:
        negative += [sci(change(norm, -3.7 * layer.W, layer.x)), "not in the table"]
    rows.append(tuple(negative))

    def of(norm, *invariant_then_not):
        """Whether the first is exact and the second, if any, is not; and both as words."""
        found = [changes[norm, name] for name in invariant_then_not]
        right = found[0] < EXACT and all(other > DIFFERENT for other in found[1:])
        parts = zip(invariant_then_not, found, strict=True)
        return right, "; ".join(f"{name}: {sci(value)}" for name, value in parts) + "."

    by_case = scales[1][:, None] * (layer.x @ layer.W) + random.normal(size=(N, 1))
    summed = abs(layer_norm(by_case, layer.gain, layer.bias, 0.0) - layer.outputs("layer")).max()
    shifted = changes["layer", "data set re-centring"]
    weight_rescaled = changes["weight", "data set re-scaling"]
    return Demonstration(
        title="Table 1: invariances",
        setting=f"A layer without an epsilon; {layer.setting}. Scales must be positive: a negative "
        "one turns the sign of â (last row of the table).",
        claims=(
            claim(
                5,
                "Table 1",
                "What leaves the outputs of each method as they are, and what does not.",
                set(words) == {CONFIRMED},
                f"{words.count(CONFIRMED)} of {len(words)} entries are as the table says.",
            ),
            claim(
                6,
                "§5.1, eq. 6",
                "Layer norm does not feel the same γ added to the weight vectors of all units "
                "(W' = δW + 1γᵀ), but it does feel the scale of a single one.",
                *of("layer", "weight matrix re-centring", "weight vector re-scaling"),
            ),
            claim(
                7,
                "§5.1, eq. 7",
                "Layer norm does not feel the scale of a single case.",
                *of("layer", "single case re-scaling"),
            ),
            claim(
                30,
                "§7",
                "Layer norm is invariant to shifts and scales of the features of single cases.",
                summed < EXACT and shifted > DIFFERENT,
                "In the sense of the summed inputs of a layer: δ_n a_n + c_n 1, with its own "
                f"δ_n and c_n for every case, changes the outputs by {sci(summed)}. Not of "
                f"inputs: x + c changes them by {sci(shifted)}.",
            ),
        ),
        tables=(
            Table(
                "Largest change of an output",
                tuple(cell for norm in NORMS for cell in (NAMES[norm], "Table 1")),
                rows,
            ),
        ),
        errata=(
            "The text of §5.1 has all three methods invariant to re-scaling the data set; Table 1 "
            "says that weight norm is not. The table is right: its outputs change by "
            f"{sci(weight_rescaled)}.",
        ),
    )


@demonstration
def curvature(seed):
    """F is the Fisher information by brute force; ratios are of Frobenius norms of its blocks (i,
    j), all i and j together. The claim on the outputs is confirmed where they change by less than
    1e-12. That on the curvature is confirmed where the w-w block has the ratio 0.5 to 1e-12, and
    contradicted where it has another. The whole of W is doubled, as layer norm needs; under batch
    and weight norm a single vector does as much to its own block.
    """
    layer = Layer(seed, N=16, D=4, H=4)
    D = len(layer.W)
    parts = dict(w=slice(0, D), b=slice(D, D + 1), g=slice(D + 1, D + 2))
    step = layer.random.normal(size=layer.theta.shape) * (np.arange(D + 2) < D)  # of weights only
    found: dict[str, list] = {}
    for norm in NORMS:
        once, twice = (
            fisher_information(norm, pack(k * layer.W, layer.bias, layer.gain), layer.x)
            for k in (1, 2)
        )

        def ratio(p, q, once=once, twice=twice):
            return jnp.linalg.norm(twice[:, p, :, q].ravel()) / jnp.linalg.norm(
                once[:, p, :, q].ravel()
            )

        gradients = layer.gradient(norm), layer.gradient(norm, 2 * layer.W)
        fixed = geometry.quadratic_form(once, step)
        ratios = {
            "gradient, W": jnp.linalg.norm(gradients[1]) / jnp.linalg.norm(gradients[0]),
            **{
                f"F, {p}-{q} block": ratio(parts[p], parts[q])
                for p, q in ("ww", "wb", "wg", "bb", "bg", "gg")
            },
            "ΔᵀFΔ, the same ΔW": geometry.quadratic_form(twice, step) / fixed,
            "ΔᵀFΔ, ΔW doubled with W": geometry.quadratic_form(twice, 2 * step) / fixed,
        }
        change = abs(layer.outputs(norm, 2 * layer.W) - layer.outputs(norm)).max()
        found[norm] = [change, *map(float, ratios.values())]
        labels = ["outputs, largest change", *ratios]
    rows = [
        (label, *(sci(found[norm][n]) if n == 0 else f"{found[norm][n]:.6g}" for norm in NORMS))
        for n, label in enumerate(labels)
    ]
    of_w, of_cross = ([found[norm][n] for norm in NORMS] for n in (2, 3))
    changes = [found[norm][0] for norm in NORMS]
    return Demonstration(
        title="Doubling the weights: gradient and curvature",
        setting=f"One layer with Bernoulli outputs; {layer.setting}. Powers of two scale floating "
        "point numbers exactly, so that differences of 0 are no surprise.",
        claims=(
            claim(
                9,
                "§5.2.2",
                "Doubling the weights leaves the outputs as they are.",
                max(changes) < EXACT,
                f"Largest change, all norms: {sci(max(changes))}.",
            ),
            claim(
                9,
                "§5.2.2",
                "Doubling the weights changes the curvature along them by a factor ½.",
                max(abs(r - 0.5) for r in of_w) < EXACT,
                f"The w-w block of F changes by {', '.join(f'{r:.6g}' for r in of_w)} (batch, "
                f"weight, layer); by {', '.join(f'{r:.6g}' for r in of_cross)} the w-b block "
                f"and, as the gradient, the w-g block.",
            ),
        ),
        tables=(Table("After doubling, over before", tuple(NAMES[norm] for norm in NORMS), rows),),
        errata=(
            "“Changes by ½” is right of the gradient and of the blocks that cross from weights to "
            "bias and gain. Eq. 13 has 1/σ_i σ_j in its w-w block: along a fixed ΔW the curvature "
            "is a quarter, along one that grows with the weights it stays.",
        ),
    )


@demonstration
def orthogonality(seed):
    """Confirmed where the inner products that should vanish are below 1e-12 and, for layer norm,
    those of single units above 0.01 of the gradient times the weights; contradicted otherwise.
    """
    layer = Layer(seed, N=16, D=5, H=6)
    rows, sizes = [], {}
    for norm in NORMS:
        G = layer.gradient(norm)
        per_unit = (G * layer.W).sum(0)
        scale = jnp.linalg.norm(G) * jnp.linalg.norm(layer.W)
        sizes[norm] = [
            float(abs(value).max() / scale) for value in (per_unit, per_unit.sum(), G.sum(1))
        ]
        rows.append((NAMES[norm], *map(sci, sizes[norm])))
    batch, weight, whole = sizes["batch"], sizes["weight"], sizes["layer"]
    return Demonstration(
        title="The gradient is orthogonal to the weights",
        setting=f"One layer with Bernoulli outputs, −log P(y|x) of random y; {layer.setting}.",
        claims=(
            claim(
                None,
                "from Table 1",
                "Under batch and weight norm the gradient of every unit's weights is orthogonal to "
                "them.",
                max(batch[0], weight[0]) < EXACT,
                f"Largest of a unit: {sci(batch[0])} (batch), {sci(weight[0])} (weight).",
            ),
            claim(
                None,
                "from Table 1",
                "Under layer norm that holds of the matrix as a whole, not of a unit; and the "
                "gradients of the units sum to zero.",
                max(whole[1:]) < EXACT and whole[0] > DIFFERENT,
                f"Matrix {sci(whole[1])}, largest of a unit {sci(whole[0])}, sum over units "
                f"{sci(whole[2])}.",
            ),
        ),
        tables=(
            Table(
                "In units of ‖∂L/∂W‖ ‖W‖",
                (
                    "largest ⟨∂L/∂w_i, w_i⟩ of a unit",
                    "⟨∂L/∂W, W⟩ of the matrix",
                    "largest entry of Σ_i ∂L/∂w_i",
                ),
                rows,
            ),
        ),
    )


# --- Growth of the weights under SGD ---

STEPS, BATCH, RATE = 400, 16, 0.5
SCALES = (0.5, 1.0, 2.0, 4.0)  # k of k W_0


def classify(params, x):
    """Logits of a network with one normalized layer: V tanh(LN(W x)) + c."""
    h = jnp.tanh(layer_norm(x @ params["W"], params["gain"], params["bias"], epsilon=0.0))
    return h @ params["V"] + params["c"]


def cross_entropy(params, x, y):
    log_p = jax.nn.log_softmax(classify(params, x))
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()


@partial(jax.jit, static_argnames="hold")
def descend(params, x, y, batches, rate_W, rate, hold=False):
    """Plain SGD on batches ``[steps, cases]``; W has a learning rate of its own.

    With ``hold`` W is set back to its first length after every step. Returns readings ``[steps]``:
    loss of all cases before the step, ‖W‖² before and after, ‖∂L/∂W‖², and the angle of the step.
    """
    length = jnp.linalg.norm(params["W"])

    def step(params, cases):
        loss = cross_entropy(params, x, y)
        G = jax.grad(cross_entropy)(params, x[cases], y[cases])
        rates = {name: rate_W if name == "W" else rate for name in params}
        new = {name: params[name] - rates[name] * G[name] for name in params}
        readings = dict(
            loss=loss,
            before=(params["W"] ** 2).sum(),
            after=(new["W"] ** 2).sum(),
            gradient=(G["W"] ** 2).sum(),
            angle=geometry.angle(params["W"], new["W"]),
        )
        if hold:
            new["W"] *= length / jnp.linalg.norm(new["W"])
        return new, readings

    return jax.lax.scan(step, params, batches)[1]


@jax.jit
def speed(params, x, y):
    """How fast the logits move at the start of gradient descent on W, ‖d logits/dt‖."""
    G = jax.grad(cross_entropy)(params, x, y)["W"]
    _, moved = jax.jvp(lambda W: classify(params | {"W": W}, x), (params["W"],), (-G,))
    return jnp.linalg.norm(moved)


@demonstration
def growth(seed):
    """A network V tanh(LN(W x)) + c learns noisy labels by plain SGD, from k W_0 for four k. Claim
    9 is confirmed where the loss at the start is the same for all k to 1e-12, the outputs then move
    at a rate of 1/k² to 1e-12, and the losses with k² times the learning rate of W are those of k =
    1 to 1e-9 at every step. Claim 10 is confirmed where ‖W‖² grows at every step by η²‖∂L/∂W‖², to
    1e-12 of ‖W‖², and the mean angle of the last tenth of the steps is smaller than that of the
    first tenth by a greater factor than in the same training with ‖W‖ held at its first length.
    """
    random = np.random.default_rng(seed)
    N, D, H, C = 128, 10, 20, 3
    x = random.normal(size=(N, D))
    y = (x @ random.normal(size=(D, C))).argmax(1)
    y = np.where(random.random(N) < 0.2, random.integers(C, size=N), y)  # so that gradients stay
    W, V = random.normal(size=(D, H)) / np.sqrt(D), random.normal(size=(H, C)) / np.sqrt(H)
    params = dict(W=W, gain=np.ones(H), bias=np.zeros(H), V=V, c=np.zeros(C))
    batches = random.integers(N, size=(STEPS, BATCH))

    def run(k, rate, hold=False):
        found = descend(params | {"W": k * W}, x, y, batches, rate, RATE, hold)
        return jax.tree.map(np.asarray, found)

    plain = {k: run(k, RATE) for k in SCALES}
    scaled = {k: run(k, k**2 * RATE) for k in SCALES}
    held, free = run(1.0, RATE, hold=True), plain[1.0]
    speeds = {k: float(speed(params | {"W": k * W}, x, y)) for k in SCALES}
    rates = {k: speeds[k] / speeds[1.0] * k**2 for k in SCALES}
    start = max(abs(plain[k]["loss"][0] - free["loss"][0]) for k in SCALES)
    apart = max(abs(scaled[k]["loss"] - free["loss"]).max() for k in SCALES)
    worst = max(abs(rate - 1) for rate in rates.values())

    grown = free["after"] - free["before"]
    balance = (abs(grown - RATE**2 * free["gradient"]) / free["before"]).max()
    tenth = STEPS // 10
    shrunk, shrunk_held = (
        run["angle"][-tenth:].mean() / run["angle"][:tenth].mean() for run in (free, held)
    )
    lengths = np.sqrt(free["before"])
    places = {k: n / (len(SCALES) - 1) for n, k in enumerate(SCALES)}

    def losses(runs, title):
        lines = tuple(Line(f"k = {k:g}", runs[k]["loss"], places[k]) for k in SCALES)
        return Panel(title, "step", "training loss [nats]", lines)

    rows = [
        (
            f"k = {k:g}",
            f"{plain[k]['loss'][0]:.6f}",
            f"{speeds[k] / speeds[1.0]:.6g}",
            f"{plain[k]['loss'][-tenth:].mean():.4f}",
            f"{scaled[k]['loss'][-tenth:].mean():.4f}",
            f"{np.sqrt(plain[k]['after'][-1] / plain[k]['before'][0]):.3f}",
        )
        for k in SCALES
    ]
    return Demonstration(
        title="Growth of the weights, an implicit fall of the learning rate",
        setting=f"{N} cases of {C} classes, a fifth with random labels, {D} inputs, {H} units; "
        f"{STEPS} steps of plain SGD, batch size {BATCH}, learning rate {RATE:g}. Powers of two "
        "scale floating point numbers exactly, so that differences of 0 are no surprise.",
        claims=(
            claim(
                9,
                "§5.2.2",
                "The norm of the weights acts as an inverse learning rate.",
                start < EXACT and worst < EXACT and apart < 1e-9,
                f"From k W_0 the loss at the start differs by {sci(start)}; the rate at which "
                f"the outputs move is 1/k² to {sci(worst)}; with k² times the learning rate "
                f"the losses differ from those of k = 1 by {sci(apart)} at most.",
            ),
            claim(
                10,
                "§5.2.2",
                "That norm grows, so that directions turn less and less: an implicit early stop.",
                (grown > 0).all() and balance < EXACT and shrunk < shrunk_held,
                f"‖W‖ grew at {(grown > 0).mean():.0%} of the steps, from {lengths[0]:.3g} to "
                f"{lengths[-1]:.3g}; ‖W‖² by η²‖∂L/∂W‖², to {sci(balance)}. The angle per step "
                f"went to {shrunk:.3f} of its first value; with ‖W‖ held, to "
                f"{shrunk_held:.3f}.",
            ),
        ),
        tables=(
            Table(
                "Start from k W_0",
                (
                    "loss at step 0",
                    "speed of the outputs, k = 1: 1",
                    "loss, last tenth",
                    "the same with k²η",
                    "‖W‖ at the end over k‖W_0‖",
                ),
                rows,
            ),
        ),
        panels=(
            Panel("length of W", "step", "‖W‖", (Line("layer norm", lengths, "layer"),)),
            Panel(
                "turn of W per step",
                "step",
                "angle [rad], mean of 10",
                tuple(
                    Line(name, run["angle"].reshape(-1, 10).mean(1), style, np.arange(5, STEPS, 10))
                    for name, run, style in (
                        ("‖W‖ free", free, "layer"),
                        ("‖W‖ held", held, "none"),
                    )
                ),
                y_log=True,
            ),
            losses(plain, "the same learning rate for all k"),
            losses(scaled, "k² times the learning rate"),
        ),
        caption="With k² times the learning rate the four curves lie on each other.",
    )


# --- Fisher information of normalized models ---


@jax.jit
@jax.vmap
def error_of_eq_13(theta, x):
    """‖eq. 13 − F‖ / ‖F‖ of layer norm, F with the cross-neuron terms."""
    W, bias, gain = geometry.unpack(theta)
    cov = geometry.bernoulli_covariance(geometry.outputs("layer", W, bias, gain, x))
    F = geometry.layer_norm_fisher(theta, x, cov)
    off = geometry.eq_13("layer", theta, x, cov) - F
    return jnp.sqrt((off**2).sum() / (F**2).sum())


@demonstration
def fisher(seed):
    """Relative errors are ‖eq. 13 − F‖/‖F‖, where F takes the expectation over all outputs y of
    Bernoulli units and over the cases, with gradients by automatic differentiation of the whole
    model, and Cov is p(1 − p) on the diagonal. Confirmed where the error is below 1e-12,
    contradicted where it is above 0.01.
    """
    layer = Layer(seed, N=16, D=4, H=4)
    H, P = layer.theta.shape
    own = np.eye(H, dtype=bool)

    def blocks(F, which):  # the blocks (i, i), or the others
        return F.transpose(0, 2, 1, 3)[which]

    rows, errors, F = [], {}, {}
    for norm in (*NORMS, "with"):
        kind = "layer" if norm == "with" else norm
        cov = geometry.bernoulli_covariance(layer.outputs(kind))
        F[kind] = fisher_information(kind, layer.theta, layer.x)
        if norm == "with":
            found = layer_norm_fisher(layer.theta, layer.x, cov)
        else:
            found = eq_13(norm, layer.theta, layer.x, cov)
        errors[norm] = relative(found, F[kind])
        size, size_found = (jnp.linalg.norm(blocks(M, ~own)) for M in (F[kind], found))
        rows.append(
            (
                "layer norm, all terms" if norm == "with" else NAMES[norm],
                sci(errors[norm]),
                sci(relative(blocks(found, own), blocks(F[kind], own))),
                f"{size / jnp.linalg.norm(F[kind]):.3f}",
                f"{size_found / jnp.linalg.norm(F[kind]):.3f}",
                decide(errors[norm] < EXACT),
            )
        )
        if norm == "layer":
            of_paper = found
    widths = np.array([3, 4, 8, 16, 32, 64])
    drawn = [[Layer(seed + n, N=16, D=4, H=width) for n in range(10)] for width in widths]
    by_width = np.array(
        [
            error_of_eq_13(np.stack([o.theta for o in of]), np.stack([o.x for o in of])).mean()
            for of in drawn
        ]
    )
    pictures = [np.asarray(M).reshape(H * P, H * P) for M in (F["layer"], of_paper)]
    pictures.append(pictures[1] - pictures[0])
    limit = float(abs(pictures[0]).max()) / 2  # so that what is small can be seen
    titles = ("F, brute force", "eq. 13", "eq. 13 − F")
    return Demonstration(
        title="Eq. 13 against the Fisher information",
        setting=f"One layer with Bernoulli outputs; {layer.setting}.",
        claims=tuple(
            claim(
                None,
                "§5.2.2, eqs. 13-14",
                f"Eq. 13 is the Fisher information of a model with {NAMES[norm]}.",
                errors[norm] < EXACT,
                f"Relative error {sci(errors[norm])}"
                + (
                    f"; with the cross-neuron terms {sci(errors['with'])}."
                    if norm == "layer"
                    else ""
                ),
            )
            for norm in NORMS
        ),
        tables=(
            Table(
                "Eq. 13",
                (
                    "relative error",
                    "… of blocks i = j",
                    "share of blocks i ≠ j in ‖F‖",
                    "… in the formula",
                    "verdict",
                ),
                rows,
            ),
        ),
        panels=(
            *(
                Panel(title, matrix=matrix, limit=limit, blocks=H)
                for title, matrix in zip(titles, pictures, strict=True)
            ),
            Panel(
                "layer norm, wider layers",
                "units H",
                "relative error of eq. 13",
                (Line("mean of 10 layers", by_width, "layer", widths),),
                x_log=True,
            ),
        ),
        caption="Layer norm. Rows and columns of a picture: (w, b, g) of unit 1, then of unit 2, "
        f"…; red is positive, blue negative, full colour at {limit:.2g}.",
        errata=(
            "Eq. 13 with eq. 14 leaves out that under layer norm w_i moves the outputs of all "
            "units, which share μ and σ: ∂z_k/∂w_i = g_k/σ (δ_ki − 1/H − â_k â_i/H) x. So blocks "
            "i ≠ j do not vanish for independent outputs either. The error falls with the number "
            f"of units, from {by_width[0]:.2f} at {widths[0]} to {by_width[-1]:.2f} at "
            f"{widths[-1]}.",
        ),
    )


@demonstration
def magnitudes(seed):
    """The squared length ds² = ½ δᵀMδ of one random step δ in the gains, and for the standard model
    of the same step in the lengths of its weight vectors, for inputs x and 10 x. Cov is p(1 − p) at
    x, and held. Confirmed where the ratio is 1 for batch and layer norm, and 100 for the standard
    model, to 1e-12; contradicted otherwise.
    """
    layer = Layer(seed, N=64, D=5, H=4)
    delta = layer.random.normal(size=4)
    W, x = layer.W, layer.x
    cov = {norm: geometry.bernoulli_covariance(layer.outputs(norm)) for norm in ("none", *NORMS)}

    def length(M):
        return float(delta @ M @ delta / 2)

    def gain_length(norm, x):
        return length(geometry.gain_metric(norm, W, x, cov[norm]))

    def exact(norm):  # the gain-gain block of F by brute force
        F = fisher_information(norm, layer.theta, x)
        return length(F[:, -1, :, -1])

    lengths = np.linalg.norm(W, axis=0)
    along = pack(delta * W / lengths, np.zeros(4), np.zeros(4))
    F = fisher_information("none", layer.theta, x)
    metrics = {
        "no norm, eq. 35": (
            lambda x: length(geometry.eq_35(W, x, cov["none"])),
            geometry.quadratic_form(F, along) / 2,
        ),
        "weight norm, eq. 34": (partial(gain_length, "weight"), exact("weight")),
        "batch norm, eq. 32 as printed": (
            lambda x: length(geometry.eq_32(cov["batch"])),
            exact("batch"),
        ),
        "batch norm, with â_i â_j": (partial(gain_length, "batch"), exact("batch")),
        "layer norm, eq. 33": (partial(gain_length, "layer"), exact("layer")),
    }
    values = {name: (of(x), of(10 * x)) for name, (of, _) in metrics.items()}
    ratios = {name: large / small for name, (small, large) in values.items()}
    rows = [
        (name, f"{exact:.4f}", *(f"{value:.4f}" for value in values[name]), f"{ratios[name]:.6g}")
        for name, (_, exact) in metrics.items()
    ]

    gaussian = np.broadcast_to(np.eye(4), (len(x), 4, 4))  # φ = 1
    gauss = length(geometry.gain_metric("batch", W, x, gaussian)), length(geometry.eq_32(gaussian))
    # The slip shows between different units only, that is, where outputs are correlated.
    A = layer.random.normal(size=(4, 4))
    correlated = np.broadcast_to(A @ A.T, (len(x), 4, 4))
    right = geometry.eq_35(W, x, correlated)
    slip = length(right), length(right * lengths / lengths[:, None])
    moved = x @ (delta * W / lengths)  # of the outputs, which are linear in W
    moved = float(jnp.einsum("nij,ni,nj->n", correlated, moved, moved).mean() / 2)
    robust = [ratios[name] for name in list(metrics)[2:]]
    printed, full = (
        values[name][0] for name in ("batch norm, eq. 32 as printed", "batch norm, with â_i â_j")
    )
    return Demonstration(
        title="Learning magnitudes under inputs of another scale",
        setting=f"One layer with Bernoulli outputs; {layer.setting}.",
        claims=(
            claim(
                11,
                "§5.2.2, eqs. 32-35",
                "Learning the magnitude of weights through gains is robust to the scale of the "
                "inputs under batch and layer norm, and not without a norm.",
                (
                    max(abs(r - 1) for r in robust) < EXACT
                    and abs(ratios["no norm, eq. 35"] / 100 - 1) < EXACT
                ),
                "Inputs times 10 change ds² by the factors "
                + ", ".join(f"{ratio:.6g} ({name})" for name, ratio in ratios.items())
                + ". Weight norm goes with the model without norm.",
            ),
        ),
        tables=(
            Table("ds²", ("brute force at x", "formula at x", "formula at 10 x", "ratio"), rows),
        ),
        errata=(
            "Eq. 32 drops the factor â_i â_j that eq. 13 has. Of independent outputs only i = j "
            "counts, where the factor is 1 on average: for Gaussian outputs of variance 1 nothing "
            f"is lost (with it {gauss[0]:.4f}, without {gauss[1]:.4f}). For Bernoulli outputs eq. "
            f"32 gives {printed:.4f}, with the factor {full:.4f}, and by brute force "
            f"{exact('batch'):.4f}.",
            "Eq. 35 divides w_j by ‖w_i‖ in one of its vectors. For correlated outputs (one random "
            f"Cov for all cases) ds² would be {slip[1]:.4f}; with ‖w_j‖ it is {slip[0]:.4f}, and "
            f"by the move of the outputs {moved:.4f}.",
        ),
    )


# --- Hidden-to-hidden dynamics ---

RECURRENT = (0.25, 0.5, 1.0, 2.0, 4.0)  # s of W_hh = s times an orthogonal matrix
T, CASES, INPUTS, UNITS = 100, 16, 10, 100


@partial(jax.jit, static_argnums=0)
def readings(cell, params, xs, direction):
    """Of an RNN (eq. 4) over xs ``[T, B, D]``: the rms of its summed inputs a_t, and ‖∂L/∂h_t‖ for
    the loss ⟨direction, h_T⟩; both ``[T]``, over all cases.
    """
    a_x = cell.apply(params, xs, method="project")
    W_h = cell.apply(params, method="recurrent")

    def step(h, inputs):
        a_x, push = inputs
        a_h = h @ W_h
        h, _ = cell.apply(params, h, a_x, a_h, method="update")
        return h + push, a_h + a_x

    def loss(pushes):  # all of them 0; the derivative by them is that by the hidden states
        h, a = jax.lax.scan(step, jnp.zeros_like(direction), (a_x, pushes))
        return (direction * h).sum(), a

    G, a = jax.grad(loss, has_aux=True)(jnp.zeros((len(xs), *direction.shape)))
    largest = abs(G).max((1, 2), keepdims=True)  # the square of 1e-156 would be 0
    lengths = largest * jnp.linalg.norm(G / largest, axis=(1, 2), keepdims=True)
    return jnp.sqrt((a**2).mean((1, 2))), lengths[:, 0, 0]


def decades(values) -> float:
    """log10 of the largest over the smallest."""
    return float(np.log10(values.max() / values.min()))


def stability(plain, layer) -> Verdict:
    """The verdict on (rms, gradient) without a norm and with layer norm, each ``[scales, T]``; the
    gradients are relative to the last.
    """
    of_plain, of_layer = (tuple(map(decades, pair)) for pair in (plain, layer))
    word = NOT_DECIDED
    if all(b < a / 2 for a, b in zip(of_plain, of_layer, strict=True)):
        word = CONFIRMED
    elif all(b > a for a, b in zip(of_plain, of_layer, strict=True)):
        word = CONTRADICTED

    def ends(values):
        return f"{sci(values.min())} to {sci(values.max())}"

    return Verdict(
        word,
        f"Without a norm the rms of a_t spans {of_plain[0]:.1f} decades ({ends(plain[0])}), with "
        f"layer norm {of_layer[0]:.1f} ({ends(layer[0])}); ‖∂L/∂h_t‖ over that at T, "
        f"{of_plain[1]:.1f} ({ends(plain[1])}) and {of_layer[1]:.1f} ({ends(layer[1])}).",
    )


@demonstration
def dynamics(seed):
    """The RNN of eq. 4, its recurrent matrix s times an orthogonal one, for s from 0.25 to 4. Two
    things are to stay in place over all steps and all s: the rms of the summed inputs a_t, and the
    length of the gradient of a loss at T by h_t, over that by h_T. Confirmed where layer norm keeps
    the range of both, in decades, to less than half of what it is without a norm; contradicted
    where both ranges are wider; not decided otherwise.
    """
    random = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(random.normal(size=(UNITS, UNITS)))
    W_x = random.normal(size=(INPUTS, UNITS)) / np.sqrt(INPUTS)
    every = random.normal(size=(T, CASES, INPUTS))
    inputs = {"free": every * (np.arange(T) == 0)[:, None, None], "driven": every}
    words = {"free": "input at the first step only", "driven": "input at every step"}
    direction = random.normal(size=(CASES, UNITS))
    norms = {
        "no norm": Norm(),
        "layer norm": Norm("layer", ("a",)),
        "layer norm, gain 0.1": Norm("layer", ("a",), (("gain", 0.1),)),
    }
    activations = {"tanh": jnp.tanh, "ReLU": jax.nn.relu}

    def measure(norm, f, xs):
        """rms, and gradients over the last, both ``[scales, T]``."""
        cell = RNN(UNITS, norms[norm], activation=activations[f])
        params = cell.init(jax.random.key(0), direction, every[0])["params"]
        params = jax.tree.map(np.float64, params) | {"W_x": {"kernel": W_x}}
        found = [
            readings(cell, {"params": params | {"W_h": {"kernel": s * Q}}}, xs, direction)
            for s in RECURRENT
        ]
        rms, G = (np.stack(values) for values in zip(*found, strict=True))
        return rms, G / G[:, -1:]

    found = {
        (norm, f, name): measure(norm, f, xs)
        for norm in norms
        for f in activations
        for name, xs in inputs.items()
    }
    labels, steps = ("rms of a_t", "‖∂L/∂h_t‖ / ‖∂L/∂h_T‖"), np.arange(1, T + 1)
    places = np.linspace(0, 1, len(RECURRENT))
    panels = []
    for name in inputs:
        for n, label in enumerate(labels):
            pair = {norm: found[norm, "tanh", name][n] for norm in ("no norm", "layer norm")}
            both = np.stack(list(pair.values()))
            for norm, values in pair.items():
                lines = tuple(
                    Line(f"s = {s:g}", of_s, place, steps)
                    for s, of_s, place in zip(RECURRENT, values, places, strict=True)
                )
                panels.append(
                    Panel(
                        f"{norm}, {words[name]}",
                        "step t",
                        label,
                        lines,
                        y_log=True,
                        y_limits=(both.min() / 3, both.max() * 3),
                    )
                )
    one = RECURRENT.index(1.0)
    styles = dict(zip(norms, ("none", "layer", 0.8), strict=True))
    for name in inputs:
        lines = tuple(
            Line(norm, found[norm, "tanh", name][1][one], styles[norm], steps) for norm in norms
        )
        panels.append(Panel(f"s = 1, {words[name]}", "step t", labels[1], lines, y_log=True))

    def table(f):
        rows = []
        for norm in norms:
            for n, s in enumerate(RECURRENT):
                row = [f"{norm}, s = {s:g}"]
                for name in inputs:
                    rms, G = found[norm, f, name]
                    row += [sci(rms[n, 0]), sci(rms[n, -1]), sci(G[n, 0])]
                rows.append(tuple(row))
        columns = ("rms of a_1", "rms of a_T", "‖∂L/∂h_1‖ / ‖∂L/∂h_T‖")
        return Table(
            f"First and last step, {f}", tuple(f"{i}: {c}" for i in inputs for c in columns), rows
        )

    first = {norm: found[norm, "tanh", "driven"][1][:, 0] for norm in norms}
    return Demonstration(
        title="Hidden-to-hidden dynamics",
        setting=f"{UNITS} units, {T} steps, {CASES} cases of {INPUTS} standard normal inputs, at "
        "the first step only (“free”) or at every step (“driven”); a_t = W_hh h_{t−1} + W_xh x_t.",
        claims=tuple(
            Claim(
                12,
                "§3.1",
                "With layer norm the hidden-to-hidden dynamics are much more stable "
                f"({f}, {words[name]}).",
                stability(*(found[norm, f, name] for norm in ("no norm", "layer norm"))),
            )
            for f in activations
            for name in inputs
        ),
        tables=tuple(map(table, activations)),
        panels=tuple(panels),
        caption="tanh units. Both panels of a row have the same axis. Layer norm takes the scale "
        "of the recurrent weights out of the hidden-to-hidden map, and with it growth. With input "
        "at every step, which shares the normalization, gradients by early states vanish as they "
        f"do without it (s = 0.25: {sci(first['layer norm'][0])} with, "
        f"{sci(first['no norm'][0])} without), and more so for a small gain (s = 1: "
        f"{sci(first['layer norm'][one])} with gain 1, {sci(first['layer norm, gain 0.1'][one])} "
        "with 0.1).",
    )


# --- Exact claims about single cases ---


def apply(norm, params, stats, x):
    """tanh(norm(W x)) by the modules of ln/norm.py, and the new statistics."""
    module = norm("a")
    y, new = module.apply(
        {"params": params["norm"], "stats": stats}, x @ params["W"], mutable=["stats"]
    )
    return jnp.tanh(y), new.get("stats", {})


@demonstration
def cases(seed):
    """With the modules that the experiments use, their epsilon included. Claim 1 is confirmed where
    neither the output nor the gradient of a case changes by more than 1e-12 as all other cases are
    replaced; claim 2 where a module made for training and one made for testing give the same
    outputs to the bit; claim 3 where SGD with one case a step ends (last tenth of the steps) below
    the loss of the best constant outputs, which is all that batch norm could reach; claim 4 where
    no array of an RNN's variables has another shape for 10 steps than for 20, and the variables for
    10 give the first 10 of 20 states to 1e-12; claim 31 where batch norm's outputs for a batch of
    one are its bias to the bit, and the gradient of W is 0. Beside it, batch norm must change by
    more than 0.01 in the tests of claims 1 and 2, and have a time axis in that of claim 4.
    """
    layer = Layer(seed, N=16, D=6, H=5)
    random, W, x = layer.random, layer.W, layer.x
    params = dict(W=W, norm=dict(gain=layer.gain, bias=layer.bias))
    stats = dict(mean=np.zeros(5), var=np.ones(5), count=np.zeros(()))
    made = {
        (kind, train): Norm(kind, ("a",), train=train)
        for kind in ("batch", "layer")
        for train in (True, False)
    }
    others = np.where(np.arange(16)[:, None] == 3, x, 2 + random.normal(size=x.shape))
    direction = random.normal(size=5)

    @partial(jax.jit, static_argnums=(0, 1))
    def of_case(kind, train, x, n):
        """The outputs of case n and the gradient of a loss of this case alone."""

        def loss(params):
            y, _ = apply(made[kind, train], params, stats, x)
            return direction @ y[n], y[n]

        G, y = jax.grad(loss, has_aux=True)(params)
        return y, G["W"]

    def largest(*pairs):
        return max(float(abs(a - b).max()) for a, b in pairs)

    rows = {}
    replaced = {
        kind: largest(*zip(of_case(kind, True, x, 3), of_case(kind, True, others, 3), strict=True))
        for kind in ("layer", "batch")
    }
    modes = {
        kind: largest((of_case(kind, True, x, 3)[0], of_case(kind, False, x, 3)[0]))
        for kind in ("layer", "batch")
    }
    y, G = of_case("batch", True, x[:1], 0)
    of_one = largest((y, jnp.tanh(layer.bias))), float(abs(G).max())
    x_online = random.normal(size=(128, 10))
    labels = (x_online @ random.normal(size=(10, 3))).argmax(1)
    start = dict(
        W=random.normal(size=(10, 20)) / np.sqrt(10),
        gain=np.ones(20),
        bias=np.zeros(20),
        V=random.normal(size=(20, 3)) / np.sqrt(20),
        c=np.zeros(3),
    )
    batches = random.integers(128, size=(STEPS, 1))
    online = np.asarray(descend(start, x_online, labels, batches, 0.05, 0.05)["loss"])
    learned = online[-STEPS // 10 :].mean()
    shares = np.bincount(labels, minlength=3) / 128
    constant = -(shares * np.log(shares)).sum()

    xs = random.normal(size=(20, 16, 6))
    timed = {}
    for kind in ("layer", "batch"):
        made_for = nn.init(unroll, RNN(5, made[kind, True]))
        long, short = (made_for(jax.random.key(0), xs[:T]) for T in (20, 10))
        shapes = zip(jax.tree.leaves(long), jax.tree.leaves(short), strict=True)
        timed[kind] = sum(a.shape != b.shape for a, b in shapes)
        if kind == "layer":
            run = jax.jit(nn.apply(unroll, RNN(5, made[kind, True])))
            further = largest((run(short, xs)[0][:10], run(short, xs[:10])[0]))

    rows = [
        ("1: all other cases replaced", sci(replaced["layer"]), sci(replaced["batch"])),
        ("2: training against testing", sci(modes["layer"]), sci(modes["batch"])),
        ("4: arrays with a time axis", f"{timed['layer']}", f"{timed['batch']}"),
        ("4: the first 10 of 20 steps", sci(further), "–"),
        ("31: a batch of one, outputs − b", "–", sci(of_one[0])),
        ("31: a batch of one, ∂L/∂W", "–", sci(of_one[1])),
    ]
    return Demonstration(
        title="One case at a time",
        setting=f"{layer.setting}; the modules of ln/norm.py.",
        claims=(
            claim(
                1,
                "§3",
                "Layer norm brings no dependency between training cases.",
                replaced["layer"] < EXACT and replaced["batch"] > DIFFERENT,
                "With all other cases replaced, outputs and gradient of a case change by "
                f"{sci(replaced['layer'])} (batch norm: {sci(replaced['batch'])}).",
            ),
            claim(
                2,
                "abstract",
                "Layer norm computes the same in training and in test.",
                modes["layer"] == 0 and modes["batch"] > DIFFERENT,
                f"Outputs differ by {sci(modes['layer'])} (batch norm: {sci(modes['batch'])}).",
            ),
            claim(
                3,
                "§3",
                "Layer norm works with batches of one.",
                np.isfinite(online).all() and learned < constant,
                f"{STEPS} steps of SGD, one case each, take the training loss from "
                f"{online[0]:.3f} to {learned:.3f} nats; constant outputs reach "
                f"{constant:.3f}.",
            ),
            claim(
                4,
                "§3.1",
                "A recurrent network keeps no statistics per time step, and runs on longer "
                "sequences than it was made for.",
                timed["layer"] == 0 and further < EXACT and timed["batch"] > 0,
                f"Arrays with a time axis: {timed['layer']} (batch norm: {timed['batch']}). "
                "With the variables made for 10 steps, the first 10 of 20 steps differ by "
                f"{sci(further)}.",
            ),
            claim(
                31,
                "§1",
                "Batch norm cannot be used online, on batches of one.",
                of_one[0] == 0 and of_one[1] == 0,
                f"For a batch of one its outputs differ from its bias by {sci(of_one[0])}, "
                f"whatever the case, and the gradient of W is {sci(of_one[1])}.",
            ),
        ),
        tables=(Table("Largest change or difference", ("layer norm", "batch norm"), rows),),
    )


@demonstration
def reparametrization(seed):
    """A plain layer W' x + b' for each model: from the formulas w'_i = g_i w_i/σ_i and b'_i = b_i −
    g_i μ_i/σ_i (batch norm: statistics of one data set, held), and the best one by least squares on
    1,000 new cases. Errors are relative to the deviation of the outputs. Confirmed where batch and
    weight norm have an error below 1e-12 by the formulas, and no layer fits layer norm better than
    to 0.01; contradicted otherwise.
    """
    layer = Layer(seed, N=64, D=6, H=5)
    W, bias, gain = layer.W, layer.bias, layer.gain
    a = layer.x @ W
    new = layer.random.normal(size=(1000, 6))
    held = gain * (new @ W - a.mean(0)) / a.std(0) + bias
    made = dict(
        batch=(held, new @ (W * gain / a.std(0)) + bias - gain * a.mean(0) / a.std(0)),
        weight=(layer.outputs("weight", x=new), new @ geometry.weight_norm(W, gain) + bias),
        layer=(layer.outputs("layer", x=new), None),
    )
    with_ones = np.concatenate([new, np.ones((1000, 1))], axis=1)
    rows, errors = [], {}
    for norm, (z, plain) in made.items():
        z = np.asarray(z)
        fit = with_ones @ np.linalg.lstsq(with_ones, z, rcond=None)[0]
        spread = np.linalg.norm(z - z.mean(0))
        errors[norm] = [
            None if other is None else np.linalg.norm(z - other) / spread for other in (plain, fit)
        ]
        name = NAMES[norm] + (", statistics held" if norm == "batch" else "")
        rows.append((name, *("–" if e is None else sci(e) for e in errors[norm])))
    by_formula = errors["batch"][0], errors["weight"][0]
    best = errors["layer"][1]
    return Demonstration(
        title="A plain layer in other parameters, or not",
        setting=f"{layer.setting}, and 1,000 new cases.",
        claims=(
            claim(
                8,
                "§4",
                "Weight norm, and batch norm with given statistics, are re-parametrizations of the "
                "plain network; layer norm is not.",
                max(by_formula) < EXACT and best > DIFFERENT,
                f"The plain layer by formula has errors of {sci(by_formula[0])} (batch) and "
                f"{sci(by_formula[1])} (weight); the best one for layer norm, of {best:.2f}.",
            ),
        ),
        tables=(
            Table("Relative error of a plain layer", ("by formula", "best by least squares"), rows),
        ),
    )


DEMONSTRATIONS = (
    invariances,
    curvature,
    orthogonality,
    growth,
    fisher,
    magnitudes,
    dynamics,
    cases,
    reparametrization,
)

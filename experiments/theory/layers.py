"""One random layer: Table 1, curvature, Fisher information, and magnitudes learned by gains."""

from functools import partial

import jax
from jax.numpy.linalg import norm as size  # of an array with any number of axes
import numpy as np

from experiments.theory import geometry
from experiments.theory.checks import EXACT, Check, Result, check, sci
from experiments.theory.geometry import NORMS, TABLE_1, gain_metric, pack, unpack

outputs = jax.jit(geometry.outputs, static_argnums=0)
fisher_information = jax.jit(geometry.fisher_information, static_argnums=0)
eq_13 = jax.jit(geometry.eq_13, static_argnums=0)
layer_norm_fisher = jax.jit(geometry.layer_norm_fisher)


def draw(seed: int, N: int, D: int, H: int):
    """Return a random generator, the parameters theta of a layer, and N examples x and y."""
    random = np.random.default_rng(seed)
    x, W, bias = (random.normal(size=shape) for shape in ((N, D), (D, H), H))
    gain = 1 + 0.3 * random.normal(size=H)
    y = random.integers(2, size=(N, H)).astype(float)
    return random, np.column_stack([W.T, bias, gain]), x, y


def covariance(norm, theta, x):
    """Return Cov[y | x] ``[N, H, H]`` of Bernoulli outputs of a layer."""
    return geometry.bernoulli_covariance(outputs(norm, theta, x))


def largest(array) -> float:
    """Return the largest absolute value."""
    return float(abs(array).max())


def relative(value, expected) -> float:
    """Return the length of the difference over that of the expected array."""
    return float(size(value - expected) / size(expected))


def invariances(seed: int) -> Result:
    """Measure the largest change of an output under each transformation of Table 1."""
    random, theta, x, _ = draw(seed, N=64, D=7, H=5)
    w, bias, gain = unpack(theta)
    before = {norm: outputs(norm, theta, x) for norm in NORMS}

    def changes(w, x):
        theta = np.column_stack([w, bias, gain])
        return {norm: largest(outputs(norm, theta, x) - before[norm]) for norm in NORMS}

    new = geometry.transformations(random, w, x)
    change = {name: changes(*pair) for name, pair in new.items()}
    change["weight matrix re-scaling by −3.7"] = changes(-3.7 * w, x)  # not in the table
    invariant = [change[name][norm] for name in TABLE_1 for norm in TABLE_1[name]]
    others = [change[name][norm] for name in TABLE_1 for norm in {*NORMS} - {*TABLE_1[name]}]
    layer = {name: [by_norm["layer"]] for name, by_norm in change.items()}
    # δ_n a_n + c_n 1: c_n is one more input, and each unit takes it with the weight 1.
    shifts, (_, scaled) = random.normal(size=len(x)), new["single example re-scaling"]
    summed = changes(np.column_stack([w, np.ones(5)]), np.column_stack([scaled, shifts]))
    checks = (
        check(5, [max(invariant)], [min(others)]),
        check(6, layer["weight matrix re-centring"], layer["weight vector re-scaling"]),
        check(7, layer["single example re-scaling"]),
        check(30, [summed["layer"]], layer["data set re-centring"]),
    )
    return Result(checks, dict(x=x, theta=theta, change=change, table=TABLE_1))


def curvature(seed: int) -> Result:
    """Compare gradients and Fisher information after doubling all weights with those before.

    Layer norm needs all weights doubled. Under batch and weight norm a single weight vector does as
    much to its own block.
    """
    _, theta, x, y = draw(seed, N=16, D=4, H=4)
    parts = dict(w=slice(4), b=slice(4, 5), g=slice(5, 6))
    twice = theta * np.array([2, 2, 2, 2, 1, 1])  # the weights, not bias and gain

    @partial(jax.jit, static_argnums=0)
    def loss(norm, theta):
        return -geometry.log_likelihood(geometry.outputs(norm, theta, x), y).mean()

    def lengths(norm, theta):
        F = fisher_information(norm, theta, x)
        blocks = {
            f"F, {p}-{q} block": size(F[:, parts[p], :, parts[q]])
            for p, q in ("ww", "wb", "wg", "bb", "bg", "gg")
        }
        return {"gradient, W": size(jax.grad(loss, 1)(norm, theta)[:, :4])} | blocks

    def ratios(norm):
        before, after = lengths(norm, theta), lengths(norm, twice)
        return {name: float(after[name] / before[name]) for name in before}

    ratio = {norm: ratios(norm) for norm in NORMS}
    change = [outputs(n, twice, x) - outputs(n, theta, x) for n in NORMS]
    off = [abs(ratio[norm]["F, w-w block"] - 0.5) for norm in NORMS]
    same = "Doubling the weights leaves the outputs unchanged."
    checks = check(9, list(map(largest, change)), statement=same), check(9, off)
    return Result(checks, dict(x=x, theta=theta, ratio=ratio))


def mean_error_of_eq_13(seed: int, H: int) -> float:
    """Return the mean relative error of eq. 13 for layer norm, in ten layers of H units."""
    errors = []
    for n in range(10):
        _, theta, x, _ = draw(seed + n, N=16, D=4, H=H)
        cov = covariance("layer", theta, x)
        errors.append(relative(eq_13("layer", theta, x, cov), layer_norm_fisher(theta, x, cov)))
    return float(np.mean(errors))


def fisher(seed: int) -> Result:
    """Compare eq. 13 with the Fisher information by brute force."""
    _, theta, x, _ = draw(seed, N=16, D=4, H=4)
    F = {norm: fisher_information(norm, theta, x) for norm in NORMS}
    cov = {norm: covariance(norm, theta, x) for norm in NORMS}
    formula = {norm: eq_13(norm, theta, x, cov[norm]) for norm in NORMS}
    errors = {f"{norm} norm": relative(formula[norm], F[norm]) for norm in NORMS}
    checks = [
        Check(None, f"Eq. 13 is exact for {name}.", error < EXACT, f"Relative error: {sci(error)}.")
        for name, error in errors.items()
    ]
    complete = layer_norm_fisher(theta, x, cov["layer"])
    errors["layer norm, all terms"] = relative(complete, F["layer"])
    by_width = {H: mean_error_of_eq_13(seed, H) for H in (3, 4, 8, 16, 32, 64)}
    return Result(checks, dict(x=x, theta=theta, errors=errors, by_width=by_width))


def magnitudes(seed: int) -> Result:
    """Measure ds² = ½ δᵀMδ of one random step δ in the gains, for inputs x and 10 x.

    Without norm, δ is a step in the lengths of the weight vectors. Cov is p(1 − p) at x, and held.
    """
    random, theta, x, _ = draw(seed, N=64, D=5, H=4)
    w, _, _ = unpack(theta)
    delta, A = random.normal(size=4), random.normal(size=(4, 4))
    lengths = np.linalg.norm(w, axis=1)
    steps = dict.fromkeys(NORMS, pack(0 * w, 0, delta))
    steps["none"] = pack((delta / lengths)[:, None] * w, 0, 0)

    def ds2(M):
        return float(delta @ M @ delta / 2)

    def row(norm, ratio, metric):
        F, cov = fisher_information(norm, theta, x), covariance(norm, theta, x)
        at_x, at_10_x = (ds2(metric(k * x, cov)) for k in (1, 10))
        exact = float(np.einsum("ip,ipjq,jq->", steps[norm], F, steps[norm]) / 2)
        return [exact, at_x, at_10_x, at_10_x / at_x, abs(at_10_x / at_x / ratio - 1)]

    batch, weight, layer = (partial(gain_metric, norm, w) for norm in NORMS)
    rows = {
        "no norm, eq. 35": row("none", 100, weight),
        "weight norm, eq. 34": row("weight", 100, weight),
        "batch norm, eq. 32 as printed": row("batch", 1, lambda x, cov: cov.mean(0)),
        "batch norm, with â_i â_j": row("batch", 1, batch),
        "layer norm, eq. 33": row("layer", 1, layer),
    }
    # Eq. 32 loses nothing for Gaussian outputs of variance 1. The slip of eq. 35 shows between
    # units only, that is, for correlated outputs.
    unit, correlated = (np.broadcast_to(M, (len(x), 4, 4)) for M in (np.eye(4), A @ A.T))
    corrected = weight(x, correlated)
    printed = corrected * lengths / lengths[:, None]
    numbers = dict(x=x, theta=theta, rows=rows)
    numbers["eq_32"] = ds2(unit.mean(0)), ds2(batch(x, unit))
    numbers["eq_35"] = ds2(printed), ds2(corrected)
    return Result([check(11, [off for *_, off in rows.values()])], numbers)


def reparametrization(seed: int) -> Result:
    """Fit plain layers W' x + b' to each norm by least squares, on new examples.

    Batch norm keeps the statistics of other examples.
    """
    random, theta, x, _ = draw(seed, N=64, D=6, H=5)
    w, bias, gain = unpack(theta)
    new = random.normal(size=(1000, 6))
    mu, sigma = (x @ w.T).mean(0), (x @ w.T).std(0)
    z = {norm: np.asarray(outputs(norm, theta, new)) for norm in ("weight", "layer")}
    z["batch"] = gain * (new @ w.T - mu) / sigma + bias

    def error(z):
        inputs = np.column_stack([new, np.ones(len(new))])
        fit = inputs @ np.linalg.lstsq(inputs, z)[0]
        return np.linalg.norm(z - fit) / np.linalg.norm(z - z.mean(0))

    errors = {norm: error(z[norm]) for norm in NORMS}
    checks = [check(8, [errors["batch"], errors["weight"]], [errors["layer"]])]
    return Result(checks, dict(x=x, theta=theta, errors=errors))

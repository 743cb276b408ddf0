"""Convert weights of recurrent layers between other code bases and the cells of `ln.rnn`.

    params = from_torch(torch_lstm.state_dict(), LSTM)      # of torch.nn.LSTM or torch.nn.GRU
    params = from_layers_py(numpy.load("model.npz"), GRU, prefix="encoder")

Weights are mappings of names to arrays. Parameters are those of one cell as numpy arrays,
``{"W_x": {"kernel": ...}, ...}``. `layers.py` is the Theano code of the paper's authors: its layers
"lstm" and "gru" have no norm, and "lnlstm" and "lngru" have layer norm at all sites of the cell.
Its cells add the bias before the norm of the input: make ours with ``bias_inside=True``.

The GRUs of both call 1 − z what the paper calls z, so the gate changes its sign.
"""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict
import numpy as np

from ln.errors import InputError, nearest
from ln.rnn import GRU, LSTM, Cell

Weights = Mapping[str, Any]

GATES = {LSTM: 4, GRU: 3}
TORCH_LSTM = (1, 0, 3, 2)  # f, i, o, g among PyTorch's i, f, g, o, and the other way round
LAYERS_MATRICES = {  # our matrix -> theirs
    LSTM: {"W_x": "W", "W_h": "U"},
    GRU: {"W_x": "W", "W_h": "U", "W": "Wx", "U": "Ux"},
}
LAYERS_NORMS = {  # our norm -> number of its gain s and bias b
    LSTM: {"norm_x": 1, "norm_h": 2, "norm_c": 3},
    GRU: {"norm_zr_x": 1, "norm_x": 2, "norm_zr_h": 3, "norm_h": 4},
}
SINGLE = {LSTM: ("norm_c",), GRU: ("W", "U", "norm_x", "norm_h")}  # parameters of one gate


def from_torch(weights: Weights, cell: type[Cell], suffix: str = "_l0") -> dict:
    """Return the parameters of a cell without norm from those of a layer of PyTorch.

    Args:
        weights: with ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh``, each with the
            suffix, as in the state of torch.nn.LSTM or torch.nn.GRU.
        cell: LSTM or GRU.
        suffix: "_l0" is the first layer, "_l1_reverse" the second one's backward direction.

    Returns:
        The parameters of the cell.

    Raises:
        InputError: a weight is missing or has a wrong shape, the cell is neither an LSTM nor a GRU,
            or the GRU has a bias within the reset gate, which the paper's GRU does not have.
    """
    gates = GATES[_checked(cell)]
    H = _get(weights, f"weight_hh{suffix}", None, None).shape[1]
    W_x = _get(weights, f"weight_ih{suffix}", gates * H, None).T
    W_h = _get(weights, f"weight_hh{suffix}", gates * H, H).T
    b_x, b_h = (_get(weights, f"bias_{side}{suffix}", gates * H) for side in ("ih", "hh"))
    if cell is LSTM:
        W_x, W_h, b = (_select(a, TORCH_LSTM) for a in (W_x, W_h, b_x + b_h))
        return {"W_x": {"kernel": W_x}, "W_h": {"kernel": W_h}, "b": b}
    if np.any(np.split(b_h, 3)[2]):
        raise InputError(
            f"bias_hh{suffix} of the candidate is not 0. It is multiplied by the reset gate, and "
            f"the paper's GRU has no such bias. Set it to 0, and train without it."
        )
    (r, z, n), (r_h, z_h, n_h) = np.split(W_x, 3, -1), np.split(W_h, 3, -1)
    b_r, b_z, b_n = np.split(b_x + b_h, 3)
    kernels = {"W_x": (-z, r), "W_h": (-z_h, r_h), "W": (n,), "U": (n_h,)}
    params = {name: {"kernel": np.concatenate(parts, -1)} for name, parts in kernels.items()}
    return params | {"b": np.concatenate([-b_z, b_r, b_n])}


def to_torch(params: Mapping, cell: type[Cell], suffix: str = "_l0") -> dict[str, np.ndarray]:
    """Return the weights of a layer of PyTorch from the parameters of a cell without norm.

    Args:
        params: of the cell.
        cell: LSTM or GRU.
        suffix: as in `from_torch`.

    Returns:
        The weights by their names in PyTorch; the bias is in bias_ih, and bias_hh is 0.

    Raises:
        InputError: a parameter is missing or has a wrong shape, the cell has norms, or is neither
            an LSTM nor a GRU.
    """
    _check_params(params, cell)
    if norms := sorted(name for name in params if name.startswith("norm_")):
        raise InputError(f"PyTorch's layers have no norm; the cell has {', '.join(norms)}.")
    kernels = {name: np.asarray(leaf["kernel"]) for name, leaf in params.items() if name != "b"}
    b = np.asarray(params["b"])
    if cell is LSTM:
        W_x, W_h, b = (_select(a, TORCH_LSTM) for a in (kernels["W_x"], kernels["W_h"], b))
    else:
        (z, r), (z_h, r_h) = (np.split(kernels[name], 2, -1) for name in ("W_x", "W_h"))
        W_x = np.concatenate([r, -z, kernels["W"]], -1)
        W_h = np.concatenate([r_h, -z_h, kernels["U"]], -1)
        b_z, b_r, b_n = np.split(b, 3)
        b = np.concatenate([b_r, -b_z, b_n])
    arrays = {"weight_ih": W_x.T, "weight_hh": W_h.T, "bias_ih": b, "bias_hh": np.zeros_like(b)}
    return {f"{name}{suffix}": array for name, array in arrays.items()}


def from_layers_py(weights: Weights, cell: type[Cell], prefix: str) -> dict:
    """Return the parameters of a cell from those of a layer of the authors' layers.py.

    The layer has layer norm if the weights contain its gains.

    Args:
        weights: with ``<prefix>_W``, ``<prefix>_U``, ``<prefix>_b``, ...
        cell: LSTM or GRU, for a cell with ``bias_inside=True``.
        prefix: of the names, such as "encoder".

    Returns:
        The parameters of the cell.

    Raises:
        InputError: a weight is missing or has a wrong shape, or the cell is neither.
    """
    norms, has_norms = LAYERS_NORMS[_checked(cell)], f"{prefix}_s1" in weights
    H = _get(weights, f"{prefix}_U", None, None).shape[0]
    sizes = dict.fromkeys(SINGLE[cell], H)  # of all other parameters: joint
    joint = 4 * H if cell is LSTM else 2 * H
    params: dict[str, Any] = {}
    for ours, theirs in LAYERS_MATRICES[cell].items():
        shape = (None if ours in ("W_x", "W") else H, sizes.get(ours, joint))
        params[ours] = {"kernel": _get(weights, f"{prefix}_{theirs}", *shape)}
    biases = {"b": joint} if cell is LSTM else {"b": joint, "bx": H}
    params["b"] = np.concatenate([_get(weights, f"{prefix}_{b}", n) for b, n in biases.items()])
    if has_norms:
        for name, n in norms.items():
            size = sizes.get(name, joint)
            gain, bias = (_get(weights, f"{prefix}_{letter}{n}", size) for letter in "sb")
            params[name] = {"gain": gain, "bias": bias}
    return _with_gates(params, cell, has_norms, z_at=0)


def to_layers_py(params: Mapping, cell: type[Cell], prefix: str) -> dict[str, np.ndarray]:
    """Return the weights of a layer of layers.py from the parameters of a cell.

    Args:
        params: of a cell with ``bias_inside=True``, with layer norm at all its sites or at none.
        cell: LSTM or GRU.
        prefix: of the names, such as "encoder".

    Returns:
        The weights by their names in layers.py.

    Raises:
        InputError: a parameter is missing or has a wrong shape, the cell is neither an LSTM nor a
            GRU, or has norms at some of its sites.
    """
    _check_params(params, cell)
    norms = LAYERS_NORMS[cell]
    present = [name for name in norms if "gain" in params.get(name, {})]
    if present and present != list(norms):
        raise InputError(f"layers.py has layer norm at all sites or none: {', '.join(norms)}.")
    params = _with_gates(params, cell, bool(present), z_at=1)
    weights = {theirs: params[ours]["kernel"] for ours, theirs in LAYERS_MATRICES[cell].items()}
    H = weights["U"].shape[0]
    joint = 4 * H if cell is LSTM else 2 * H
    weights |= dict(b=params["b"][:joint]) | ({} if cell is LSTM else dict(bx=params["b"][joint:]))
    for name in present:
        weights |= {
            f"s{norms[name]}": params[name]["gain"],
            f"b{norms[name]}": params[name]["bias"],
        }
    return {f"{prefix}_{name}": np.asarray(array) for name, array in weights.items()}


def _with_gates(params: Mapping, cell, has_norms: bool, z_at: int) -> dict:
    """Return the parameters with the first two gates of every array exchanged.

    In a GRU, z is then at the place z_at, and changes its sign: with layer norm in gains and
    biases, which act after the norm; without, in matrices and b.
    """

    def rearrange(name: str, array):
        array = np.asarray(array)
        if name in SINGLE[cell]:
            return array
        if cell is LSTM:
            return _select(array, (1, 0, 2, 3))
        first, second, *rest = np.split(array, 3 if name == "b" else 2, -1)
        gates = [second, first, *rest]
        if name.startswith("norm") == has_norms:
            gates[z_at] = -gates[z_at]
        return np.concatenate(gates, -1)

    return {
        name: {key: rearrange(name, array) for key, array in leaf.items()}
        if isinstance(leaf, Mapping)
        else rearrange(name, leaf)
        for name, leaf in params.items()
    }


def _select(array, order: tuple[int, ...]):
    """Return the gates of an array in another order."""
    gates = np.split(np.asarray(array), len(order), -1)
    return np.concatenate([gates[n] for n in order], -1)


def _get(weights: Weights, name: str, *shape: int | None) -> np.ndarray:
    """Return a weight; raise InputError if it is missing or has another shape. None is any size."""
    if not isinstance(weights, Mapping) or name not in weights:
        names = list(weights) if isinstance(weights, Mapping) else []
        raise InputError(f"The weights have no {name!r}.{nearest(name, names)}")
    array = np.asarray(weights[name])
    sizes = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or any(n not in (None, size) for size, n in sizes):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"{name!r} must have the shape ({wanted}); got {array.shape}.")
    return array


def _check_params(params: Mapping, cell: type[Cell]) -> None:
    """Raise InputError if the matrices or b of a cell are missing or have wrong shapes."""
    gates = GATES[_checked(cell)]
    flat = flatten_dict(params, sep=".") if isinstance(params, Mapping) else {}
    H = _get(flat, "W_h.kernel", None, None).shape[0]
    _get(flat, "b", gates * H)
    for name in LAYERS_MATRICES[cell]:
        size = H if name in SINGLE[cell] else 4 * H if cell is LSTM else 2 * H
        _get(flat, f"{name}.kernel", None if name in ("W_x", "W") else H, size)


def _checked(cell: type[Cell]) -> type[Cell]:
    if cell is not LSTM and cell is not GRU:
        raise InputError(f"cell must be ln.LSTM or ln.GRU, the class; got {cell!r}.")
    return cell

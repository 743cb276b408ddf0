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

from flax.traverse_util import flatten_dict, unflatten_dict
import numpy as np

from ln.errors import InputError, nearest
from ln.rnn import GRU, LSTM, Cell

Weights = Mapping[str, Any]
Layout = dict[str, str]
Blocks = dict[tuple[str, str], np.ndarray]

# Every array consists of blocks of H units, side by side, one for each of its gates. A layout says
# what each array is (x and h: the matrices of input and state; b: the bias), and its gates in their
# order. So a conversion splits the arrays of one layout, and joins the blocks to those of another.
# The gates are f, i, o, g of an LSTM, and z, r, n of a GRU, whose candidate is n.
OURS = {
    LSTM: dict(W_x="x fiog", W_h="h fiog", b="b fiog"),
    GRU: dict(W_x="x zr", W="x n", W_h="h zr", U="h n", b="b zrn"),
}
LAYERS_PY = {
    LSTM: dict(W="x ifog", U="h ifog", b="b ifog"),
    GRU: dict(W="x rz", Wx="x n", U="h rz", Ux="h n", b="b rz", bx="b n"),
}
# Our gates of each norm, and theirs. Norm n has the gain s<n> and the bias b<n> in layers.py.
NORMS = {
    LSTM: dict(norm_x="fiog ifog", norm_h="fiog ifog", norm_c="c c"),
    GRU: dict(norm_zr_x="zr rz", norm_x="n n", norm_zr_h="zr rz", norm_h="n n"),
}
TORCH_GATES = {LSTM: "ifgo", GRU: "rzn"}
TORCH = dict(weight_ih="x", weight_hh="h", bias_ih="b", bias_hh="b_h")


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
    layout = _torch_layout(cell, suffix)
    H = _get(weights, f"weight_hh{suffix}", None, None).shape[1]
    blocks = _split(weights, H, layout, transposed=True)
    # PyTorch computes n = tanh(W x + b + r (U h + b_h)): with b_h, r multiplies a bias.
    if cell is GRU and np.any(blocks["b_h", "n"]):
        raise InputError(
            f"bias_hh{suffix} of the candidate is not 0. It is multiplied by the reset gate, and "
            f"the paper's GRU has no such bias. Set it to 0, and train without it."
        )
    for gate in TORCH_GATES[cell]:
        # Everywhere else both biases are added to one sum.
        blocks["b", gate] = blocks["b", gate] + blocks["b_h", gate]
    return unflatten_dict(_join(_with_other_z(blocks), _layouts(cell)[0]), sep=".")


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
    layout = _torch_layout(cell, suffix)
    blocks = _with_other_z(_split(*_flat(params), _layouts(cell)[0]))
    if norms := sorted(name for name in params if name.startswith("norm_")):
        raise InputError(f"PyTorch's layers have no norm; the cell has {', '.join(norms)}.")
    for gate in TORCH_GATES[cell]:
        blocks["b_h", gate] = np.zeros_like(blocks["b", gate])
    return {name: array.T for name, array in _join(blocks, layout).items()}


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
    _check_cell(cell)
    H = _get(weights, f"{prefix}_U", None, None).shape[0]
    has_norms = f"{prefix}_s1" in weights
    ours, theirs = _layouts(cell, has_norms, prefix)
    blocks = _split(weights, H, theirs)
    return unflatten_dict(_join(_with_other_z(blocks, has_norms), ours), sep=".")


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
    _check_cell(cell)
    flat, H = _flat(params)
    present = [name for name in NORMS[cell] if f"{name}.gain" in flat]
    if present and present != list(NORMS[cell]):
        raise InputError(
            f"layers.py has layer norm at all sites or none: {', '.join(NORMS[cell])}."
        )
    ours, theirs = _layouts(cell, bool(present), prefix)
    return _join(_with_other_z(_split(flat, H, ours), bool(present)), theirs)


def _torch_layout(cell: type[Cell], suffix: str) -> Layout:
    _check_cell(cell)
    return {f"{name}{suffix}": f"{kind} {TORCH_GATES[cell]}" for name, kind in TORCH.items()}


def _layouts(cell: type[Cell], has_norms: bool = False, prefix: str = "") -> tuple[Layout, Layout]:
    """Return our layout, and that of layers.py."""
    ours = {name if name == "b" else f"{name}.kernel": row for name, row in OURS[cell].items()}
    theirs = dict(LAYERS_PY[cell])
    for n, (name, row) in enumerate(NORMS[cell].items() if has_norms else (), start=1):
        our_gates, their_gates = row.split()
        for leaf, letter in (("gain", "s"), ("bias", "b")):
            kind = f"{leaf}_{name[-1]}"
            ours[f"{name}.{leaf}"] = f"{kind} {our_gates}"
            theirs[f"{letter}{n}"] = f"{kind} {their_gates}"
    return ours, {f"{prefix}_{name}": row for name, row in theirs.items()}


def _split(weights: Weights, H: int, layout: Layout, transposed: bool = False) -> Blocks:
    """Return the blocks of arrays; raise InputError if one is missing or has a wrong shape.

    Args:
        weights: the arrays by name.
        H: number of units.
        layout: of the arrays.
        transposed: whether the gates are along the first axis, as in PyTorch.
    """
    blocks: Blocks = {}
    inputs: dict[str, tuple[int | None, ...]] = {"x": (None,), "h": (H,)}
    for name, row in layout.items():
        kind, gates = row.split()
        shape = (*inputs.get(kind, ()), len(gates) * H)
        array = _get(weights, name, *(shape[::-1] if transposed else shape))
        parts = np.split(array.T if transposed else array, len(gates), -1)
        blocks |= {(kind, gate): part for gate, part in zip(gates, parts, strict=True)}
    return blocks


def _join(blocks: Blocks, layout: Layout) -> dict[str, np.ndarray]:
    """Return the arrays of a layout."""
    arrays = {}
    for name, row in layout.items():
        kind, gates = row.split()
        arrays[name] = np.concatenate([blocks[kind, gate] for gate in gates], -1)
    return arrays


def _with_other_z(blocks: Blocks, has_norms: bool = False) -> Blocks:
    """Return the blocks with σ(−a) = 1 − σ(a) for the gate z of a GRU.

    Without norm the matrices and b change their sign. With layer norm the gains and biases do,
    since they act after the norm.
    """
    return {
        (kind, gate): -block if gate == "z" and (kind in ("x", "h", "b")) != has_norms else block
        for (kind, gate), block in blocks.items()
    }


def _flat(params: Mapping) -> tuple[dict[str, Any], int]:
    """Return the parameters of a cell by their joined names, and H."""
    # Something else than a mapping has no parameter, and the check below says so.
    flat = flatten_dict(params, sep=".") if isinstance(params, Mapping) else {}
    return flat, _get(flat, "W_h.kernel", None, None).shape[0]


def _get(weights: Weights, name: str, *shape: int | None) -> np.ndarray:
    """Return a weight; raise InputError if it is missing or has another shape. None is any size."""
    if not isinstance(weights, Mapping) or name not in weights:
        names = list(weights) if isinstance(weights, Mapping) else []
        raise InputError(f"The weights have no {name!r}.{nearest(name, names)}")
    # numpy reads tensors of PyTorch, too, as long as they are on the CPU and without gradient.
    array = np.asarray(weights[name])
    sizes = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or any(n not in (None, size) for size, n in sizes):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"{name!r} must have the shape ({wanted}); got {array.shape}.")
    return array


def _check_cell(cell: type[Cell]) -> None:
    if cell is not LSTM and cell is not GRU:
        raise InputError(f"cell must be ln.LSTM or ln.GRU, the class; got {cell!r}.")

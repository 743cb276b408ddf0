"""Layer normalization (Ba, Kiros, Hinton 2016) for JAX and Flax.

    from ln import LSTM, Norm, unroll

Names are imported at first use, so that a command can import `ln.errors` without waiting for jax.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ln.norm import BatchNorm, LayerNorm, Norm, RMSNorm, layer_norm
    from ln.rnn import GRU, LSTM, RNN, scan, unroll

__version__ = "0.2.0"
__all__ = ["GRU", "LSTM", "RNN", "BatchNorm", "LayerNorm", "Norm", "RMSNorm", "layer_norm"]
__all__ += ["scan", "unroll"]

# jax takes a second to import, and commands print their help and their errors without it.
_MODULES = dict.fromkeys(["BatchNorm", "LayerNorm", "Norm", "RMSNorm", "layer_norm"], "ln.norm")
_MODULES |= dict.fromkeys(["GRU", "LSTM", "RNN", "scan", "unroll"], "ln.rnn")


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'ln' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Load pickles that are not trusted: plain data only, and no code is run."""

import io
import pickle
from typing import Any, ClassVar

import numpy as np

from ln.errors import InputError

# The names that pickles of arrays and bytes ask for.
KNOWN = (
    *(("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode")),
    *(("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")),
)


class Call:
    """A function that a pickle asks for, with arguments and state. Nothing is called."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state):
        self.state = state

    def array(self) -> np.ndarray:
        """Return the array of bytes that the calls of a pickled array would make, uint8.

        Only bytes are read: numpy would believe a pickle that declares bytes to be the addresses of
        objects.

        Raises:
            ValueError, TypeError, AttributeError: they would make something else.
        """
        _, shape, dtype, is_fortran, data = self.state
        if dtype.arguments[0] != "u1":
            raise ValueError(f"an array of {dtype.arguments[0]}, expected bytes, u1")
        if isinstance(data, Call):
            data, _ = data.arguments
        data = data.encode("latin-1") if isinstance(data, str) else data
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")


# In Python, not in C: that one allocates 64 GB for a pickle of 10 bytes that names a large memo.
class Plain(pickle._Unpickler):
    """Load lists, dictionaries, texts, numbers, and calls as records; raise for all others."""

    # No data set needs bytearrays, which are allocated at whatever size a pickle announces.
    dispatch: ClassVar = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module, name):
        if (module, name) in KNOWN:
            return Call
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")


def load(name: str, data: bytes):
    """Return the contents of a pickle; an array is a `Call`, and a text of Python 2 is Latin-1.

    Raises:
        InputError: it is no pickle, or asks for code.
    """
    try:
        return Plain(io.BytesIO(data), encoding="latin-1").load()
    except Exception as error:  # broken pickles raise all kinds of exceptions
        raise InputError(
            f"{name} is no pickle of plain data ({type(error).__name__}: {error}), so it was not "
            "loaded."
        ) from error

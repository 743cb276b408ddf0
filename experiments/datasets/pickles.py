"""Load pickles that are not trusted: plain data only, and no code is run."""

import io
import pickle
from typing import ClassVar

from ln.errors import InputError


# In Python, not in C: that one allocates 64 GB for a pickle of 10 bytes that names a large memo.
class Plain(pickle._Unpickler):
    """Load lists, dictionaries, texts and numbers; raise for all others."""

    # No data set needs bytearrays, which are allocated at whatever size a pickle announces.
    dispatch: ClassVar = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module, name):
        """Reject classes and functions: plain data have none."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")


def load(name: str, data: bytes):
    """Return the contents of a pickle; a text of Python 2 is Latin-1.

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

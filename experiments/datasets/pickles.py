"""Pickles of strangers: plain data only, and no code is run."""

import io
import pickle
from typing import ClassVar

import numpy as np

from ln.errors import InputError


class Dtype:
    """The dtype of an array in a pickle.

    Only bytes are read: numpy would believe a pickle that declares bytes to be the addresses of
    objects.
    """

    def __init__(self, name, *_):
        if name != "u1":
            raise pickle.UnpicklingError(f"it has an array of {name}, expected bytes, u1")

    def __setstate__(self, state):
        pass


class Array:
    """An array of bytes in a pickle, uint8 ``values``."""

    def __init__(self, *_):
        self.values = np.zeros(0, np.uint8)

    def __setstate__(self, state):
        _, shape, _, is_fortran, data = state
        data = data.encode("latin-1") if isinstance(data, str) else data
        self.values = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")


# In Python, not in C: that one allocates 64 GB for a pickle of 10 bytes that names a large memo.
class Plain(pickle._Unpickler):
    """Load lists, dictionaries, texts, numbers, and arrays of bytes; refuse all else.

    Attributes:
        KNOWN: the names that pickles of arrays and bytes ask for, and what they get.
    """

    KNOWN: ClassVar = {
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): None,  # an argument of _reconstruct
        ("numpy.core.multiarray", "_reconstruct"): Array,
        ("numpy._core.multiarray", "_reconstruct"): Array,
        ("_codecs", "encode"): lambda text, encoding: text.encode("latin-1"),
    }

    # Nobody needs bytearrays, which are allocated at whatever size a pickle announces.
    dispatch: ClassVar = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]
    }

    def find_class(self, module, name):
        if (module, name) in self.KNOWN:
            return self.KNOWN[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")

    stack: list  # of pickle's own class, whose stubs lack it and load_build

    def load_build(self):
        # Functions and classes have attributes that a pickle could set.
        if not isinstance(self.stack[-2], Dtype | Array):
            raise pickle.UnpicklingError("it alters what is no array")
        super().load_build()  # type: ignore[misc]  # the stubs lack it

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]  # this class's own

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside")


def check(value: object) -> None:
    """Raise an UnpicklingError if a value has more than plain data."""
    queue, seen = [value], set()
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            queue += [*item, *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            queue += item
        elif not isinstance(item, Array | str | bytes | int | float | None):
            raise pickle.UnpicklingError(f"it has a {type(item).__name__}")


def load(name: str, data: bytes):
    """Return the contents of a pickle; an array is an `Array`, and a text of Python 2 is Latin-1.

    Raises:
        InputError: it is no pickle, or has more than plain data.
    """
    try:
        value = Plain(io.BytesIO(data), encoding="latin-1").load()
        check(value)
    except Exception as error:  # broken pickles raise all kinds of exceptions
        raise InputError(
            f"{name} is no pickle of plain data ({type(error).__name__}: {error}), so it was not "
            "loaded."
        ) from error
    return value

"""Data sets by name. Preparing may download and convert; loading a prepared one needs only numpy.

To add one, put a module with a ``DATASET`` into ``corpora/`` or ``synthetic/``; its name is that
of the data set. There is no other list of data sets.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import importlib
from pathlib import Path
import pkgutil
import tempfile

import numpy as np

from experiments.datasets import arrays
from experiments.datasets.download import download
from experiments.datasets.originals import Source, compare, readable
from ln.errors import InputError, choose

# Arrays that have a row for each record, or its start; then there is an end, too.
ROWS = "x images answers labels scores point_starts starts".split()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A row of the table of data sets.

    Attributes:
        title: what people call it.
        make: returns the arrays of a built-in data set.
        stands_for: the data set that the built-in one replaces.
        read: returns the arrays of an original one from its files.
        needs: these files, for people.
        budget: how many bytes they have at most, unpacked.
        records: of splits of the original, so that people see what is missing.
        url: a folder on the web that has them, or a page that says how to get them.
        downloads: the files in that folder that a command downloads.
    """

    title: str
    make: Callable[[], arrays.Splits] | None = None
    stands_for: str | None = None
    read: Callable[[Source], arrays.Splits] | None = None
    needs: str = ""
    budget: int = 0
    records: Mapping[str, int] = dataclasses.field(default_factory=dict)
    url: str = ""
    downloads: tuple[str, ...] = ()


@functools.cache
def table() -> Mapping[str, Dataset]:
    """Return all data sets by name."""
    rows = {}
    for kind in ("corpora", "synthetic"):
        package = importlib.import_module(f"{__name__}.{kind}")
        for module in pkgutil.iter_modules(package.__path__):
            contents = importlib.import_module(f"{package.__name__}.{module.name}")
            if hasattr(contents, "DATASET"):
                rows[module.name] = contents.DATASET
    return dict(sorted(rows.items()))


def stand_in(name: str) -> str | None:
    """Return the built-in data set that replaces an original one, if there is one."""
    return next((key for key, row in table().items() if row.stands_for == name), None)


def real(name: str, data_dir: str | Path) -> str:
    """Return the data set that a built-in one replaces, if it is prepared; if not, the name."""
    original = table()[name].stands_for if name in table() else None
    return original if original and arrays.is_prepared(data_dir, original) else name


def prepare(name: str, data_dir: str | Path, source: str | Path | None = None) -> None:
    """Make ``<data_dir>/<name>``; do nothing if it is there already.

    Args:
        name: the data set.
        data_dir: the folder of all prepared data sets.
        source: a folder or archive with the original files; None downloads them or takes the
            built-in ones.

    Raises:
        InputError: unknown name, files that cannot be used, or files for a built-in data set.
    """
    row = choose("data set", name, table())
    if row.make and source is not None:
        raise InputError(f"The data set {name} is built in: leave --from out.")
    folder = Path(data_dir) / name
    if arrays.is_prepared(data_dir, name):
        arrays.read(data_dir, name)  # raises if the folder is incomplete
        print(f"{name}: {folder} is there already; delete it to prepare it anew")
        return
    try:
        if row.make:
            arrays.write(data_dir, name, row.make(), dict(source=row.title))
        else:
            _prepare_original(name, row, folder, source)
    except (InputError, OSError):
        # Another process may have been first, and have removed the temporary files of this one.
        if not arrays.is_prepared(data_dir, name):
            raise
        prepare(name, data_dir, source)


def _prepare_original(name: str, row: Dataset, folder: Path, path: str | Path | None) -> None:
    assert row.read
    with contextlib.ExitStack() as stack:
        try:
            if path is None:
                temporary = tempfile.TemporaryDirectory(prefix=name, ignore_cleanup_errors=True)
                path = stack.enter_context(temporary)
                download(name, row.url, row.downloads, Path(path))
                origin = row.url
            else:
                origin = str(path)
                if not Path(path).exists():
                    raise InputError(f"{path} does not exist.")
                print(f"{name}: reading {path}")
            with readable(path, (MemoryError, RecursionError)):
                splits = row.read(Source(Path(path), name, row.budget, folder, stack))
            for split, values in splits.items():
                compare(split, records(values), row.records.get(split))
        except InputError as error:
            raise InputError(f"{error} {needs(name)}") from error
        arrays.write(folder.parent, name, splits, dict(source=f"{row.title} from {origin}"))


def records(split: Mapping[str, np.ndarray]) -> int:
    """Return the number of records in the arrays of a split."""
    name = next(name for name in ROWS if name in split)
    return len(split[name]) - name.endswith("starts")


def needs(name: str) -> str:
    """Return the files that a data set is made of, and what to use without them."""
    row = table()[name]
    words = f"Needed: {row.needs}, and `python -m scripts.data {name} --from=DIR`."
    if built_in := stand_in(name):
        words += f" Without them, use the built-in data set `{built_in}`."
    return words


def load(name: str, data_dir: str | Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of a prepared data set, ``load(...)["train"]["x"]``, mapped read-only.

    Raises:
        InputError: unknown name, or not prepared; the message says how to prepare it.
    """
    # A folder of arrays may be the user's own: docs/using.md.
    if not arrays.is_prepared(data_dir, name) and choose("data set", name, table()).make:
        prepare(name, data_dir)
    return arrays.read(data_dir, name)

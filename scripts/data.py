"""Prepare a data set: make <data_dir>/<name>/, the arrays that training reads.

    python -m scripts.data --list               the data sets: which are prepared, and which files
                                                the others need
    python -m scripts.data mnist                download MNIST, 11 MB, and prepare it, 55 MB
    python -m scripts.data mnist --from=DIR     prepare it from the original files in a folder
    python -m scripts.data coco --from=ARCHIVE  or from an archive of them (.zip, .tar.gz, ...)
    python -m scripts.data digits               prepare a built-in data set; no download

A data set that is prepared already is left alone. A command that fails leaves nothing half-made.
"""

import os
from pathlib import Path

from absl import flags

from ln.errors import InputError
from scripts import cli

FROM = flags.DEFINE_string("from", None, "folder or archive of the original files [download them]")
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
LIST = flags.DEFINE_bool("list", False, "List the data sets and stop.")


def state(name: str, data_dir: str) -> str:
    """Return a line on a data set: whether it is prepared, and what it needs."""
    from experiments import datasets

    try:
        if datasets.arrays.is_prepared(data_dir, name):
            manifest = datasets.arrays.manifest(data_dir, name)
            return f"prepared      {os.path.join(data_dir, name)}: {manifest['source']}"
    except InputError as error:
        return f"in the way    {error}"
    row = datasets.table()[name]
    if row.make:
        return f"built in      {row.title}, for {row.stands_for}; prepared when first used"
    how = "" if row.downloads else " --from=DIR"
    return f"not prepared  python -m scripts.data {name}{how}: {row.needs}"


def main(argv: list[str]) -> None:
    """Prepare the named data sets, or list all."""
    from experiments import datasets

    data_dir = str(Path(DATA_DIR.value).expanduser())
    source = str(Path(FROM.value).expanduser()) if FROM.value is not None else None
    if LIST.value:
        for name in datasets.table():
            print(f"{name:<16}  {state(name, data_dir)}")
        return
    if len(argv) != 2:
        raise InputError(f"Give one data set. Known: {', '.join(datasets.table())}.")
    name = argv[1]
    datasets.prepare(name, data_dir, source)
    for key, array in datasets.arrays.manifest(data_dir, name)["arrays"].items():
        print(f"  {key:<24} {array['dtype']:<8} {array['shape']}")


if __name__ == "__main__":
    cli.run(main, positional=True)

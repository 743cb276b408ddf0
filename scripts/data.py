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

from absl import flags

from ln.errors import InputError, choose
from scripts import cli

FROM = flags.DEFINE_string(
    "from", None, "Folder or archive with the original files; default: download them."
)
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
LIST = flags.DEFINE_bool("list", False, "List the data sets and stop.")


def megabytes(arrays: dict) -> str:
    return f"{sum(array['bytes'] for array in arrays.values()) / 1e6:.1f} MB"


def state(name: str, data_dir: str) -> str:
    """Return a line on a data set: prepared or not, where, how large, and what it needs."""
    from experiments import datasets

    folder = os.path.join(data_dir, name)
    try:
        if os.path.exists(folder):
            datasets.arrays.read(data_dir, name)
            entries = datasets.arrays.manifest(data_dir, name)["arrays"]
            return f"prepared      {folder}, {megabytes(entries)}"
    except InputError as error:
        return f"in the way    {error}"
    row = datasets.table()[name]
    if row.make:
        return f"built in      {row.title}, for {row.stands_for}; prepared when first used"
    how = "" if row.downloads else " --from=DIR"
    return f"not prepared  python -m scripts.data {name}{how}: {row.needs}"


def summary(name: str, data_dir: str) -> None:
    """Print the contents of a prepared data set."""
    from experiments import datasets

    manifest = datasets.arrays.manifest(data_dir, name)
    width = max(map(len, manifest["arrays"]))
    for split, arrays in datasets.load(name, data_dir).items():
        for key, array in arrays.items():
            place = f"{split}.{key}"
            line = f"  {place:<{width}}  {array.dtype!s:<7} {list(array.shape)!s:<13}"
            line += f" {manifest['arrays'][place]['bytes'] / 1e6:8.2f} MB"
            if key == "x":
                mean, white = array.mean(), array.max()
                line += f"   mean pixel {mean:.2f} of {white} = {mean / white:.4f}"
            print(line)
    print(f"  source: {manifest['source']}")
    print(f"  folder: {os.path.join(data_dir, name)}, {megabytes(manifest['arrays'])}")


def main(argv: list[str]) -> None:
    from experiments import datasets

    data_dir = os.path.expanduser(DATA_DIR.value)
    source = os.path.expanduser(FROM.value) if FROM.value is not None else None
    if LIST.value:
        for name in datasets.table():
            print(f"{name:<16}  {state(name, data_dir)}")
        return
    if len(argv) != 2:
        raise InputError(
            f"Give one data set, as in `python -m scripts.data mnist`, not {len(argv) - 1}. "
            f"Known: {', '.join(datasets.table())}."
        )
    name = argv[1]
    choose("data set", name, datasets.table())
    datasets.prepare(name, data_dir, source)
    summary(name, data_dir)


if __name__ == "__main__":
    cli.run(main, positional=True)

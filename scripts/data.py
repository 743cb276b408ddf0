"""Prepares a data set: makes <data_dir>/<name>/, the arrays that training reads.

    python -m scripts.data --list               which there are, which are prepared
    python -m scripts.data mnist                downloads MNIST, 11 MB, and prepares it, 55 MB
    python -m scripts.data mnist --from=DIR     prepares it from the four original files in DIR:
                                                train-images-idx3-ubyte, train-labels-idx1-ubyte,
                                                t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte,
                                                each as it is or gzipped
    python -m scripts.data binarized_mnist      downloads Larochelle and Murray's zeros and ones,
                                                110 MB, and prepares them, 55 MB; with --from=DIR
                                                from binarized_mnist_train.amat, ..._valid.amat
                                                and ..._test.amat
    python -m scripts.data cifar10              downloads CIFAR-10, 170 MB, and prepares it, 185 MB;
                                                with --from=DIR from cifar-10-binary.tar.gz or
                                                cifar-10-python.tar.gz, or the files in them
    python -m scripts.data iam --from=DIR       prepares IAM-OnDB, which is given to who registers,
                                                from lineStrokes-all.tar.gz and ascii-all.tar.gz,
                                                as they are or unpacked, trainset.txt,
                                                testset_v.txt, testset_t.txt and testset_f.txt;
                                                DIR may also be one archive of all these
    python -m scripts.data coco --from=DIR      prepares COCO's captions and features of its images,
                                                2 GB, from train.txt, val.txt, test.txt and
                                                images/10crop/{train,val,test}.npy; or the captions
                                                from dataset_coco.json, and then the features also
                                                from features.npy; DIR may also be an archive
    python -m scripts.data cnn --from=DIR       prepares the CNN questions from the .question files
                                                in questions/{training,validation,test}; or from
                                                the authors' dict.pkl, train4_{pass,qs,ans}.pkl and
                                                valid4_{pass,qs,ans}.pkl; DIR may also be an archive
    python -m scripts.data books --from=DIR     prepares running text from books, .txt files in
                                                UTF-8, or from BookCorpus' books_large_p1.txt and
                                                books_large_p2.txt; DIR may also be an archive
    python -m scripts.data sentences --from=DIR prepares MR, CR, SUBJ, MPQA and SICK from
                                                rt-polarity.{pos,neg}, custrev.{pos,neg},
                                                {plot,quote}.tok.gt9.5000, mpqa.{pos,neg},
                                                SICK_{train,trial,test_annotated}.txt
    python -m scripts.data digits               the built-in stand-in, 1,797 real digits of 8 x 8
                                                pixels; no download
    python -m scripts.data binarized_digits     the same ones as 28 x 28 zeros and ones
    python -m scripts.data pen                  the built-in stand-in for IAM-OnDB, generated: 2,000
                                                short lines of 100 writers
    python -m scripts.data scenes               the built-in stand-in for COCO, generated: 3,160
                                                scenes of two digits, five captions each
    python -m scripts.data stories              the built-in stand-in for cnn, generated: 10,000
                                                stories of four sentences, a question each
    python -m scripts.data docs                 the built-in stand-in for books: the documentation
                                                that Python brings along, 11,000 sentences
    python -m scripts.data library              the built-in stand-in for sentences, made of it

What is prepared already is left alone. Nothing half-made is left behind by a command that fails.
"""

import os

from absl import flags

from ln.errors import InputError, choose
from scripts import cli

FROM = flags.DEFINE_string(
    "from",
    None,
    "Folder with the original files, for iam, coco and cnn also an archive; default: download "
    "them.",
)
DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all prepared data sets.")
LIST = flags.DEFINE_bool("list", False, "Lists the data sets and stops.")


def megabytes(arrays: dict) -> str:
    return f"{sum(array['bytes'] for array in arrays.values()) / 1e6:.1f} MB"


def state(name: str, data_dir: str) -> str:
    """One line on a data set: prepared or not, where, how large."""
    from experiments import datasets

    folder = os.path.join(data_dir, name)
    try:
        if datasets.arrays.is_prepared(data_dir, name):
            found = datasets.arrays.manifest(data_dir, name)["arrays"]
            return f"prepared      {folder}, {megabytes(found)}"
    except InputError as error:
        return f"in the way    {error}"
    if os.path.exists(folder):
        return f"incomplete    {folder}, mended by {datasets.arrays.command(data_dir, name)}"
    if name in datasets.BUILT_IN:
        return "built in      prepared when first used"
    return f"not prepared  {datasets.arrays.command(data_dir, name)}"


def summary(name: str, data_dir: str) -> None:
    """Prints what a prepared data set holds."""
    from experiments import datasets

    found = datasets.arrays.manifest(data_dir, name)
    width = max(map(len, found["arrays"]))
    for split, arrays in datasets.load(name, data_dir).items():
        for key, array in arrays.items():
            what = f"{split}.{key}"
            line = f"  {what:<{width}}  {array.dtype!s:<7} {list(array.shape)!s:<13}"
            line += f" {found['arrays'][what]['bytes'] / 1e6:8.2f} MB"
            if key == "x":
                mean, white = array.mean(), array.max()
                line += f"   mean pixel {mean:.2f} of {white} = {mean / white:.4f}"
            print(line)
    print(f"  source: {found['source']}")
    print(f"  folder: {os.path.join(data_dir, name)}, {megabytes(found['arrays'])}")


def main(argv: list[str]) -> None:
    from experiments import datasets

    data_dir = os.path.expanduser(DATA_DIR.value)
    source = os.path.expanduser(FROM.value) if FROM.value is not None else None
    if LIST.value:
        for name in datasets.MODULES:
            print(f"{name:<16}  {state(name, data_dir)}")
        return
    if len(argv) != 2:
        raise InputError(
            f"Give one data set, as in `python -m scripts.data mnist`, not {len(argv) - 1}. "
            f"Known: {', '.join(datasets.MODULES)}."
        )
    name = argv[1]
    choose("data set", name, datasets.MODULES)
    datasets.prepare(name, data_dir, source)
    summary(name, data_dir)


if __name__ == "__main__":
    cli.run(main, positional=True)

"""Shows what a trained model makes, from a checkpoint of its run.

    python -m scripts.sample convnet --workdir=runs/x
    python -m scripts.sample draw --workdir=runs/x
    python -m scripts.sample draw --workdir=runs/x --checkpoint=newest --lane=1 --out=pictures
    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm" --bias=0.5
    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm" --prime=test:3
    python -m scripts.sample order_embeddings --workdir=runs/x --text="a three above a seven"
    python -m scripts.sample attentive_reader --workdir=runs/x --split=valid
    python -m scripts.sample skip_thoughts --workdir=runs/x --sentences=FILE

draw writes, to --out:

    samples.png            --count pictures that the model makes of noise
    samples.gif            the same, glimpse by glimpse, with the window it writes through
    samples_over_time.png  the first --cases of them in rows, some of the glimpses
    reconstructions.png    --cases images of --split, what the model paints when it looks at them,
                           and how: where it reads (green) and where it writes (red)

A window's frame goes through the centres of its outermost filters, the thicker the wider they are.

handwriting writes each --text --count times, or the texts of --cases lines of --split:

    samples.png, .svg      what the model writes (black), and those real lines (brown); with --prime
                           it goes on from a real line (blue)
    window.png             for the first sample of each text, which character the window on the text
                           showed at which point, and the line in the colours of the characters

A line stops when the window is past the end of the text. A run with config.text=False has no window
and takes no --text: its lines say nothing, and stop after --steps points.

order_embeddings ranks the captions and images of a fold of --split, with the energy of each pair:

    neighbours.txt         the --count captions nearest to each of --cases images, and the --count
                           images nearest to each --text, or to --cases captions; which are its own;
                           and, where data say so, whether captions that say less lie above others
    samples.png            the same with pictures; not for data sets that have only features

attentive_reader answers --cases questions of --split:

    attention.png, .html   passages, every word the darker the more attention it gets, questions,
                           and the --count first guesses at each answer

skip_thoughts encodes the --sentences of a text, one a line, or some of --split:

    vectors.npy            their vectors, float32, a row each of length 1, written block by block
    sentences.txt          the sentences in this order, without blank lines
    neighbours.txt, .html  the --count nearest to each of the first --cases of them: among all of
                           them, and among 2,000 of --split; and which words the model knows

convnet looks at the images of --split:

    activity.png, .txt     how often units are active, at each position of each convolutional layer,
                           and by distance from the border

samples.json says what the files were made of and by. The run may still be training.
"""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from absl import flags

import experiments
from ln.errors import InputError, choose
from scripts import cli

WORKDIR = flags.DEFINE_string("workdir", None, "the run folder")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by config.select), newest, or a step")
LANE = flags.DEFINE_integer("lane", 0, "which of the run's pairs of seed and learning rate")
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)
COUNT = flags.DEFINE_integer(
    "count",
    None,
    "how many samples: of draw (64), of a text (3); order_embeddings: neighbours (5); "
    "attentive_reader: guesses (5); skip_thoughts: neighbours (5)",
    lower_bound=1,
)
CASES = flags.DEFINE_integer(
    "cases",
    None,
    "draw: how many in detail (8); handwriting: real lines (2); order_embeddings: images (6); "
    "attentive_reader: questions (6); skip_thoughts: sentences (20)",
    lower_bound=1,
)
SPLIT = flags.DEFINE_string(
    "split",
    "test",
    "where images, lines, captions and questions that are shown come from; of skip_thoughts: valid",
)
TEXT = flags.DEFINE_multi_string(
    "text",
    None,
    "handwriting: what to write; order_embeddings: a caption to find images by; may be repeated",
)
BIAS = flags.DEFINE_float("bias", 0.0, "handwriting: above 0 for neater writing")
PRIME = flags.DEFINE_string("prime", None, "handwriting: SPLIT:N, a real line to go on from")
STEPS = flags.DEFINE_integer(
    "steps", None, "handwriting: how many points at most, without the prime's", lower_bound=1
)
SENTENCES = flags.DEFINE_string("sentences", None, "skip_thoughts: a file of them, one a line")
END = flags.DEFINE_bool("end", False, "skip_thoughts: sentences shall end with END, as for SICK")
WORD_VECTORS = flags.DEFINE_string(
    "word_vectors", None, "skip_thoughts: a file of vectors to learn further words from"
)
DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the prepared data; default: the run's")
OUT = flags.DEFINE_string("out", None, "folder of the files; default: WORKDIR/samples")

OPTIONS = (  # `sample` of an experiment's samples.py has parameters for those that it knows
    *(SEED, COUNT, CASES, SPLIT, TEXT, BIAS, PRIME, STEPS),
    *(SENTENCES, END, WORD_VECTORS),
)
RECORD = "samples.json"  # by this a folder is known as one of this command


def main(argv):
    known = experiments.names("samples")
    if len(argv) != 2 or WORKDIR.value is None:
        raise InputError(
            f"Give one experiment of {', '.join(known)}, and --workdir=DIR; --help has examples."
        )
    choose("experiment", argv[1], dict.fromkeys(known))
    make = importlib.import_module(f"experiments.{argv[1]}.samples").sample
    options: dict[str, Any] = {flag.name: flag.value for flag in OPTIONS if flag.present}
    parameters = inspect.signature(make).parameters
    for name in options:
        if name not in parameters:
            raise InputError(f"--{name} is not for {argv[1]}: leave it out.")
    out = Path(OUT.value or Path(WORKDIR.value) / "samples")
    if "out" in parameters:  # of those whose files are too large for the memory
        options["out"] = out
    if out.exists() and not (out / RECORD).is_file() and not (out.is_dir() and is_empty(out)):
        raise InputError(f"{out} is not empty and not of this command. Choose another --out.")
    from ln.training import runs, train

    config = runs.read_config(WORKDIR.value)
    if config.experiment != argv[1]:
        raise InputError(f"{WORKDIR.value} is a run of {config.experiment}, not of {argv[1]}.")
    lanes = train.make_lanes(config)
    if not 0 <= LANE.value < len(lanes):
        raise InputError(f"--lane={LANE.value}: {WORKDIR.value} has lanes 0 to {len(lanes) - 1}.")
    config.data_dir = DATA_DIR.value or config.data_dir
    task = experiments.load(config)
    state = train.load(task, WORKDIR.value, CHECKPOINT.value)
    step, (seed, lr) = train.step_of(state), lanes[LANE.value]
    divergence = runs.read(WORKDIR.value).diverged.get((seed, lr))
    if divergence and divergence.step <= step:
        raise InputError(
            f"--lane={LANE.value} diverged at step {divergence.step:,} ({divergence.cause}). "
            f"Choose another lane, or a --checkpoint before that."
        )
    print(f"{WORKDIR.value}, step {step:,}, lane {LANE.value} (seed {seed}, lr {lr:g})", flush=True)
    variables = train.variables_of(state, LANE.value)
    files = make(task, variables, **options)
    out.mkdir(parents=True, exist_ok=True)
    record = dict(runs.provenance(step), seed=seed, lr=lr, files=list(files))
    runs.write_atomically(out / RECORD, json.dumps(record, indent=2) + "\n")
    for name, content in files.items():
        if isinstance(content, Path):  # it is written already
            content.replace(out / name)
        else:
            runs.write_atomically(out / name, content)
        print(out / name)


def is_empty(folder: Path) -> bool:
    """Whether nothing is in it but what a killed process may have left unfinished."""
    return all(path.suffix == ".tmp" for path in folder.iterdir())


if __name__ == "__main__":
    cli.run(main, positional=True)

r"""Measures speed side by side with other implementations of the same computation.

    python -m scripts.benchmark mnist               the training step of §6.6's network, 6 minutes
    python -m scripts.benchmark mnist --case=full-4 --case=small-4 --out=speed.json
    python -m scripts.benchmark rnn                 LSTMs and GRUs over whole sequences, 20 minutes
    python -m scripts.benchmark rnn --case=tiny --quick         shows that all of it works, no more
    python -m scripts.benchmark draw                the training step of DRAW, 8 minutes
    python -m scripts.benchmark handwriting         that of handwriting synthesis, 8 minutes
    python -m scripts.benchmark order_embeddings    that of order embeddings, and ranking, 8 minutes
    python -m scripts.benchmark attentive_reader    that of the attentive reader, 8 minutes
    python -m scripts.benchmark skip_thoughts       that of skip-thoughts, 10 minutes, 6 GB
    python -m scripts.benchmark lanes               1, 2, 4 and 8 runs in one program, 5 minutes

Every implementation runs in a process of its own. First each must compute the same as ours from the
same weights and batches: losses, in all but mnist also gradients. Then they are timed in turn,
round after round, so that whatever else the machine does hits all alike; a table shows medians over
the rounds, and the median of the ratios to ours within each round. PyTorch is one of the peers
where it is installed: pip install torch.

Cases of mnist, by network and batch size: full-128, full-4, small-128, small-4. It times training
steps; on a machine with a GPU set JAX_PLATFORMS=cpu.

Cases of rnn, all with layer norm at x, h and c: draw (LSTM, T=64, B=128, H=D=256), handwriting
(three LSTMs, T=400, B=8, H=400, D=460), reader (LSTM, T=300, B=64, H=D=240), order (GRU, T=30,
B=128, H=1024, D=300), pixels (LSTM, T=784, B=64, H=100, D=1). It times forward and backward of a
ragged batch of sequences, then training steps with Adam, and says which share of ours the matrix
products are; on a GPU also lanes, and cuDNN's LSTM.

Cases of draw, the model of §6.4 on random images: full, with layer norm at c of both cells;
full-none, without; small, of configs/draw.py:small. It times training steps with noise, clipping
and Adam, says which share of ours the matrix products are, and what memory and time it would take
to compute all of a glimpse again on the way back; on a GPU PyTorch also compiles.

Cases of handwriting, the network of §6.5 on random points: full, T=500 and B=8; small, of
configs/handwriting.py:small. It times training steps with clipping and Adam: ours with layer norm
at x, h and c, the same in one scan with plain autodiff, and in PyTorch; and, compared with one
another, ours without norm and the same network of torch.nn.LSTM. On a GPU PyTorch also compiles.

Cases of order_embeddings, the model of §6.1 with layer norm on random features and captions: full,
training steps of 128 images and captions of 20 words, with clipping and Adam; fold, the evaluation
of 1,000 images and 5,000 captions. Plain is autodiff of all of the loop, and energies as their
formula has them, over all pairs and coordinates; so in PyTorch, which on a GPU also compiles steps.

Cases of attentive_reader, the model of §6.2 with layer norm on random words: full, passages of up
to T=300 words and questions of up to 30, B=64, and a vocabulary of 65,829; small, of
configs/attentive_reader.py:small. It times training steps with dropout, clipping and Adam. Plain is
autodiff of all of the loops over the words, and every formula as it stands; so is PyTorch, which on
a GPU also compiles time steps. Ours with few words in the vocabulary shows what all of them cost.

Cases of skip_thoughts, the model of §6.3 with layer norm on random words: full, sentences of up to
29 words, B=64, three GRUs of 2,400 units and a vocabulary of 20,000; small, of
configs/skip_thoughts.py:small. It times training steps with clipping and Adam. Plain is autodiff of
the loops over the words, and logits of all words at once; so is PyTorch, which on a GPU also
compiles time steps. Ours without norm shows what layer norm costs, with few words what the output
layer does.

Cases of lanes: pixels, the LSTM of configs/sequential_mnist.py:small; mnist-small, the network of
configs/mnist.py:small; mnist, that of §6.6; all at their own batch sizes. It times the compiled
call of 1, 2, 4 and 8 lanes, and says what a lane costs, relative to one alone.

The processes get the environment of this command unchanged, so allocator, threads and XLA flags
are the same for all. glibc by default gives large arrays back after every call and pages them in
again, half a second for a gigabyte; on Linux huge pages make that cheap, for everybody:

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m scripts.benchmark rnn

On a machine that is busy otherwise set OMP_WAIT_POLICY=PASSIVE, or PyTorch's waiting threads spin
against the other work.
"""

import contextlib
import importlib.metadata
import json
import os
from pathlib import Path

from absl import flags

from ln.errors import InputError, choose
from scripts import cli
from scripts.benchmarks.attentive_reader import attentive_reader
from scripts.benchmarks.common import Timing, in_process
from scripts.benchmarks.draw import draw
from scripts.benchmarks.handwriting import handwriting
from scripts.benchmarks.lanes import lanes
from scripts.benchmarks.mnist import mnist
from scripts.benchmarks.order_embeddings import order_embeddings
from scripts.benchmarks.rnn import rnn
from scripts.benchmarks.skip_thoughts import skip_thoughts

ROUNDS = flags.DEFINE_integer("rounds", 10, "how often each implementation is timed", lower_bound=1)
CASE = flags.DEFINE_multi_string("case", [], "measures only these cases; may be repeated")
QUICK = flags.DEFINE_bool("quick", False, "two very short rounds, whose numbers mean nothing")
OUT = flags.DEFINE_string("out", None, "file for the numbers of every round, as JSON")

# Beginnings of the variables that allocator, threads and compilers listen to.
TUNING = (
    "JAX_",
    "XLA_",
    "MALLOC_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "OMP_",
    "GOMP_",
    "MKL_",
    "TORCH",
)

BENCHMARKS = {
    "mnist": mnist,
    "rnn": rnn,
    "draw": draw,
    "handwriting": handwriting,
    "order_embeddings": order_embeddings,
    "attentive_reader": attentive_reader,
    "skip_thoughts": skip_thoughts,
    "lanes": lanes,
}  # name -> (names of cases, Timing) -> what --out holds


def environment() -> dict:
    """What the numbers depend on besides the code of the peers."""
    from ln.training import runs

    found = runs.environment()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["versions"]["torch"] = importlib.metadata.version("torch")
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(TUNING)}
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return dict(**found, variables=variables, load_average=load)


def main(argv):
    if len(argv) != 2:
        raise InputError(f"Give one benchmark of {', '.join(BENCHMARKS)}; --help has examples.")
    benchmark = choose("benchmark", argv[1], BENCHMARKS)
    out = OUT.value and Path(OUT.value)
    if out and (out.exists() or not out.parent.is_dir()):
        raise InputError(f"--out={out} is there already, or its folder is not: give another name.")
    timing = Timing(2, 0.05) if QUICK.value else Timing(ROUNDS.value, 0.5)

    where = in_process(environment)
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    variables = ", ".join(f"{name}={value}" for name, value in where["variables"].items())
    print(
        f"{where['cores']} cores, load average {where['load_average']}, device {where['device']}, "
        f"{where['system']}, commit {where['commit']}\n"
        f"python {where['python']}, {versions}\n"
        f"Environment: {variables or 'no variable that sets allocator, threads or compiler'}\n",
        flush=True,
    )
    results = dict(benchmark=argv[1], timing=timing._asdict(), environment=where)
    results |= benchmark(CASE.value, timing)
    if out:
        from ln.training import runs

        runs.write_atomically(out, json.dumps(results, indent=2) + "\n")
        print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main)

r"""Measures speed side by side with other implementations of the same computation.

    python -m scripts.benchmark mnist               the training step of §6.6's network, 6 minutes
    python -m scripts.benchmark mnist --case=full-4 --case=small-4 --out=speed.json
    python -m scripts.benchmark mnist --case=tiny-4 --quick     shows that all of it works, no more

Every implementation runs in a process of its own. First each must compute the same losses as ours
from the same weights and batches. Then they are timed in turn, round after round, so that whatever
else the machine does hits all alike; a table shows medians over the rounds, and the median of the
ratios to ours within each round. Cases of mnist: full-128, full-4, small-128, small-4 (network and
batch size). PyTorch is one of the peers where it is installed: pip install torch.

The processes get the environment of this command unchanged, so allocator, threads and XLA flags
are the same for all. On a machine with a GPU set JAX_PLATFORMS=cpu. On one that is busy otherwise
set OMP_WAIT_POLICY=PASSIVE, or PyTorch's waiting threads spin against the other work.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
import contextlib
from functools import partial
import importlib.metadata
import importlib.util
import io
import itertools
import json
import math
import multiprocessing
import os
from pathlib import Path
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import flags
import numpy as np

from ln.errors import InputError, choose
from scripts import cli

try:
    import resource
except ImportError:  # Windows
    resource = None

ROUNDS = flags.DEFINE_integer("rounds", 10, "how often each implementation is timed", lower_bound=1)
CASE = flags.DEFINE_multi_string("case", [], "measures only these cases; may be repeated")
QUICK = flags.DEFINE_bool("quick", False, "two very short rounds, whose numbers mean nothing")
OUT = flags.DEFINE_string("out", None, "file for the numbers of every round, as JSON")

SPAWN = multiprocessing.get_context("spawn")
TOLERANCE = 1e-4  # of a loss, relative

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


# --- Peers, each in a process of its own ---


class Peer:
    """One implementation. Made and used in its own process; made of what can be pickled."""

    def losses(self, count: int) -> list[float]:
        """The losses of the first steps. Called once, before all else, so that it compiles too."""
        raise NotImplementedError

    def run(self, steps: int) -> int:
        """Makes that many steps or a few more, and returns how many once they are all computed."""
        raise NotImplementedError

    def seconds_per_step(self, steps: int) -> float:
        began = time.perf_counter()
        done = self.run(steps)
        return (time.perf_counter() - began) / done

    def steps_within(self, seconds: float) -> int:
        """About how many steps take that long."""
        steps = 1
        while (each := self.seconds_per_step(steps)) * steps < seconds / 4:
            steps *= 2
        return max(1, round(seconds / each))

    def peak_memory(self) -> int | None:
        """Bytes of this process, libraries included; None where the system does not say."""
        if resource is None:
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(connection, make: Callable[[], Peer]) -> None:
    """Lives in a peer's process: makes it and calls what the pipe asks for until that closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    with contextlib.suppress(EOFError):
        peer = make()
        while True:
            method, *arguments = connection.recv()
            connection.send(getattr(peer, method)(*arguments))


class Remote:
    """A peer in its own process; ``remote(method, ...)`` calls one of its methods and waits."""

    def __init__(self, name: str, make: Callable[[], Peer]):
        self.name = name
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(theirs, make), name=name, daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, method: str, *arguments):
        try:
            self.pipe.send((method, *arguments))
            return self.pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(
                f"The process of {self.name!r} failed in {method}; see above"
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def in_process(function: Callable, *arguments):
    """Returns function(*arguments), computed in a process that ends afterwards.

    So jax and its threads never come into the process that starts the others.
    """
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(function, *arguments).result()


# --- Comparing ---


class Timing(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float  # of one round of one peer


class Measured(NamedTuple):
    """What is known of a peer."""

    losses: list[float]
    seconds_per_step: list[float]  # by round
    peak_memory: int | None


def difference(losses: list[float], reference: list[float]) -> float:
    """The largest relative difference between losses; 0 for a peer that has none."""
    if not losses:
        return 0.0
    return float(np.max(np.abs(np.subtract(losses, reference) / reference)))


def compare(
    case: str, peers: Mapping[str, Callable[[], Peer]], timing: Timing
) -> dict[str, Measured]:
    """Checks and times peers, all alive at once, in interleaved rounds A B C A B C ...

    Args:
        case: for the progress lines.
        peers: name -> what makes the peer, to be called in its process. The first is the reference.

    Raises:
        RuntimeError: a peer computes something else than the first one, or fails.
    """
    with contextlib.ExitStack() as stack:
        print(f"{case}: starting {', '.join(peers)}", flush=True)
        remotes = {k: stack.enter_context(Remote(k, make)) for k, make in peers.items()}
        losses = {k: remote("losses", 4) for k, remote in remotes.items()}  # after 0, 1, 2, 3 steps
        reference = next(iter(losses.values()))
        for name in remotes:
            if not difference(losses[name], reference) <= TOLERANCE:
                raise RuntimeError(
                    f"{case}: {name!r} computes something else: losses {losses[name]}, "
                    f"where {next(iter(peers))!r} has {reference}"
                )
        steps = {name: remote("steps_within", timing.seconds) for name, remote in remotes.items()}
        times: dict[str, list[float]] = {name: [] for name in remotes}
        for number in range(1, timing.rounds + 1):
            print(f"{case}: round {number} of {timing.rounds}", flush=True)
            for name, remote in remotes.items():
                times[name].append(remote("seconds_per_step", steps[name]))
        memory = {name: remote("peak_memory") for name, remote in remotes.items()}
    return {name: Measured(losses[name], times[name], memory[name]) for name in peers}


def ratio(a: Measured, b: Measured) -> float:
    """Time of a step of a, in steps of b: the median over the rounds."""
    return statistics.median(
        x / y for x, y in zip(a.seconds_per_step, b.seconds_per_step, strict=True)
    )


def table(found: Mapping[str, Measured], missing: Mapping[str, str]) -> str:
    """One row per peer; the first is the reference."""
    reference = next(iter(found.values()))
    rows = [("", "ms/step", "steps/s", "time / ours", "peak memory", "losses differ by")]
    for name, peer in found.items():
        seconds = statistics.median(peer.seconds_per_step)
        memory = f"{peer.peak_memory / 2**20:.0f} MiB" if peer.peak_memory else "unknown"
        rows.append(
            (
                name,
                f"{1e3 * seconds:.3g}",
                f"{1 / seconds:,.0f}",
                f"{ratio(peer, reference):.2f}",
                memory,
                f"{difference(peer.losses, reference.losses):.0e}",
            )
        )
    rows += [(name, reason, "", "", "", "") for name, reason in missing.items()]
    return align(rows)


def align(rows: list[tuple[str, ...]]) -> str:
    """A Markdown table: the first row is the head, the first column flush left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = tuple("-" * (width - (n > 0)) + ":" * (n > 0) for n, width in enumerate(widths))
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(word.rjust(width) for word, width in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# --- mnist: the training step of 784-1000-1000-10 with layer norm (§6.6), and of smaller ones ---


class Case(NamedTuple):
    """A scale of configs/mnist.py and a batch size."""

    scale: str
    batch_size: int


MNIST_CASES = {
    "full-128": Case("paper", 128),
    "full-4": Case("paper", 4),
    "small-128": Case("small", 128),
    "small-4": Case("small", 4),
    "tiny-4": Case("tiny", 4),
}
MNIST_USUAL = ("full-128", "full-4", "small-128", "small-4")
SHAPES = {"mnist": (55_000, 784), "digits": (1_297, 64)}  # training cases and pixels

CALL = "our compiled call alone"
UNVMAPPED = "our step unvmapped"
STREAM = "a += s b"


def mnist_config(case: Case, folder: str):
    """The config of a case; its data set lies in the folder. Layer norm is the default norm."""
    from configs import mnist

    config = mnist.get_config(case.scale)
    config.batch_size = case.batch_size
    config.data_dir = str(Path(folder) / case.scale)
    config.steps = "1_000_000_000 steps"  # no training ends before the benchmark
    return config


def prepare_mnist(config) -> None:
    """Writes random images in the shapes of the data set, and the weights to begin with."""
    import jax

    import experiments
    from experiments.datasets import arrays

    random = np.random.default_rng(0)
    cases, pixels = SHAPES[config.dataset]

    def images(n):
        x = random.integers(256, size=(n, pixels), dtype=np.uint8)
        return dict(x=x, y=random.integers(10, size=n, dtype=np.int32))

    splits = dict(train=images(cases), valid=images(10), test=images(10))
    with contextlib.redirect_stdout(io.StringIO()):
        arrays.write(config.data_dir, config.dataset, splits, dict(source="random numbers"))
    params = experiments.load(config).init(jax.random.key(config.seeds[0]))["params"]
    layers = ("Dense_0", "LayerNorm_0", "Dense_1", "LayerNorm_1", "Dense_2", "Identity_0")
    names = ("kernel", "gain", "bias")
    np.savez(weights_file(config), *(params[k][n] for k in layers for n in names if n in params[k]))


def weights_file(config) -> Path:
    return Path(config.data_dir) / "weights.npz"


def first_weights(config) -> list[np.ndarray]:
    """W ``[D, H]``, gain and bias of each hidden layer, then W and bias of the output layer."""
    with np.load(weights_file(config)) as file:
        return [file[name] for name in file]


class Ours(Peer):
    """ln.train as `fit` uses it: a thread prepares batches, K steps go to the device at once, and
    metrics are fetched one call late."""

    def __init__(self, config):
        import jax
        import jax.numpy as jnp

        import experiments
        from ln import train

        self.task, self.optimizer = experiments.load(config), train.make_optimizer(config)
        self.plan = train.Plan.of(config, self.task)
        self.call = train.make_call(self.task, self.optimizer)
        columns = zip(*train.make_lanes(config), strict=True)
        init = jax.jit(jax.vmap(partial(train.init_state, self.task, self.optimizer)))
        self.state = init(*map(jnp.array, columns))
        self.step = 0

    def calls(self, steps: int):
        """Makes that many steps or a few more; yields the metrics of each call."""
        from ln import data, train

        prepare = partial(train.batches_of, self.task)
        stop = self.step + steps
        todo = itertools.takewhile(lambda numbers: numbers.start < stop, self.plan.calls(self.step))
        for numbers, batches in data.ahead(prepare, todo):
            self.state, metrics = self.call(self.state, batches)
            self.step = numbers.stop
            yield metrics

    def losses(self, count):
        found = [loss for metrics in self.calls(count) for loss in metrics["loss"][:, 0].tolist()]
        return found[:count]

    def run(self, steps):
        import jax

        first, waiting = self.step, None
        for metrics in self.calls(steps):
            jax.device_get(waiting)
            waiting = metrics
        jax.block_until_ready((waiting, self.state))
        return self.step - first


class OursOnDevice(Ours):
    """The compiled call alone, on the same batches again and again."""

    def __init__(self, config):
        super().__init__(config)
        from ln import train

        numbers, self.batches = train.batches_of(self.task, next(self.plan.calls(0)))
        self.steps_per_call = len(numbers)

    def run(self, steps):
        import jax

        calls = math.ceil(steps / self.steps_per_call)
        for _ in range(calls):
            self.state, metrics = self.call(self.state, self.batches)
        jax.block_until_ready((metrics, self.state))
        return calls * self.steps_per_call


class Unvmapped(Ours):
    """ln.train.train_step compiled by itself, without lanes or scan, on the same batch again and
    again."""

    def __init__(self, config):
        super().__init__(config)
        import jax

        from ln import train

        self.state = train.lane(self.state, 0)
        self.update = jax.jit(
            partial(train.train_step, self.task, self.optimizer), donate_argnums=0
        )
        self.batch = jax.device_put(self.task.batch(0))

    def losses(self, count):
        found = []
        for n in range(count):
            self.state, metrics = self.update(self.state, self.task.batch(n))
            found.append(float(metrics["loss"]))
        return found

    def run(self, steps):
        import jax

        for _ in range(steps):
            self.state, metrics = self.update(self.state, self.batch)
        jax.block_until_ready((metrics, self.state))
        return steps


class Loop(Peer):
    """The usual training loop: a step picks its cases from arrays in memory, and updates."""

    def __init__(self, config):
        from experiments import datasets

        train = datasets.load(config.dataset, config.data_dir)["train"]
        self.x, self.y = np.array(train["x"]), np.array(train["y"])
        self.config, self.step = config, 0

    def update(self, cases: np.ndarray):
        """One step on these cases ``[B]``; returns the loss, perhaps still being computed."""
        raise NotImplementedError

    def next(self):
        """The next step."""
        from ln import data

        config = self.config
        cases = data.batch_cases(self.step, len(self.y), config.batch_size, config.data_seed)
        self.step += 1
        return self.update(cases)

    def losses(self, count):
        return [float(self.next()) for _ in range(count)]

    def run(self, steps):
        for _ in range(steps):
            loss = self.next()
        float(loss)
        return steps


class Flax(Loop):
    """The usual loop with Flax and Optax: flax's own LayerNorm, one dispatch per step."""

    def __init__(self, config, epsilon=1e-5):
        super().__init__(config)
        import flax.linen as nn
        from flax.training.train_state import TrainState
        from flax.traverse_util import unflatten_dict
        import jax
        import jax.numpy as jnp
        import optax

        class Network(nn.Module):
            @nn.compact
            def __call__(self, x):
                for _ in range(2):
                    x = nn.Dense(config.hidden, use_bias=False)(x)
                    x = nn.relu(nn.LayerNorm(epsilon=epsilon)(x))
                return nn.Dense(10)(x)

        @partial(jax.jit, donate_argnums=0)
        def train_step(state, x, y):
            def loss(params):
                logits = state.apply_fn({"params": params}, x.astype(jnp.float32) / 255)
                error = (logits.argmax(-1) != y).mean()
                return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), error

            (value, error), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
            return state.apply_gradients(grads=grads), value, error

        names = (
            *(("Dense_0", "kernel"), ("LayerNorm_0", "scale"), ("LayerNorm_0", "bias")),
            *(("Dense_1", "kernel"), ("LayerNorm_1", "scale"), ("LayerNorm_1", "bias")),
            *(("Dense_2", "kernel"), ("Dense_2", "bias")),
        )
        weights = map(jnp.array, first_weights(config))
        b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
        self.state = TrainState.create(
            apply_fn=Network().apply,
            params=unflatten_dict(dict(zip(names, weights, strict=True))),
            tx=optax.adam(config.lr[0], b1, b2, eps),
        )
        self.train_step = train_step

    def update(self, cases):
        self.state, loss, _ = self.train_step(self.state, self.x[cases], self.y[cases])
        return loss


class Torch(Loop):
    """The usual loop with PyTorch, eager.

    Args:
        epsilon: of torch.nn.LayerNorm.
        threads: None for one per core.
        adam: further options of torch.optim.Adam.
    """

    def __init__(self, config, epsilon=1e-5, threads=None, **adam):
        super().__init__(config)
        import torch
        from torch import nn

        torch.set_num_threads(threads or os.cpu_count())
        self.x, self.y = torch.from_numpy(self.x), torch.from_numpy(self.y).long()
        D, H = self.x.shape[1], config.hidden
        self.network = nn.Sequential(
            *(nn.Linear(D, H, bias=False), nn.LayerNorm(H, eps=epsilon), nn.ReLU()),
            *(nn.Linear(H, H, bias=False), nn.LayerNorm(H, eps=epsilon), nn.ReLU()),
            nn.Linear(H, 10),
        )
        parameters = list(self.network.parameters())
        with torch.no_grad():
            for parameter, weights in zip(parameters, first_weights(config), strict=True):
                parameter.copy_(torch.from_numpy(weights.T))
        b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
        self.optimizer = torch.optim.Adam(parameters, config.lr[0], (b1, b2), eps, **adam)

    def update(self, cases):
        import torch

        chosen = torch.from_numpy(cases.copy())  # a view would be of read-only memory
        x, y = self.x[chosen].float() / 255, self.y[chosen]
        logits = self.network(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        (logits.detach().argmax(-1) != y).float().mean()  # the error, which the others log too
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Stream(Peer):
    """Memory bandwidth: a += s b in place, arrays of 256 MiB; a step reads a and b and writes a."""

    COUNT = 2**26
    BYTES = 3 * 4 * COUNT

    def __init__(self):
        import jax
        import jax.numpy as jnp

        self.a, self.b = jnp.zeros(self.COUNT), jnp.ones(self.COUNT)
        self.add = jax.jit(lambda a, b: a + 1e-9 * b, donate_argnums=0)

    def losses(self, count):
        return []

    def run(self, steps):
        for _ in range(steps):
            self.a = self.add(self.a, self.b)
        self.a.block_until_ready()
        return steps


MNIST_PEERS = {"ours": Ours, CALL: OursOnDevice, UNVMAPPED: Unvmapped, "Flax + Optax": Flax}
TORCH_PEERS = {
    "PyTorch eager": Torch,
    "PyTorch eager (foreach Adam)": partial(Torch, foreach=True),
    "PyTorch eager (fused Adam)": partial(Torch, fused=True),
    "PyTorch eager (fused Adam, 1 thread)": partial(Torch, fused=True, threads=1),
}


def mnist(names: list[str], timing: Timing) -> dict:
    """Training steps of the network of §6.6, then the time until a run makes its first step."""
    cases = {name: choose("case of mnist", name, MNIST_CASES) for name in names or MNIST_USUAL}
    with tempfile.TemporaryDirectory() as folder:
        found = {name: mnist_case(name, case, folder, timing) for name, case in cases.items()}
        return dict(cases=found, start_up=start_up(folder, 1 if timing.rounds < 3 else 3))


def mnist_case(name: str, case: Case, folder: str, timing: Timing) -> dict:
    config = mnist_config(case, folder)
    if not weights_file(config).exists():
        in_process(prepare_mnist, config)
    weights = first_weights(config)
    has_torch = importlib.util.find_spec("torch") is not None
    kinds = MNIST_PEERS | (TORCH_PEERS if has_torch else {})
    missing = {} if has_torch else {"PyTorch eager": "not installed: pip install torch"}
    peers = {label: partial(kind, config) for label, kind in kinds.items()}
    if case.scale == "paper":
        peers[STREAM] = Stream
    measured = compare(name, peers, timing)
    stream = measured.pop(STREAM, None)

    widths = [len(W) for W in weights if W.ndim == 2] + [len(weights[-1])]
    print(f"\n{name}: {'-'.join(map(str, widths))}, batch size {case.batch_size}\n")
    print(table(measured, missing))
    lane = ratio(measured[CALL], measured[UNVMAPPED])
    print(f"\nA step of one lane in a compiled call takes {lane:.2f} of an unvmapped step.")
    result = dict(
        batch_size=case.batch_size,
        widths=widths,
        peers={label: peer._asdict() for label, peer in measured.items()},
        missing=missing,
        one_lane_over_unvmapped=lane,
    )
    if stream:
        result["bandwidth"] = bandwidth(sum(w.size for w in weights), measured["ours"], stream)
    print(flush=True)
    return result


def bandwidth(parameters: int, ours: Measured, stream: Measured) -> dict:
    """What share of the memory bandwidth Adam's traffic takes, in bytes per second."""
    adam = 7 * 4 * parameters  # it reads p, m, v and g and writes p, m and v, in float32
    reached = adam / statistics.median(ours.seconds_per_step)
    possible = Stream.BYTES / statistics.median(stream.seconds_per_step)
    print(
        f"Adam moves {adam / 1e6:.1f} MB a step (reads p, m, v, g; writes p, m, v): in ours "
        f"{reached / 1e9:.1f} GB/s, {reached / possible:.0%} of the {possible / 1e9:.1f} GB/s of "
        f"{STREAM} in place on arrays of 256 MiB (reads a, b; writes a)."
    )
    return dict(adam_bytes_per_step=adam, adam=reached, stream=possible)


def start_up(folder: str, times: int) -> dict:
    """Seconds until `python -m scripts.train` of :tiny has made its first step, and of --help."""
    config = mnist_config(MNIST_CASES["tiny-4"], folder)
    if not weights_file(config).exists():
        in_process(prepare_mnist, config)
    print(f"start-up of scripts.train, {times} times", flush=True)
    runs = [first_step(config.data_dir, Path(folder) / f"run{n}") for n in range(times)]
    stages = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    helps = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "scripts.train", "--help"],
            stdout=subprocess.DEVNULL,
            check=False,
        )
        helps.append(time.perf_counter() - began)
    stages["help"] = statistics.median(helps)
    print(
        f"\npython -m scripts.train --config=configs/mnist.py:tiny: the first step is made after "
        f"{sum(stages[stage] for stage in STAGES):.1f} s "
        f"({', '.join(f'{stage} {stages[stage]:.1f} s' for stage in STAGES)}); --help takes "
        f"{stages['help']:.2f} s.\n",
        flush=True,
    )
    return stages


# What a run has written to its folder at the end of each stage of its start.
STAGES = {
    "imports and data": "config.json",
    "run folder and initial weights": "sessions.jsonl",
    "compiling and making a step": "metrics.jsonl",
}


def first_step(data_dir: str, workdir: Path) -> dict[str, float]:
    """Starts a run of one step; returns the seconds that each stage of its start took."""
    words = ["-m", "scripts.train", "--config=configs/mnist.py:tiny", "--config.steps=1 step"]
    words += [f"--config.data_dir={data_dir}", f"--workdir={workdir}"]
    began, found = time.perf_counter(), {}
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL) as process:
        for stage, name in STAGES.items():
            while not ((workdir / name).exists() and (workdir / name).stat().st_size):
                if process.poll():
                    raise RuntimeError(f"scripts.train ended with status {process.returncode}")
                time.sleep(0.002)
            now = time.perf_counter()
            found[stage], began = now - began, now
    return found


# --- The command ---

BENCHMARKS = {"mnist": mnist}  # name -> (names of cases, Timing) -> what --out shall hold


def environment() -> dict:
    """What the numbers depend on besides the code of the peers."""
    from ln import runs

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
        from ln import runs

        runs.write_atomically(out, json.dumps(results, indent=2) + "\n")
        print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main)

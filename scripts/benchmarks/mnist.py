"""mnist: the training step of 784-1000-1000-10 with layer norm (§6.6), and of smaller networks."""

import contextlib
from functools import partial
import importlib.util
import io
import itertools
import math
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from ln.errors import choose
from scripts.benchmarks.common import Measured, Peer, Timing, compare, in_process, ratio, table


class Case(NamedTuple):
    """A scale of configs/mnist.py and a batch size."""

    scale: str
    batch_size: int


CASES = {
    "full-128": Case("paper", 128),
    "full-4": Case("paper", 4),
    "small-128": Case("small", 128),
    "small-4": Case("small", 4),
    "tiny-4": Case("tiny", 4),
}
USUAL = ("full-128", "full-4", "small-128", "small-4")
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
    """The trainer as `fit` uses it: a thread prepares batches, K steps go to the device at once,
    and metrics are fetched one call late."""

    def __init__(self, config):
        import jax
        import jax.numpy as jnp

        import experiments
        from ln.training import train

        self.task, self.optimizer = experiments.load(config), train.make_optimizer(config)
        self.plan = train.Plan.of(config, self.task)
        self.call = train.make_call(self.task, self.optimizer)
        columns = zip(*train.make_lanes(config), strict=True)
        init = jax.jit(jax.vmap(partial(train.init_state, self.task, self.optimizer)))
        self.state = init(*map(jnp.array, columns))
        self.step = 0

    def calls(self, steps: int):
        """Makes that many steps or a few more; yields the metrics of each call."""
        from ln.training import data, train

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
        from ln.training import train

        numbers, self.batches = train.batches_of(self.task, next(self.plan.calls(0)))
        self.steps_per_call = len(numbers)

    def run(self, steps):
        import jax

        calls, waiting = math.ceil(steps / self.steps_per_call), None
        for _ in range(calls):
            self.state, metrics = self.call(self.state, self.batches)
            jax.block_until_ready(waiting)  # as in training; many calls at once may never end
            waiting = metrics
        jax.block_until_ready((waiting, self.state))
        return calls * self.steps_per_call


class Unvmapped(Ours):
    """`train_step` compiled by itself, without lanes or scan, on the same batch again and again."""

    def __init__(self, config):
        super().__init__(config)
        import jax

        from ln.training import train

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
        from ln.training import data

        config = self.config
        cases = data.batch_cases(self.step, len(self.y), config.batch_size, seed=0)
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


PEERS = {"ours": Ours, CALL: OursOnDevice, UNVMAPPED: Unvmapped, "Flax + Optax": Flax}
TORCH_PEERS = {
    "PyTorch eager": Torch,
    "PyTorch eager (foreach Adam)": partial(Torch, foreach=True),
    "PyTorch eager (fused Adam)": partial(Torch, fused=True),
    "PyTorch eager (fused Adam, 1 thread)": partial(Torch, fused=True, threads=1),
}


def mnist(names: list[str], timing: Timing) -> dict:
    """Training steps of the network of §6.6, then the time until a run makes its first step."""
    cases = {name: choose("case of mnist", name, CASES) for name in names or USUAL}
    with tempfile.TemporaryDirectory() as folder:
        found = {name: mnist_case(name, case, folder, timing) for name, case in cases.items()}
        return dict(cases=found, start_up=start_up(folder, 1 if timing.rounds < 3 else 3))


def mnist_case(name: str, case: Case, folder: str, timing: Timing) -> dict:
    config = mnist_config(case, folder)
    if not weights_file(config).exists():
        in_process(prepare_mnist, config)
    weights = first_weights(config)
    has_torch = importlib.util.find_spec("torch") is not None
    kinds = PEERS | (TORCH_PEERS if has_torch else {})
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
    reached = adam / ours.seconds
    possible = Stream.BYTES / stream.seconds
    print(
        f"Adam moves {adam / 1e6:.1f} MB a step (reads p, m, v, g; writes p, m, v): in ours "
        f"{reached / 1e9:.1f} GB/s, {reached / possible:.0%} of the {possible / 1e9:.1f} GB/s of "
        f"{STREAM} in place on arrays of 256 MiB (reads a, b; writes a)."
    )
    return dict(adam_bytes_per_step=adam, adam=reached, stream=possible)


def start_up(folder: str, times: int) -> dict:
    """Seconds until `python -m scripts.train` of :tiny has made its first step, and of --help."""
    config = mnist_config(CASES["tiny-4"], folder)
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

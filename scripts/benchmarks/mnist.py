"""mnist: training steps of 784-1000-1000-10 with layer norm (§6.6), and of smaller networks."""

from functools import partial
import os
import tempfile
from typing import NamedTuple

import numpy as np

from ln.errors import choose
from scripts.benchmarks import random_data
from scripts.benchmarks.common import (
    Peer,
    Timing,
    as_dicts,
    compare,
    in_process,
    make,
    table,
    torch_missing,
)


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

CALL = "our compiled call alone"


def mnist_config(case: Case, folder: str):
    """Return the config of a case, with random images in a folder. Layer norm is the default."""
    from configs import mnist

    config = mnist.get_config(case.scale)
    config.batch_size = case.batch_size
    config.data_dir = folder
    config.steps = "1_000_000_000 steps"  # no training ends before the benchmark
    random_data.prepare(config.dataset, folder)
    return config


class Start(NamedTuple):
    """What the loops of other libraries begin with.

    Attributes:
        weights: W ``[D, H]``, gain and bias of each hidden layer, then W and bias of the output.
        batch: the batch of every step; None for those of the training set in the trainer's order.
    """

    weights: list[np.ndarray]
    batch: dict[str, np.ndarray] | None


def make_start(config, same_batch: bool) -> Start:
    import jax

    import experiments

    task = experiments.load(config)
    params = jax.jit(task.init)(jax.random.key(config.seeds[0]))["params"]
    layers = ("Dense_0", "LayerNorm_0", "Dense_1", "LayerNorm_1", "Dense_2", "Identity_0")
    names = ("kernel", "gain", "bias")
    weights = [np.array(params[k][n]) for k in layers for n in names if n in params[k]]
    return Start(weights, task.example() if same_batch else None)


class Loop(Peer):
    """The usual training loop: a step picks its examples from arrays in memory, and updates."""

    def __init__(self, config, start: Start):
        from experiments import datasets

        train = datasets.load(config.dataset, config.data_dir)["train"]
        self.x, self.y = np.array(train["x"]), np.array(train["y"])
        self.config, self.start, self.step = config, start, 0

    def update(self, x: np.ndarray, y: np.ndarray):
        """Make a step on this batch; return the loss, which may still be being computed."""
        raise NotImplementedError

    def next(self):
        """Make the next step."""
        from ln.training import data

        batch = self.start.batch
        if batch is None:
            size = self.config.batch_size
            chosen = data.batch_cases(self.step, len(self.y), size, seed=0)
            batch = dict(x=self.x[chosen], y=self.y[chosen])
        self.step += 1
        return self.update(**batch)

    def losses(self, count):
        return [float(self.next()) for _ in range(count)]

    def run(self, steps):
        for _ in range(steps):
            loss = self.next()
        float(loss)
        return steps


class Flax(Loop):
    """The usual loop with Flax and Optax: flax's own LayerNorm, one dispatch per step."""

    def __init__(self, config, start, epsilon=1e-5):
        super().__init__(config, start)
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
        weights = map(jnp.array, start.weights)
        b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
        self.state = TrainState.create(
            apply_fn=Network().apply,
            params=unflatten_dict(dict(zip(names, weights, strict=True))),
            tx=optax.adam(config.lr[0], b1, b2, eps),
        )
        self.train_step = train_step

    def update(self, x, y):
        self.state, loss, _ = self.train_step(self.state, x, y)
        return loss


class Torch(Loop):
    """The usual loop with PyTorch, eager.

    Args:
        epsilon: of torch.nn.LayerNorm.
        device: "cpu" or "gpu".
        fused: whether Adam is PyTorch's fused one.
    """

    def __init__(self, config, start, epsilon=1e-5, device="cpu", fused=False):
        super().__init__(config, start)
        import torch
        from torch import nn

        torch.set_num_threads(os.cpu_count())
        self.device = torch.device("cuda" if device == "gpu" else "cpu")
        D, H = self.x.shape[1], config.hidden
        self.network = nn.Sequential(
            *(nn.Linear(D, H, bias=False), nn.LayerNorm(H, eps=epsilon), nn.ReLU()),
            *(nn.Linear(H, H, bias=False), nn.LayerNorm(H, eps=epsilon), nn.ReLU()),
            nn.Linear(H, 10),
        ).to(self.device)
        parameters = list(self.network.parameters())
        with torch.no_grad():
            for parameter, weights in zip(parameters, start.weights, strict=True):
                parameter.copy_(torch.from_numpy(weights.T))
        b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
        self.optimizer = torch.optim.Adam(parameters, config.lr[0], (b1, b2), eps, fused=fused)

    def update(self, x, y):
        import torch

        x = torch.from_numpy(x).to(self.device).float() / 255
        y = torch.from_numpy(y).to(self.device).long()
        logits = self.network(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        (logits.detach().argmax(-1) != y).float().mean()  # the error, which the others log too
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


OURS = {"ours": "Trainer", CALL: "Call"}  # peers of common_jax
FLAX = "Flax + Optax"
TORCH_PEERS = {
    "PyTorch eager": Torch,
    "PyTorch eager (fused Adam)": partial(Torch, fused=True),
}


def other_libraries(config, same_batch: bool, device: str = "cpu"):
    """Return the loops of other libraries as peers, and why others are missing."""
    start = in_process(make_start, config, same_batch)
    peers = {FLAX: partial(Flax, config, start)}
    missing = torch_missing(device)
    if missing is not None:
        return peers, {"PyTorch eager": missing}
    torch = {k: partial(kind, config, start, device=device) for k, kind in TORCH_PEERS.items()}
    return peers | torch, {}


def further_peers(config, device: str):
    """Return the peers of the benchmark step, all of which have layer norm."""
    return other_libraries(config, True, device) if config.norm == "layer" else ({}, {})


def mnist(names: list[str], timing: Timing) -> dict:
    """Training steps of the network of §6.6."""
    cases = {name: choose("case of mnist", name, CASES) for name in names or USUAL}
    with tempfile.TemporaryDirectory() as folder:
        results = {name: mnist_case(name, case, folder, timing) for name, case in cases.items()}
    return dict(cases=results)


def mnist_case(name: str, case: Case, folder: str, timing: Timing) -> dict:
    config = mnist_config(case, folder)
    others, missing = other_libraries(config, same_batch=False)
    peers = {label: partial(make, "common_jax", kind, config) for label, kind in OURS.items()}
    measured = compare(name, peers | others, timing)
    pixels = random_data.KINDS[config.dataset][1]["pixels"]
    widths = [pixels, config.hidden, config.hidden, 10]
    print(f"\n{name}: {'-'.join(map(str, widths))}, batch size {case.batch_size}\n")
    print(f"{table(measured, missing)}\n", flush=True)
    return dict(
        batch_size=case.batch_size, widths=widths, peers=as_dicts(measured), missing=missing
    )

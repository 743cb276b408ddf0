"""step, lanes, memory and device: training steps of the experiments as the trainer makes them.

A step computes the loss of a batch and its gradients, clips these and gives them to the optimizer
of the config. All peers begin with the same weights.
"""

from collections.abc import Callable, Iterator
from functools import partial
import itertools

import flax.linen as nn
from flax.training.train_state import TrainState
import jax
import jax.numpy as jnp
import optax

import experiments
from ln.errors import choose
from ln.norm import EPSILON
from ln.training import train
from scripts import cli
from scripts.benchmarks import jax_peers, random_data
from scripts.benchmarks.jax_peers import trainer_peer
from scripts.benchmarks.timing import Makers, Numbers, Peer
from scripts.benchmarks.trainer import Trainer

LEARNING_RATE = 1e-5  # small: Adam goes as far along rounding noise as along a gradient

PLAIN, NO_NORM, TRAINER = "plain autodiff", "ours without norm", "the trainer"
# Their batches have one shape: those of the trainer are like those of the bare call.
ONE_SHAPE = ("convnet", "draw", "mnist", "sequential_mnist")


def norms(experiment: str) -> list[str]:
    """Return the norms of an experiment's config."""
    return list(cli.read_config(experiment, "tiny").norms)


def make_config(
    folder: str,
    experiment: str,
    scale: str = "paper",
    norm: str | None = None,
    batch_size: int | None = None,
    data_dir: str = "data",
):
    """Return the config of a step to time, with random data of the paper's sizes in a folder.

    Args:
        folder: for the random data.
        experiment: the name of a file in configs/.
        scale: of the config.
        norm: a key of config.norms; None for the config's own.
        batch_size: None for the config's own.
        data_dir: folder of the built-in data sets.

    Raises:
        InputError: there is no such experiment, scale or norm.
    """
    config = cli.read_config(experiment, scale)
    config.norm, config.batch_size = norm or config.norm, batch_size or config.batch_size
    choose("norm", config.norm, config.norms)
    config.lr, config.seeds, config.data_dir = (LEARNING_RATE,), (0,), data_dir
    if "tasks" in config:
        config.tasks = ""  # data sets that only evaluation reads
    if config.dataset in random_data.KINDS:
        config.data_dir = folder
        random_data.prepare(config.dataset, folder)
    return config


# --- Any experiment ---


def step_peers(config) -> Makers:
    """Return the training steps to compare."""
    without = config.copy_and_resolve_references()
    without.norm = "none"
    peers: dict[str, Callable[[], Peer]] = {
        "ours": partial(trainer_peer, config),
        PLAIN: partial(trainer_peer, config, plain=True),
        NO_NORM: partial(trainer_peer, without, compared=False),
        TRAINER: partial(Trainer, config),
    }
    if config.experiment not in ONE_SHAPE:
        del peers[TRAINER]
    if config.norm == "none" or "none" not in config.norms:
        del peers[NO_NORM]
    if config.experiment != "mnist":
        return peers
    del peers[PLAIN]  # it has no recurrent layer
    usual = {"Flax + Optax": in_flax, "PyTorch eager (fused Adam)": in_torch}
    return peers | {name: partial(make, config) for name, make in usual.items()}


def memory_peers(config) -> Makers:
    """Return ours and plain autodiff, also where the model has no recurrent layer."""
    make = partial(trainer_peer, config, compared=False)
    return {"ours": make, PLAIN: partial(make, plain=True)}


def device_peers(config) -> Makers:
    """Return the second step along the gradient on the CPU and on this device, to compare them."""
    if "noise" in config:
        config.noise = 0.1  # the first pixels are black
    task, devices = experiments.load(config), (jax.devices("cpu")[0], jax.devices()[0])
    first, second = (partial(jax_peers.first_steps, task, 2, device) for device in devices)
    return {"on the CPU": partial(untimed, first), "on this device": partial(untimed, second)}


def untimed(steps: Callable) -> Peer:
    """Return a peer that is compared alone."""
    return Peer(lambda: None, lambda _: None, numbers=lambda: steps()[-1])


def lanes_peers(config) -> Makers:
    """Return the trainer's call with some numbers of seeds in a program."""
    peers = {}
    for count in (1, 2, 4, 8):
        several = config.copy_and_resolve_references()
        several.seeds = tuple(range(count))
        peers[f"{count} lane(s)"] = partial(trainer_peer, several, compared=False)
    return peers


# --- MNIST: the usual loops of other libraries, all of which have layer norm ---


class Network(nn.Module):
    """The network of figure 6 of Flax's own modules."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        for _ in range(2):
            x = nn.Dense(self.hidden, use_bias=False)(x)
            x = nn.relu(nn.LayerNorm(epsilon=EPSILON)(x))
        return nn.Dense(10)(x)


def first_params(config) -> dict:
    """Return the initial parameters."""
    return jax.jit(jax_peers.load(config).init)(jax.random.key(0))["params"]


def batches(config) -> Iterator[train.Batch]:
    """Return the batches of the steps."""
    return map(jax_peers.load(config).batch, itertools.count())


def in_flax(config) -> Peer:
    """Return the usual loop with Flax and Optax: flax's own LayerNorm, a dispatch for each step."""
    network, stream, first = Network(config.hidden), batches(config), next(batches(config))
    b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
    optimizer = optax.adam(config.lr[0], b1, b2, eps)
    params = jax.tree.map(jnp.array, first_params(config))
    state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)

    def loss(params, batch):
        x, y = batch["x"].astype(jnp.float32) / 255, batch["y"]
        logits = state.apply_fn({"params": jax_peers.as_flax(params)}, x)
        error = (logits.argmax(-1) != y).mean()
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), error

    gradients = jax.value_and_grad(loss, has_aux=True)

    @partial(jax.jit, donate_argnums=0)
    def train_step(state, batch):
        value, grads = gradients(state.params, batch)
        return state.apply_gradients(grads=grads), value

    compiled, facts = jax_peers.compile_for(train_step, state, first)

    def call():
        nonlocal state
        state, value = compiled(state, next(stream))
        return value

    def numbers() -> Numbers:
        with jax_peers.FULL():
            (value, _), grads = jax.jit(gradients)(state.params, first)
        return Numbers(float(value), jax_peers.named(grads))

    return Peer(call, jax.block_until_ready, numbers=numbers, facts=facts)


def in_torch(config) -> Peer:
    """Return the usual loop with PyTorch."""
    from scripts.benchmarks import torch_peers

    arrays = jax_peers.named(first_params(config))
    return torch_peers.mnist(config, arrays, batches(config))


PEERS = dict(step=step_peers, lanes=lanes_peers, memory=memory_peers, device=device_peers)


def make_peers(benchmark: str, **setting) -> Makers:
    """Return the implementations of a benchmark; see `make_config`."""
    return PEERS[benchmark](make_config(**setting))

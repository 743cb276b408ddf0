"""step, mnist and lanes: training steps of the experiments as the trainer makes them.

A step computes the loss of a batch and its gradients, clips these and gives them to the optimizer
of the config. All peers begin with the same weights.
"""

from functools import partial
import importlib
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import experiments
from ln.errors import choose
from ln.norm import EPSILON
from ln.training import train
from scripts.benchmarks import jax_peers, random_data
from scripts.benchmarks.jax_peers import trainer_peer
from scripts.benchmarks.timing import PEAK, Makers, Peer, Results, Timing, compare, ratios, show

LEARNING_RATE = 1e-5  # small: Adam goes as far along rounding noise as along a gradient

PLAIN, NO_NORM = "plain autodiff", "ours without norm"
CALL, FLAX = "our compiled call alone", "Flax + Optax"
FULL = "full"  # the case at the scale paper; its name in results/speed


class Setting(NamedTuple):
    """The steps to time.

    Attributes:
        experiment: the name of a file in configs/.
        scale: of the config.
        norm: a key of config.norms; None for the config's own.
        batch_size: None for the config's own.
        data_dir: folder of the built-in data sets.
    """

    experiment: str
    scale: str = "paper"
    norm: str | None = None
    batch_size: int | None = None
    data_dir: str = "data"

    @property
    def case(self) -> str:
        return FULL if self.scale == "paper" else self.scale


MNIST = {
    "full-128": Setting("mnist", "paper", batch_size=128),
    "full-4": Setting("mnist", "paper", batch_size=4),
    "small-128": Setting("mnist", "small", batch_size=128),
    "small-4": Setting("mnist", "small", batch_size=4),
    "tiny-4": Setting("mnist", "tiny", batch_size=4),
}
USUAL_MNIST = ("full-128", "full-4", "small-128", "small-4")

LANES = {
    "pixels": Setting("sequential_mnist", "small"),  # an LSTM of 100 units, T=8, B=100
    "mnist-small": Setting("mnist", "small"),
    "mnist": Setting("mnist"),
    "tiny": Setting("mnist", "tiny"),
}
USUAL_LANES = ("pixels", "mnist-small", "mnist")
COUNTS = (1, 2, 4, 8)  # of lanes


def make_config(setting: Setting, folder: str):
    """Return the config of a setting, with random data of the paper's sizes in a folder.

    Raises:
        InputError: there is no such experiment, scale or norm.
    """
    name = choose("experiment", setting.experiment, {name: name for name in experiments.names()})
    module = importlib.import_module(f"configs.{name}")
    choose(f"scale of {name}", setting.scale, module.SCALES)
    config = module.get_config(setting.scale)
    config.norm = setting.norm or config.norm
    choose("norm", config.norm, config.norms)
    config.batch_size = setting.batch_size or config.batch_size
    config.lr, config.seeds, config.data_dir = (LEARNING_RATE,), (0,), setting.data_dir
    if "tasks" in config:
        config.tasks = ""  # data sets that only evaluation reads
    if config.dataset in random_data.KINDS:
        config.data_dir = folder
        random_data.prepare(config.dataset, folder)
    return config


# --- step: any experiment, the same batch at every step ---


def same_batch_peer(config, plain: bool = False, **options) -> Peer:
    """Return ours, with plain autodiff of recurrent layers or as it is."""
    return trainer_peer(config, jax_peers.load(config, same_batch=True, plain=plain), **options)


def step_peers(config) -> Makers:
    peers = {
        "ours": partial(same_batch_peer, config),
        PLAIN: partial(same_batch_peer, config, plain=True),
    }
    if config.norm != "none" and "none" in config.norms:
        without = config.copy_and_resolve_references()
        without.norm = "none"
        peers[NO_NORM] = partial(same_batch_peer, without, compared=False)
    if config.experiment == "mnist" and config.norm == "layer":
        peers |= other_libraries(config, same_batch=True)
    return peers | {PEAK: jax_peers.square}


def step(name: str, setting: Setting, timing: Timing, folder: str) -> dict:
    """Compare and time training steps of an experiment."""
    config = make_config(setting, folder)
    results = compare(name, step_peers(config), timing)
    source = "" if config.data_dir == setting.data_dir else "random data in the sizes of "
    data = f"{source}{config.dataset}"
    shapes = {key: list(np.shape(leaf)) for key, leaf in experiments.load(config).example().items()}
    batch = ", ".join(f"{key} {shape}" for key, shape in shapes.items())
    title = (
        f"{setting.experiment}, {name}: a training step, norm {config.norm}, "
        f"{results.peers['ours'].facts['parameters']:,} parameters, {config.steps_per_call} steps "
        f"a call; {data}, batch {batch}"
    )
    return show(title, results) | dict(data=data, batch=shapes, config=config.to_dict())


# --- mnist: the whole trainer beside the usual loops, on batches of the data set ---


class Network(nn.Module):
    """The network of figure 6 of Flax's own modules."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.Dense(self.hidden, use_bias=False)(x)
            x = nn.relu(nn.LayerNorm(epsilon=EPSILON)(x))
        return nn.Dense(10)(x)


def first_params(task: train.Task) -> dict:
    return jax.jit(task.init)(jax.random.key(0))["params"]


def adam(config) -> optax.GradientTransformation:
    b1, b2, eps = (config.optimizer[key] for key in ("b1", "b2", "eps"))
    return optax.adam(config.lr[0], b1, b2, eps)


def flax_mnist(config, same_batch: bool) -> Peer:
    """Return the usual loop with Flax and Optax: flax's own LayerNorm, a dispatch for each step."""
    task, network = jax_peers.load(config, same_batch), Network(config.hidden)

    def loss(params, batch):
        logits, y = (
            network.apply({"params": params}, batch["x"].astype(jnp.float32) / 255),
            batch["y"],
        )
        error = (logits.argmax(-1) != y).mean()
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), error

    batches = map(task.batch, itertools.count())
    return jax_peers.flax_peer(loss, first_params(task), adam(config), batches)


def torch_mnist(config, same_batch: bool, fused: bool = False) -> Peer:
    from scripts.benchmarks import torch_peers

    task = jax_peers.load(config, same_batch)
    arrays = jax_peers.named(first_params(task))
    return torch_peers.mnist(config, arrays, map(task.batch, itertools.count()), fused)


def other_libraries(config, same_batch: bool) -> Makers:
    """Return the loops of other libraries, all of which have layer norm."""
    return {
        FLAX: partial(flax_mnist, config, same_batch),
        "PyTorch eager": partial(torch_mnist, config, same_batch),
        "PyTorch eager (fused Adam)": partial(torch_mnist, config, same_batch, fused=True),
    }


def whole_trainer(config, **options) -> Peer:
    return trainer_peer(config, jax_peers.load(config), gradients=False, **options)


def mnist(name: str, setting: Setting, timing: Timing, folder: str) -> dict:
    """Compare and time the trainer and the usual loops."""
    config = make_config(setting, folder)
    peers = {
        "ours": partial(whole_trainer, config, ahead=True),
        CALL: partial(whole_trainer, config),
        **other_libraries(config, same_batch=False),
    }
    pixels = random_data.KINDS[config.dataset].sizes["pixels"]
    widths = [pixels, config.hidden, config.hidden, 10]
    title = f"{name}: {'-'.join(map(str, widths))}, batch size {config.batch_size}"
    results = show(title, compare(name, peers, timing))
    return results | dict(batch_size=config.batch_size, widths=widths)


# --- lanes: several (seed, learning rate) in one program ---


def lane_peers(setting: Setting, folder: str, counts: tuple[int, ...] = COUNTS) -> Makers:
    """Return a peer for each count of lanes. Lane 0 is the same run in all of them."""
    peers = {}
    for count in counts:
        config = make_config(setting, folder)
        config.seeds = tuple(range(count))
        peers[f"{count} lane{'s' if count > 1 else ''}"] = partial(whole_trainer, config)
    return peers


def cost_of_a_lane(results: Results) -> dict[int, float]:
    """Return the time of a step of each lane, in steps of one lane alone, by count of lanes."""
    alone = results.peers["1 lane"]
    return {
        peer.facts["lanes"]: float(np.median(ratios(peer, alone))) / peer.facts["lanes"]
        for peer in results.peers.values()
    }


def lanes(name: str, setting: Setting, timing: Timing, folder: str) -> dict:
    """Time the call of 1, 2, 4 and 8 lanes."""
    results = compare(name, lane_peers(setting, folder), timing)
    cost = cost_of_a_lane(results)
    numbers = show(f"{name}: configs/{setting.experiment}.py:{setting.scale}", results)
    print(f"A step of each lane, in steps of one alone: {cost}\n", flush=True)
    return numbers | dict(case=setting._asdict(), cost_of_a_lane=cost)

"""step: training steps of any experiment as the trainer makes them.

A step computes the loss of a batch and its gradients, clips these and gives them to the optimizer
of the config. The batch is the task's example: random, with all texts and lines as long as the
longest. The peers begin with the same weights; a module here with the name of an experiment may
have further peers, see `further_peers`.
"""

from collections.abc import Callable
from functools import partial
import importlib
import importlib.util
import tempfile
from typing import NamedTuple

import experiments
from ln.errors import choose
from scripts.benchmarks import random_data
from scripts.benchmarks.common import (
    PEAKS,
    SIDE,
    Peer,
    Timing,
    choose_device,
    compare,
    in_process,
    make,
    show,
)

LEARNING_RATE = 1e-5  # small: Adam goes as far along rounding noise as along a gradient

PLAIN, NO_NORM = "plain autodiff", "ours without norm"
FULL = "full"  # the case at the scale paper; its name in results/speed


class Setting(NamedTuple):
    """The steps to time.

    Attributes:
        experiment: the name of a file in configs/.
        scale: of the config.
        norm: a key of config.norms; None for the config's own.
        data_dir: folder of the built-in data sets.
        together: whether all peers are alive at once, see `common.compare`.
    """

    experiment: str
    scale: str = "paper"
    norm: str | None = None
    data_dir: str = "data"
    together: bool = True


def make_config(setting: Setting, folder: str):
    """Return the config of a setting, with random data of the paper's sizes in a folder.

    Raises:
        InputError: there is no such experiment, scale or norm.
    """
    names = experiments.names()
    name = choose("experiment", setting.experiment, dict(zip(names, names, strict=True)))
    module = importlib.import_module(f"configs.{name}")
    choose(f"scale of {setting.experiment}", setting.scale, module.SCALES)
    config = module.get_config(setting.scale)
    config.norm = setting.norm or config.norm
    choose("norm", config.norm, config.norms)
    config.lr, config.data_dir = (LEARNING_RATE,), setting.data_dir
    if "tasks" in config:
        config.tasks = ""  # data sets that only evaluation reads
    if config.dataset in random_data.KINDS:
        config.data_dir = folder
        random_data.prepare(config.dataset, folder)
    return config


def step(setting: Setting, timing: Timing) -> dict:
    """Compare and time training steps of an experiment."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(setting, folder)
        device = choose_device()
        return dict(device=device, cases=step_case(setting, config, device, timing))


def step_case(setting: Setting, config, device: str, timing: Timing) -> dict:
    case = FULL if setting.scale == "paper" else setting.scale
    size = in_process(describe, config)
    is_random = config.data_dir != setting.data_dir
    size["data"] = f"random data in the sizes of {config.dataset}" if is_random else config.dataset
    peers, missing = make_peers(config, device)
    measured = compare(case, peers, timing, setting.together)
    title = (
        f"{setting.experiment}, {case}: a training step, norm {config.norm}, "
        f"{size['parameters']:,} parameters, {config.steps_per_call} steps a call; "
        f"{size['data']}, batch {batch_text(size['batch'])}"
    )
    result = show(title, measured, missing)
    return {case: result | size | dict(config=config.to_dict(), missing=missing)}


def make_peers(config, device: str) -> tuple[dict[str, Callable[[], Peer]], dict[str, str]]:
    """Return the peers, and why others are missing."""
    in_jax = partial(partial, make, "common_jax")
    peers: dict[str, Callable[[], Peer]] = {
        "ours": in_jax("Step", config),
        PLAIN: in_jax("Step", config, plain=True),
    }
    if config.norm != "none" and "none" in config.norms:
        without = config.copy_and_resolve_references()
        without.norm = "none"
        peers[NO_NORM] = in_jax("Step", without, compared=False)
    more, missing = further_peers(config, device)
    return peers | more | {PEAKS[0]: in_jax("Square", SIDE)}, missing


def further_peers(config, device: str):
    """Return peers and missing ones of the experiment's module in this package, if it has any."""
    name = f"{__package__}.{config.experiment}"
    if importlib.util.find_spec(name) is None:
        return {}, {}
    return importlib.import_module(name).further_peers(config, device)


def describe(config) -> dict:
    from scripts.benchmarks import common_jax

    return common_jax.describe(config)


def batch_text(batch: dict[str, list[int]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in batch.items())

"""The keys that all experiments share, and one scale for tests."""

from ml_collections import ConfigDict


def get_config(experiment: str, scale: str) -> ConfigDict:
    """Return the shared keys with their defaults; an experiment adds its own, and overrides."""
    config = ConfigDict()
    config.experiment = experiment
    config.scale = scale
    config.data_dir = "data"  # folder of the prepared data sets
    config.writers = ("tensorboard",)  # tools that get copies of the metrics; or "wandb", or ()
    config.norm = "layer"  # a key of config.norms, see `norms`

    config.optimizer = dict(kind="adam", b1=0.9, b2=0.999, eps=1e-8)  # Adam's defaults
    config.lr = (1e-3,)  # Adam's default; several rates train side by side
    config.schedule = dict(kind="constant", tau=0.0)  # or "inverse_sqrt": lr / √(1 + t/tau)
    config.clip = 0.0  # > 0: bound on the norm of the gradient
    config.seeds = (0,)  # several seeds train side by side
    config.precision = "default"  # of products: the device's; or "float32", "tf32", "bfloat16"
    config.data_seed = -1  # each seed has its own order of the data; >= 0: one order for all

    config.log_every = config.eval_every = config.save_every = "1 epoch"
    config.select = dict(split="valid", metric="error", mode="min")  # the best checkpoint
    config.steps_per_call = 10
    return config


def norms(layer: dict, **others: dict) -> dict[str, dict]:
    """Return config.norms: none, layer norm, RMSNorm at its sites (not in the paper), others."""
    rms = dict(kind="rms", sites=layer["sites"], gain=1.0)
    return dict(none={}, layer=layer, rms=rms, **others)


def scaled(config: ConfigDict, scales: dict[str, dict]) -> ConfigDict:
    """Return the config with the values of its scale; an unknown scale raises KeyError."""
    config.update(ConfigDict(scales)[config.scale])  # the KeyError suggests the nearest scale
    return config


def scales(**others: dict) -> dict[str, dict]:
    """Return the scales of an experiment: "paper" has the values as they are, and others."""
    return {"paper": {}, **others}


def every(log: str, evaluate: str, save: str) -> dict[str, str]:
    """Return how often a run writes a row of its updates, evaluates, and saves a checkpoint."""
    return dict(log_every=log, eval_every=evaluate, save_every=save)


# Four updates, in seconds: for tests.
TINY = dict(
    batch_size=4,
    steps="4 steps",
    steps_per_call=2,
    **every(log="1 step", evaluate="2 steps", save="2 steps"),
)


def runs(norms: str, seeds: tuple[int, ...]):
    """Yield the settings of a sweep: a run of these seeds for each of these norms."""
    for norm in norms.split():
        yield dict(norm=norm, seeds=seeds)

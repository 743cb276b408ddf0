"""Convolutional networks (§6.7).

    python -m scripts.train --config=configs/convnet.py --workdir=runs/x
    python -m scripts.sweep --config=configs/convnet.py

The paper gives neither data nor network nor numbers: all of them are ours.
"""

from configs import base


def get_config(scale="paper"):
    config = base.get_config("convnet", scale)
    config.dataset = "mnist"  # or "cifar10"; "digits", built in
    config.train_cases = 60_000  # of the training set, at most

    config.norms = base.norms(
        # All units of a layer together, as eqs. 3-4 have it; a gain for each channel, or each unit.
        layer=dict(kind="layer", sites=("conv", "a"), over="layer", gains="channel"),
        layer_units=dict(kind="layer", sites=("conv", "a"), over="layer", gains="unit"),
        # Not the paper's: each position by itself, as later work does.
        layer_channels=dict(kind="layer", sites=("conv", "a"), over="position", gains="channel"),
        batch=dict(kind="batch", sites=("conv", "a")),
    )
    config.channels = (32, 64)
    config.hidden = 128

    config.batch_size = 128
    config.steps = "20 epochs"

    config.save_every = "5 epochs"
    config.steps_per_call = 33
    return base.scaled(config, SCALES)


SCALES = base.scales(
    # The built-in digits and a small network: seconds a norm on a CPU.
    small=dict(
        dataset="digits",
        channels=(8, 16),
        hidden=32,
        batch_size=32,
        steps="12 epochs",
        save_every="6 epochs",
        steps_per_call=40,
    ),
    tiny=dict(base.TINY, dataset="digits", channels=(2, 3), hidden=4, train_cases=8),
)

SECONDS = 11  # of a run at scale small on a core: scripts.reproduce trains the longest first


def sweep():
    """Return the three norms of §6.7 and two further forms of layer norm; three seeds."""
    return base.runs("none batch layer layer_units layer_channels", seeds=(0, 1, 2))

"""Convolutional networks (§6.7).

    python -m scripts.train --config=configs/convnet.py --workdir=runs/x
    python -m scripts.sweep --config=configs/convnet.py
    python -m scripts.sample convnet --workdir=runs/x

The paper gives neither data nor network nor numbers: all of them are ours.
"""

from ml_collections import ConfigDict


def get_config(scale="paper"):
    config = ConfigDict()
    config.experiment = "convnet"
    config.scale = scale
    config.dataset = "mnist"  # or "cifar10"; "digits", built in
    config.data_dir = "data"
    config.train_cases = 60_000  # of the training set, at most

    config.norm = "layer"  # a key of norms
    config.norms = dict(
        none={},
        batch=dict(kind="batch", sites=("conv", "a")),
        # All units of a layer together, as eqs. 3-4 have it; a gain for each channel, or each unit.
        layer=dict(kind="layer", sites=("conv", "a"), over="layer", gains="channel"),
        layer_units=dict(kind="layer", sites=("conv", "a"), over="layer", gains="unit"),
        # Not the paper's: each position by itself, as later work does.
        layer_channels=dict(kind="layer", sites=("conv", "a"), over="position", gains="channel"),
    )
    config.channels = (32, 64)
    config.hidden = 128

    config.batch_size = 128
    config.steps = "20 epochs"
    config.optimizer = dict(kind="adam", b1=0.9, b2=0.999, eps=1e-8)
    config.lr = (1e-3,)
    config.schedule = dict(kind="constant", tau=0.0)  # or "inverse_sqrt": lr / √(1 + t/tau)
    config.clip = 0.0
    config.seeds = (0,)
    config.data_seed = -1  # each seed has its own order of the data; >= 0: one order for all

    config.log_every = "1 epoch"
    config.eval_every = "1 epoch"
    config.save_every = "5 epochs"
    config.select = dict(split="valid", metric="error", mode="min")
    config.steps_per_call = 33
    config.update(SCALES[scale])
    return config


SCALES = ConfigDict(
    dict(
        paper={},
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
        tiny=dict(
            dataset="digits",
            channels=(2, 3),
            hidden=4,
            batch_size=4,
            train_cases=8,
            steps="4 steps",
            log_every="1 step",
            eval_every="2 steps",
            save_every="2 steps",
            steps_per_call=2,
        ),
    )
)


def sweep():
    """The three norms that §6.7 compares and two further forms of layer norm; three seeds."""
    for norm in ("none", "batch", "layer", "layer_units", "layer_channels"):
        yield dict(norm=norm, seeds=(0, 1, 2))


# What scripts/report.py draws, tabulates and decides; the words are those of experiments/curves.py.

UNITS = dict(where={}, x="epoch", x_label="epoch", landmarks=(1, 2, 3, 5, 8, 10, 12, 15, 20))
ACTIVE = dict(
    UNITS,
    split="test",
    label="active [%]",
    times=100,
    digits=".1f",
    limits=(0.0, 60.0),
    summaries=(("mean", 1),),
)

FIGURES = (
    dict(
        name="convnet",
        title="Convolutional networks",
        caption="Negative log likelihood (NLL) of the training set and test error of a small "
        "convolutional network. Layer norm is over all units of a layer, with a gain for each "
        "channel; “units” has one for each unit, “channels” normalizes each position by itself, "
        "which is not in the paper. The paper has no figure of it.",
        source=None,
        columns=2,
        panels=(
            dict(
                UNITS,
                name="train_nll",
                title="training set",
                split="train",
                metric="nll",
                label="NLL [nats]",
                log=True,
                digits=".2g",
                limits=(1e-3, 1.0),
                summaries=(("mean", 3), ("min", 0)),
                levels=(0.3, 0.1, 0.03, 0.01, 0.003),
            ),
            dict(
                UNITS,
                name="test_error",
                title="test set",
                split="test",
                metric="error",
                label="error [%]",
                times=100,
                digits=".3f",
                limits=(0.5, 5.0),
                summaries=(("mean", 3), ("min", 0)),
            ),
        ),
    ),
    dict(
        name="convnet_activity",
        title="How often units are active",
        caption="In how many of the test cases a unit of the first convolutional layer is above 0, "
        "in the mean over the units at the border of the image and over all others. "
        "`python -m scripts.sample convnet` draws it for every position.",
        source=None,
        columns=2,
        panels=(
            dict(ACTIVE, name="border", title="at the border", metric="border_1"),
            dict(ACTIVE, name="inside", title="inside", metric="inside_1"),
        ),
    ),
)

MAIN = dict(panel="train_nll", length=1)  # the curve that sums it up; steps of a sequence

CLAIMS = (
    dict(
        number=27,
        text="In convolutional networks layer normalization is faster than no norm, and batch "
        "normalization faster than both.",
        source="§6.7",
        rule="claim_27",
    ),
    dict(
        number=28,
        text="That is because units near the border of the image are rarely active.",
        source="§6.7",
        rule="claim_28",
    ),
)

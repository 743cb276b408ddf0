"""Figures of §6.7 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, typed

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

FIGURES = typed(
    Figure,
    __name__,
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

MAIN = dict(panel="train_nll")  # the curve that sums it up

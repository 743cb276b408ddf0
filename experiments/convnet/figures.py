"""Curves of §6.7: training loss, test error and activity of a convolutional network."""

from experiments.curves import Figure, Panel, Style

EPOCHS: Style = dict(
    x="epoch", landmarks=(1, 2, 3, 5, 8, 10, 12, 15, 20), summaries=(("mean", 3), ("min", 0))
)
NATS: Style = dict(log=True, digits=".2g", limits=(1e-3, 1.0), levels=(0.3, 0.1, 0.03, 0.01, 0.003))
PERCENT: Style = dict(times=100, limits=(0.5, 5.0))
ACTIVE: Style = EPOCHS | dict(times=100, digits=".1f", limits=(0.0, 60.0), summaries=(("mean", 1),))

FIGURES = (
    Figure(
        name="convnet",
        title="Convolutional networks",
        caption="Negative log likelihood (NLL) of the training set and test error of a small "
        "convolutional network. Layer norm is over all units of a layer, with a gain for each "
        "channel; “units” has a gain for each unit; “channels”, which is not in the paper, "
        "normalizes each position separately. The paper has no figure of this experiment.",
        panels=(
            Panel("train_nll", "training set", "train", "nll", "NLL [nats]", **NATS, **EPOCHS),
            Panel("test_error", "test set", "test", "error", "error [%]", **PERCENT, **EPOCHS),
        ),
    ),
    Figure(
        name="convnet_activity",
        title="How often units are active",
        caption="Share of the test examples for which a unit of the first convolutional layer is "
        "above 0: the mean over the units at the border of the image, and over all other units.",
        panels=(
            Panel("border", "at the border", "test", "border_1", "active [%]", **ACTIVE),
            Panel("inside", "inside", "test", "inside_1", "active [%]", **ACTIVE),
        ),
    ),
)

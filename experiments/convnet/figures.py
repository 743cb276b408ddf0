"""Curves of §6.7: training loss, test error and activity of a convolutional network."""

from experiments.curves import Figure, Panel

EPOCHS = dict(x="epoch", landmarks=(1, 2, 3, 5, 8, 10, 12, 15, 20))
ACTIVE = dict(
    split="test",
    label="active [%]",
    times=100,
    digits=".1f",
    limits=(0.0, 60.0),
    summaries=(("mean", 1),),
)

FIGURES = (
    Figure(
        name="convnet",
        title="Convolutional networks",
        caption="Negative log likelihood (NLL) of the training set and test error of a small "
        "convolutional network. Layer norm is over all units of a layer, with a gain for each "
        "channel; “units” has a gain for each unit; “channels”, which is not in the paper, "
        "normalizes each position separately. The paper has no figure of this experiment.",
        panels=(
            Panel(
                **EPOCHS,
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
            Panel(
                **EPOCHS,
                name="test_error",
                title="test set",
                split="test",
                metric="error",
                label="error [%]",
                times=100,
                limits=(0.5, 5.0),
                summaries=(("mean", 3), ("min", 0)),
            ),
        ),
    ),
    Figure(
        name="convnet_activity",
        title="How often units are active",
        caption="Share of the test examples for which a unit of the first convolutional layer is "
        "above 0: the mean over the units at the border of the image, and over all other units. "
        "`python -m scripts.sample convnet` draws it for every position.",
        panels=(
            Panel(**EPOCHS, **ACTIVE, name="border", title="at the border", metric="border_1"),
            Panel(**EPOCHS, **ACTIVE, name="inside", title="inside", metric="inside_1"),
        ),
    ),
)

"""Figure 6 (§6.6): training loss and test error on MNIST at two batch sizes."""

from experiments.curves import Figure, Panel, Style

# Ours counts passes; the paper's epoch 0 is the end of the first.
EPOCHS: Style = dict(x="epoch", x_plus=-1, summaries=(("mean", 10), ("median", 20), ("min", 0)))
NLL: Style = dict(
    split="train",
    metric="nll",
    label="training NLL [nats]",
    log=True,
    limits=(1e-7, 1.0),
    digits=".2g",
    landmarks=(0, 1, 2, 5, 10, 15, 20, 21, 22, 25, 30, 38, 40, 42, 45, 50, 64),
    levels=(1e-2, 1e-3, 1e-4, 1e-6),
)
ERROR: Style = dict(
    split="test",
    metric="error",
    label="test error [%]",
    times=100,
    limits=(0.5, 2.5),
    landmarks=(0, 1, 2, 5, 10, 20, 22, 30, 40, 50, 64),
)
LARGE: Style = dict(title="batch size 128", where=dict(batch_size=128))
SMALL: Style = dict(title="batch size 4", where=dict(batch_size=4))

FIGURES = (
    Figure(
        name="figure_6",
        title="Figure 6: permutation invariant MNIST",
        caption="Negative log likelihood (NLL) of the training set and test error; in the paper of "
        "a 784-1000-1000-10 network on MNIST. Epoch 0 is the end of the first pass.",
        source="Ba, Kiros and Hinton (2016), figure 6. The paper does not say what its bands are; "
        "every edge of them is on the grid of one error in 10,000 and the line midway, as with "
        "two runs",
        panels=(
            Panel(**EPOCHS, **NLL, **LARGE, name="nll_batch128"),
            Panel(**EPOCHS, **NLL, **SMALL, name="nll_batch4"),
            Panel(**EPOCHS, **ERROR, **LARGE, name="error_batch128"),
            Panel(**EPOCHS, **ERROR, **SMALL, name="error_batch4"),
        ),
    ),
)

"""Figure 4 (§6.4): test bound of DRAW."""

from experiments.curves import Figure, Panel, Style

BOUND: Style = dict(
    digits=".2f",
    limits=(80.0, 100.0),
    x="epoch",
    # The figure ends before the last two.
    landmarks=(10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95, 100, 105, 150, 200),
    levels=(95.0, 90.0, 88.0, 87.0, 86.0, 85.0, 84.5, 84.0),
)

FIGURES = (
    Figure(
        name="figure_4",
        title="Figure 4: DRAW on binarized MNIST",
        caption="Variational bound of the test set, an upper bound of −log p(x), here with one "
        "sample of z per image. An importance-weighted estimate of k samples is tighter, and still "
        "an upper bound. Epoch 1 is the end of the first pass. Batch norm is not in the paper.",
        source="Ba, Kiros and Hinton (2016), figure 4, which ends at epoch 108, eight beyond its "
        "axis; only their text gives 82.36 and 82.09 nats after 200 epochs",
        panels=(Panel("bound", "DRAW", "test", "bound", "test bound [nats]", **BOUND),),
    ),
)

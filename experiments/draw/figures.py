"""Figures of §6.4 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, typed

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="figure_4",
        title="Figure 4: DRAW on binarized MNIST",
        caption="Variational bound of the test set, an upper bound of −log p(x), here with one "
        "sample of z per image. An importance-weighted estimate of k samples is tighter, and still "
        "an upper bound. Epoch 1 is the end of the first pass. Batch norm is ours alone.",
        source="Ba, Kiros and Hinton (2016), figure 4, which ends at epoch 108, eight beyond its "
        "axis; 82.36 and 82.09 nats after 200 epochs stand in their text alone",
        columns=1,
        panels=(
            dict(
                name="bound",
                title="DRAW",
                where={},
                split="test",
                metric="bound",
                label="test bound [nats]",
                digits=".2f",
                limits=(80.0, 100.0),
                x="epoch",
                x_label="epoch",
                landmarks=(
                    *(10, 12, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95, 100, 105),
                    *(150, 200),  # beyond the figure
                ),
                summaries=(("median", 10), ("min", 0)),
                levels=(95.0, 90.0, 88.0, 87.0, 86.0, 85.0, 84.5, 84.0),
            ),
        ),
    ),
)

MAIN = dict(panel="bound")  # the curve that sums it up

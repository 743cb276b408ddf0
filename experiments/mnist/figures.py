"""Figures of §6.6 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, typed

LANDMARKS = dict(
    nll=(0, 1, 2, 5, 10, 15, 20, 21, 22, 25, 30, 38, 40, 42, 45, 50, 64),
    error=(0, 1, 2, 5, 10, 20, 22, 30, 40, 50, 64),
)

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="figure_6",
        title="Figure 6: permutation invariant MNIST",
        caption="Negative log likelihood (NLL) of the training set and test error; in the paper of "
        "a 784-1000-1000-10 network on MNIST. Epoch 0 is the end of the first pass.",
        source="Ba, Kiros and Hinton (2016), figure 6. The paper does not say what its bands are; "
        "every edge of them lies on the grid of one error in 10,000 and the line midway, as with "
        "two runs",
        columns=2,
        panels=tuple(
            dict(
                axes,
                name=f"{axes['metric']}_batch{batch_size}",
                title=f"batch size {batch_size}",
                where=dict(batch_size=batch_size),
                x="epoch",
                x_plus=-1,
                x_label="epoch",
                landmarks=LANDMARKS[axes["metric"]],
                summaries=(("mean", 10), ("median", 20), ("min", 0)),
            )
            for axes in (
                dict(
                    split="train",
                    metric="nll",
                    label="training NLL [nats]",
                    log=True,
                    limits=(1e-7, 1.0),
                    digits=".2g",
                    levels=(1e-2, 1e-3, 1e-4, 1e-6),
                ),
                dict(
                    split="test",
                    metric="error",
                    label="test error [%]",
                    times=100,
                    limits=(0.5, 2.5),
                    digits=".3f",
                ),
            )
            for batch_size in (128, 4)
        ),
    ),
)

MAIN = dict(panel="nll_batch128")  # the curve that sums it up

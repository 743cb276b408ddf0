"""Figures of §6.5 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, typed

LANDMARKS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900)

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="figure_5",
        title="Figure 5: handwriting synthesis",
        caption="Negative log likelihood (NLL) of a line, all its points added up. Training: of "
        "the training batches; ours the mean since the reading before, the paper's of single "
        "ones, it seems. A unit of the x axis is 200 updates. NLL is that of a density, so it may "
        "be below 0, and it depends on the scale of the data, on how densely the pen was sampled "
        "and on how long the lines are: numbers on other data cannot be compared with the paper's, "
        "which are on IAM-OnDB. Batch norm is ours alone.",
        source="Ba, Kiros and Hinton (2016), figure 5, which does not say what its NLL is of: by "
        "its size, of lines of up to 500 points, in nats; training with layer norm is drawn to "
        "unit 282",
        columns=2,
        panels=tuple(
            dict(
                axes,
                where={},
                metric="nll",
                label="NLL [nats per line]",
                digits=".1f",
                limits=(-900.0, 0.0),
                x="step",
                x_per=200,
                x_label="unit (200 updates)",
                x_log=True,
                landmarks=LANDMARKS,
            )
            for axes in (
                dict(
                    name="test",
                    title="test",
                    split="test",
                    summaries=(("median", 10), ("min", 0)),
                    levels=(-500.0, -600.0, -700.0, -750.0, -770.0, -800.0),
                ),
                # No levels and no minimum: those of single batches would be chance.
                dict(
                    name="train",
                    title="training",
                    split="update",
                    summaries=(("median", 10),),
                ),
            )
        ),
    ),
)

MAIN = dict(panel="test")  # the curve that sums it up

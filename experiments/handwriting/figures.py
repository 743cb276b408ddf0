"""Figure 5 (§6.5): log likelihood of handwriting synthesis."""

from experiments.curves import Figure, Panel, Style

NLL: Style = dict(
    digits=".1f",
    limits=(-900.0, 0.0),
    x_per=200,
    x_log=True,
    landmarks=(1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900),
)
LEVELS = -500.0, -600.0, -700.0, -750.0, -770.0, -800.0
SINGLE: Style = dict(summaries=(("median", 10),))

FIGURES = (
    Figure(
        name="figure_5",
        title="Figure 5: handwriting synthesis",
        caption="Negative log likelihood (NLL) of a line, summed over its points. Training: of the "
        "training batches; ours is the mean since the reading before, the paper's seems to be of "
        "single batches. NLL is that of a density, so it may be negative, and it depends on the "
        "scale of the data, on how densely the pen was sampled and on the length of the lines: "
        "numbers on other data cannot be compared with the paper's, which are on IAM-OnDB. Batch "
        "norm is not in the paper.",
        source="Ba, Kiros and Hinton (2016), figure 5, which does not say what its NLL is of: by "
        "its size, of lines of up to 500 points, in nats; training with layer norm is drawn up to "
        "282",
        panels=(
            Panel("test", "test", "test", "nll", "NLL [nats per line]", **NLL, levels=LEVELS),
            # No levels and no minimum: those of single batches would be chance.
            Panel("train", "training", "update", "nll", "NLL [nats per line]", **NLL, **SINGLE),
        ),
    ),
)

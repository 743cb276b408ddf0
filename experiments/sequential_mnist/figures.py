"""Validation error of sequential MNIST, about which the paper claims nothing."""

from experiments.curves import Figure, Panel, Style

ERROR: Style = dict(
    split="valid",
    metric="error",
    label="error [%]",
    times=100,
    digits=".2f",
    log=True,
    limits=(1.0, 90.0),
    x_log=True,
    landmarks=(500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000),
    summaries=(("min", 0),),
    levels=(0.5, 0.2, 0.1, 0.05, 0.03, 0.02),
)
IN_ORDER: Style = dict(title="pixels in order", where=dict(permuted=False))
PERMUTED: Style = dict(title="pixels permuted", where=dict(permuted=True))

FIGURES = (
    Figure(
        name="sequential_mnist",
        title="Sequential MNIST",
        caption="Validation error of an LSTM of 100 units that reads an image pixel by pixel. "
        "Cooijmans et al. trained 100,000 updates of 100 examples, one run each, without layer "
        "norm.",
        source="Cooijmans et al. (2016), validation curves of sequential MNIST; in their permuted "
        "form a third of the pixels never appear",
        panels=(
            Panel(**ERROR, **IN_ORDER, name="error_in_order"),
            Panel(**ERROR, **PERMUTED, name="error_permuted"),
        ),
    ),
)

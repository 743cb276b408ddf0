"""Figure of sequential MNIST, about which the paper claims nothing; see `experiments.curves`."""

from experiments.curves import Figure, typed

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="sequential_mnist",
        title="Sequential MNIST",
        caption="Validation error of an LSTM of 100 units that reads an image pixel by pixel. "
        "Cooijmans et al. trained 100,000 updates of 100 cases, one run each, without layer norm.",
        source="Cooijmans et al. (2016), validation curves of sequential MNIST; in their permuted "
        "form a third of the pixels never appear",
        columns=2,
        panels=tuple(
            dict(
                name=name,
                title=title,
                where=dict(permuted=permuted),
                split="valid",
                metric="error",
                label="validation error [%]",
                times=100,
                digits=".2f",
                log=True,
                limits=(1.0, 90.0),
                x="step",
                x_label="update",
                x_log=True,
                landmarks=(500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000),
                summaries=(("min", 0),),
                levels=(0.5, 0.2, 0.1, 0.05, 0.03, 0.02),
            )
            for name, title, permuted in (
                ("error_in_order", "pixels in order", False),
                ("error_permuted", "pixels permuted", True),
            )
        ),
    ),
)

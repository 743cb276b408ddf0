"""Where in the image the units of a convolutional network are active."""

import numpy as np

from experiments.pictures import DPI, png
from ln.errors import choose

SIDE = 300  # pixels of a picture


def sample(task, variables, *, split: str = "test") -> dict[str, bytes | str]:
    """Returns the files by name.

    Args:
        variables: of one lane.
        split: the images that it looks at.

    Raises:
        InputError: no such split.
    """
    x = choose("split", split, task.splits)["x"]
    activity = [np.asarray(layer) for layer in task.activity(variables, x)]
    return {"activity.png": picture(activity, split, len(x)), "activity.txt": table(activity)}


def picture(activity: list[np.ndarray], split: str, N: int) -> bytes:
    """How often units are active at each position, a layer beside the other, in one scale."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=((SIDE * len(activity) + 90) / DPI, (SIDE + 70) / DPI),
        dpi=DPI,
        layout="constrained",
    )
    most = 100 * max(layer.max() for layer in activity)
    axes = figure.subplots(1, len(activity), squeeze=False)[0]
    for k, (ax, layer) in enumerate(zip(axes, activity, strict=True), start=1):
        image = ax.imshow(100 * layer, vmin=0, vmax=most, cmap="viridis")
        ax.set_title(f"layer {k}", fontsize=10)
        ax.set_xlabel("column")
        ax.set_ylabel("row")
    figure.colorbar(image, ax=axes.tolist(), label=f"of {N:,} images ({split}), active in [%]")
    return png(figure)


def table(activity: list[np.ndarray]) -> str:
    """The same in numbers, by distance from the border."""
    lines = ["How often units are active, in percent, by distance from the border of the image."]
    for k, layer in enumerate(activity, start=1):
        height, width = layer.shape
        row, column = np.indices(layer.shape)
        distance = np.minimum.reduce([row, height - 1 - row, column, width - 1 - column])
        shares = [100 * layer[distance == d].mean() for d in range(distance.max() + 1)]
        lines.append(f"layer {k}: " + ", ".join(f"{d}: {s:.1f}" for d, s in enumerate(shares)))
    return "\n".join([*lines, ""])

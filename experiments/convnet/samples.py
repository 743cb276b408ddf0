"""Show where in the image the units of a convolutional network are active.

python -m scripts.sample convnet --workdir=runs/x

activity.png           how often units are active, at each position of each convolutional layer
"""

import dataclasses

import numpy as np

from experiments.pictures import DPI, option, png
from ln.errors import choose

SIDE = 300  # pixels of a picture


@dataclasses.dataclass(frozen=True)
class Options:
    split: str = option("test", "split of the images")


def sample(task, variables, options: Options) -> dict[str, bytes]:
    """Return the files by name.

    Args:
        variables: of one lane.

    Raises:
        InputError: no such split.
    """
    x = choose("split", options.split, task.splits)["x"]
    activity = [np.asarray(layer) for layer in task.activity(variables, x)]
    about = f"of {len(x):,} images ({options.split}), active in [%]"
    return {"activity.png": picture(activity, about)}


def picture(activity: list[np.ndarray], about: str) -> bytes:
    """Draw how often units are active at each position, the layers side by side in one scale."""
    from matplotlib.figure import Figure

    size = (SIDE * len(activity) + 90) / DPI, (SIDE + 70) / DPI
    figure = Figure(size, dpi=DPI, layout="constrained")
    most = 100 * max(layer.max() for layer in activity)
    axes = figure.subplots(1, len(activity), squeeze=False)[0]
    for k, (ax, layer) in enumerate(zip(axes, activity, strict=True), start=1):
        image = ax.imshow(100 * layer, vmin=0, vmax=most, cmap="viridis")
        ax.set_title(f"layer {k}", fontsize=10)
        ax.set_xlabel("column")
        ax.set_ylabel("row")
    figure.colorbar(image, ax=axes.tolist(), label=about)
    return png(figure)

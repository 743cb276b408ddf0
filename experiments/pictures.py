"""What the pictures of all experiments share."""

import io

DPI = 100  # so that a length in pixels is a hundred times one in matplotlib's inches
POINT = 72 / DPI  # matplotlib's unit of fonts and lines, of which an inch has 72, per pixel


def png(figure) -> bytes:
    """A matplotlib figure as a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()

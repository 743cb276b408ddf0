"""Share what samples.py files need: options, pictures, and pages of text.

A samples.py has a dataclass `Options`, whose fields are made with `option` and become the flags of
`python -m scripts.sample NAME`, and a function `sample(task, variables, options)`, which returns
the files by name.
"""

import base64
from collections.abc import Sequence
import dataclasses
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DPI = 100  # so that a length in pixels is a hundred times one in matplotlib's inches
POINT = 72 / DPI  # matplotlib's unit of fonts and lines, of which an inch has 72, per pixel
LARGEST = 10_000  # pixels; a PNG beyond this is made smaller

GOOD, BAD, QUIET = "good", "bad", "quiet"  # marks of texts: classes of samples.html


def option(default, help: str, **limits) -> Any:
    """Return a field of `Options`.

    Args:
        default: the value without the flag.
        help: its text in `--help`.
        limits: as in absl's flags, such as lower_bound=1.
    """
    return dataclasses.field(default=default, metadata=dict(help=help, **limits))


def png(figure) -> bytes:
    """Return a matplotlib figure as a PNG of at most LARGEST pixels a side."""
    file, most = io.BytesIO(), LARGEST / max(figure.get_size_inches())
    figure.savefig(file, format="png", dpi=min(figure.dpi, most))
    return file.getvalue()


def encoded(image, kind: str = "PNG", **options) -> bytes:
    """Return the bytes of a file of an image of PIL."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


class Text(NamedTuple):
    """A word or more.

    Attributes:
        mark: GOOD, BAD, QUIET or none.
        shade: of the background, from 0 to 1, the darkest.
    """

    text: str
    mark: str = ""
    shade: float = 0.0


class Item(NamedTuple):
    """An entry of a list: a number in words, what it is about, and perhaps its picture (uint8)."""

    number: str
    text: Text
    picture: np.ndarray | None = None


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        paragraphs: texts beside each other.
        lists: (title, items).
        picture: uint8 ``[height, width]``.
    """

    title: Text
    paragraphs: Sequence[Sequence[Text]] = ()
    lists: Sequence[tuple[str, Sequence[Item]]] = ()
    picture: np.ndarray | None = None


def html(title: str, about: str, sections: Sequence[Section]) -> str:
    """Return a page as a self-contained file, without scripts."""
    return _render("samples.html", title=title, about=about, sections=sections)


def plain(title: str, about: str, sections: Sequence[Section]) -> str:
    """Return a page as text, with a star before what is marked GOOD; pictures are left out."""
    return _render("samples.txt", title=title, about=about, sections=sections)


def _render(template: str, **page) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(),  # in .html alone
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["address"] = _address
    return environment.get_template(template).render(page)


def _address(picture: np.ndarray) -> str:
    """Return grey values (uint8 ``[height, width]``) as the address of an image in a page."""
    from PIL import Image

    return f"data:image/png;base64,{base64.b64encode(encoded(Image.fromarray(picture))).decode()}"

"""The built-in stand-in for the books of §6.3: the documentation of Python and of its library.

A book is a topic of `help()`, or all docstrings of one file of the standard library. The books
differ a little between versions of Python.
"""

import ast
from collections.abc import Iterator
import inspect
from pathlib import Path
from pydoc_data.topics import topics
import re
import sysconfig
import tempfile

from experiments.datasets import Dataset, arrays, text
from experiments.datasets.corpora import books

LANGUAGE = "language"  # the names of topics begin with it
SKIPPED = frozenset(
    ("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__")
    + ("site-packages", "dist-packages")
)
MARKUP = re.compile(r":[\w:+-]+:(?=`)|[`*|]+|(?<=\w)_(?=\W)")  # :func:`name`, ``code``, *emphasis*
PROSE = re.compile(r"[A-Z][^>{}=\\_<]*[.!?:]")
MOST_MARKS = 0.08  # of a paragraph's characters; more are in signatures and tables


def paragraphs(documentation: str) -> Iterator[str]:
    """Yield the prose of a documentation text: no code, tables, lists or headings."""
    for block in re.split(r"\n\s*\n", documentation):
        lines = block.split("\n")
        indents = {len(line) - len(line.lstrip()) for line in lines}
        words = MARKUP.sub("", " ".join(line.strip() for line in lines)).split()
        paragraph = " ".join(words)
        marks = len(re.findall(r"[^\w\s.,']", paragraph))
        is_prose = len(indents) == 1 and len(words) > 3 and PROSE.fullmatch(paragraph)
        if is_prose and marks <= MOST_MARKS * len(paragraph):
            yield paragraph


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a source file in their order. Nothing is run."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def all_books() -> Iterator[tuple[str, list[str]]]:
    """Yield names and sentences of all books: "language/if", "asyncio/streams"."""
    for name in sorted(topics):
        yield f"{LANGUAGE}/{name}", sentences([inspect.cleandoc(topics[name])])
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder).with_suffix("")
        if not SKIPPED & set(place.parts):
            yield place.as_posix(), sentences(docstrings(path))


def sentences(documentation) -> list[str]:
    """Return the sentences of documentation texts, each once."""
    return list(
        dict.fromkeys(s for t in documentation for p in paragraphs(t) for s in text.sentences(p))
    )


def make() -> arrays.Splits:
    """Return the documentation as books, of which a few are held out."""
    return books.make((book for _, book in all_books()), Path(tempfile.gettempdir()))


DATASET = Dataset(title="the documentation of this Python", stands_for="books", make=make)

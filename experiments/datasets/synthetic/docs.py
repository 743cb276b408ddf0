"""English that every Python brings along: the documentation of its language and of its library;
built in. It stands in for the books of §6.3.

A book is a topic of `help()`, or all docstrings of one file of the standard library. Which there
are, and what they say, differs a little between versions of Python.
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

LANGUAGE = "language"  # what names of topics begin with
SKIPPED = frozenset(
    ("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__")
    + ("site-packages", "dist-packages")
)
MARKUP = re.compile(r":[\w:+-]+:(?=`)|[`*|]+|(?<=\w)_(?=\W)")  # :func:`name`, ``code``, *emphasis*
PROSE = re.compile(r"[A-Z][^>{}=\\_<]*[.!?:]")
MOST_MARKS = 0.08  # of a paragraph's characters; more are in signatures and tables


def paragraphs(documentation: str) -> Iterator[str]:
    """What is prose of a documentation text: no code, tables, lists or headings."""
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
    """Those of a source file, of its classes and of its functions, in order. Nothing is run."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def all_books() -> Iterator[tuple[str, list[str]]]:
    """Names and sentences: "language/if", "asyncio/streams"; those that have some."""
    for name in sorted(topics):
        yield f"{LANGUAGE}/{name}", sentences([inspect.cleandoc(topics[name])])
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).with_suffix("")
        if not SKIPPED & set(name.parts):
            yield name.as_posix(), sentences(docstrings(path))


def sentences(documentation) -> list[str]:
    """The sentences of documentation texts, each once."""
    found = (s for t in documentation for p in paragraphs(t) for s in text.sentences(p))
    return list(dict.fromkeys(found))


def make() -> arrays.Splits:
    """Return the documentation as books, of which a few are held out."""
    return books.make((book for _, book in all_books()), Path(tempfile.gettempdir()))


DATASET = Dataset(title="the documentation of this Python", stands_for="books", make=make)

"""Read text files as lines, and split English text into sentences and words."""

import codecs
from collections.abc import Iterator
import io
import re
from typing import IO, Any

from ln.errors import InputError

# Invisible marks. A byte order mark can be anywhere in a file that was joined from several.
_CLEAN = dict.fromkeys(map(ord, "\ufeff\u200b\u2060"))
# Half a pair of UTF-16, as JSON's "\ud83d" makes it: it is no character and has no UTF-8.
_CLEAN |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes, as the error handler surrogateescape keeps them

# Typographic characters and how a typewriter writes them; also the quotes of Treebank's files.
_PLAIN: dict[int, Any] = str.maketrans(
    {
        **dict.fromkeys("‘’‚′", "'"),
        **dict.fromkeys("“”„″«»", '"'),
        **dict.fromkeys("‐‑", "-"),
        **dict.fromkeys("–—―", " -- "),
        "…": " ... ",
        "\u00ad": "",  # a soft hyphen, where a word may break at the end of a line
        "_": " ",  # of _emphasis_
    }
)
_PLAIN |= _CLEAN

ENDINGS = "(?:s|m|d|re|ve|ll)"  # of it's, I'm, he'd, …
WORD = r"[^\W_]+"
TOKEN = re.compile(
    rf"""
      \.\.\.+ | --+
    | \d+ (?:[.,:]\d+)+ %?                                # 1,000.5 and 12:30
    | (?:mr|mrs|ms|dr|st|messrs|prof|rev|hon|capt|col|gen|lt|sgt|jr|sr|esq) \.
    | (?:[a-z]\.){{2,}}                                   # u.s.
    | {WORD} (?:-{WORD})* (?=n't\b) | n't\b               # do n't
    | '{ENDINGS}\b                                        # it 's
    | {WORD} (?: -{WORD} | '(?!{ENDINGS}\b|t\b){WORD} )*  # well-known, o'clock
    | [^\w\s]
    """,
    re.VERBOSE,
)

# A sentence ends with a stop and closing quotes or brackets if a capital or a number follows.
STOP = re.compile(r"""[.!?…]+['"’”)\]]*\s+(?=['"‘“(\[]*[A-Z0-9])""")
ABBREVIATION = re.compile(
    r"""(?:^|[\s'"‘“(\[—-]) (?:
        (?:Mr|Mrs|Ms|Mme|Mlle|Dr|St|Messrs|Prof|Rev|Hon|Capt|Col|Gen|Lt|Sgt|Jr|No|Vol|Fig|cf|vs|e\.g|i\.e)
        | [A-Z](?:\.[A-Z])*                               # initials
    ) \.\s+$""",
    re.VERBOSE,
)


def clean(text: str) -> str:
    """Return a text without invisible marks; halves of a character become U+FFFD."""
    return text if text.isascii() else text.translate(_CLEAN)


def lines(file: IO[bytes], name: str, legacy: str | None = None) -> Iterator[str]:
    """Yield the lines of an open UTF-8 file, clean and without blanks at either end.

    A line ends with a newline, a carriage return or both. The file is read in pieces.

    Args:
        file: the open file.
        name: what error messages call it.
        legacy: the encoding of lines that are not UTF-8.

    Raises:
        InputError: a line is in neither encoding; the message names it.
    """
    decoded = io.TextIOWrapper(file, "utf-8", errors="surrogateescape")
    for n, line in enumerate(decoded, start=1):
        if not line.isascii() and _NOT_UTF8.search(line):
            data = line.encode("utf-8", "surrogateescape").replace(codecs.BOM_UTF8, b"")
            try:
                line = data.decode(legacy or "utf-8")
            except UnicodeDecodeError as error:
                wrong = error.object[error.start : error.end]
                raise InputError(
                    f"{name}, line {n:,}: {wrong!r} is not UTF-8. Convert the file, as by "
                    "`iconv -f WINDOWS-1252 -t UTF-8`."
                ) from error
        yield clean(line).strip()


def filled(file: IO[bytes], name: str, legacy: str | None = None) -> list[str]:
    """Return the `lines` that are not blank.

    Raises:
        InputError: there are none, or a line is in neither encoding.
    """
    if not (kept := list(filter(None, lines(file, name, legacy)))):
        raise InputError(f"{name} has no text.")
    return kept


def tokenize(text: str) -> list[str]:
    """Return the words of a text in lower case and its punctuation marks.

    The rules are much like those of the Penn Treebank: "it", "'s"; "do", "n't"; "mr.". Tokens that
    are joined by spaces give the same tokens again, and each piece between spaces gives the same
    tokens alone.
    """
    text = text.translate(_PLAIN).replace("``", '"').replace("''", '"')
    return TOKEN.findall(text.lower())


def sentences(paragraph: str) -> Iterator[str]:
    """Yield the sentences of a paragraph, with the quotes and brackets that close behind them."""
    first = 0
    for stop in STOP.finditer(paragraph):
        before = paragraph[max(first, stop.start() - 12) : stop.end()]
        if not ABBREVIATION.search(before):
            yield paragraph[first : stop.end()].strip()
            first = stop.end()
    if rest := paragraph[first:].strip():
        yield rest

"""Running English text as sentences and words."""

from collections.abc import Iterator
import re

# What typesetters use, as a typewriter has it; the quotes of Treebank's files as well.
_PLAIN = {
    **dict.fromkeys("‘’‚′", "'"),
    **dict.fromkeys("“”„″«»", '"'),
    **dict.fromkeys("‐‑", "-"),
    **dict.fromkeys("–—―", " -- "),
    "…": " ... ",
    "\u00ad": "",  # where a word may be broken at the end of a line
    "_": " ",  # of _emphasis_
}
PLAIN = str.maketrans(_PLAIN)

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

# A sentence ends with a stop and what closes there, if what follows begins like one.
STOP = re.compile(r"""[.!?…]+['"’”)\]]*\s+(?=['"‘“(\[]*[A-Z0-9])""")
ABBREVIATION = re.compile(
    r"""(?:^|[\s'"‘“(\[—-]) (?:
        (?:Mr|Mrs|Ms|Mme|Mlle|Dr|St|Messrs|Prof|Rev|Hon|Capt|Col|Gen|Lt|Sgt|Jr|No|Vol|Fig|cf|vs|e\.g|i\.e)
        | [A-Z](?:\.[A-Z])*                               # initials
    ) \.\s+$""",
    re.VERBOSE,
)


def tokenize(text: str) -> list[str]:
    """The words of a text in lower case, and its punctuation marks, much as in the Penn Treebank:
    "it", "'s"; "do", "n't"; "mr.". Tokens with spaces in between give the same tokens, and what is
    between spaces gives the same alone.
    """
    text = text.translate(PLAIN).replace("``", '"').replace("''", '"')
    return TOKEN.findall(text.lower())


def sentences(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph, with the quotes and brackets that close behind their ends."""
    first = 0
    for stop in STOP.finditer(paragraph):
        before = paragraph[max(first, stop.start() - 12) : stop.end()]
        if not ABBREVIATION.search(before):
            yield paragraph[first : stop.end()].strip()
            first = stop.end()
    if rest := paragraph[first:].strip():
        yield rest

"""IAM-OnDB: lines of English, written by 221 people on a whiteboard (Liwicki and Bunke 2005).

It is given to who registers, so that no command downloads it. These files are read, the archives as
they are or unpacked; or one archive that holds it all, .tar.gz, .tar.xz or .tar:

    lineStrokes-all.tar.gz   lineStrokes/a01/a01-000/a01-000u-01.xml   line 1 of the form a01-000u:
                             <Stroke>s of <Point x="1073" y="1058" time="769.05"/>
    ascii-all.tar.gz         ascii/a01/a01-000/a01-000u.txt            what was written in the form:
                             below "CSR:" a line of text for each of its lines
    trainset.txt             names of forms, one a line, of the task IAM-OnDB-t1
    testset_v.txt            the same of its first validation set; a writer is in one list only
    testset_t.txt            of its second, larger one
    testset_f.txt            of its final test set

The paper does not say what it trained and tested on. Graves (2013, section 4) trained on trainset,
testset_f and testset_t, 10,741 lines, and stopped by and reported testset_v, 1,438 lines. Ours are
tested on testset_v too, but what is decided by looking is decided on testset_t:

    train   trainset and testset_f   9,223 lines, 86 % of Graves'
    valid   testset_t                1,518
    test    testset_v                1,438

Lines that cannot be used are left out and counted: see `strokes_of`, `texts_of`, `lines_of` and
`without_outliers` for what those are.

Prepared: the arrays of `experiments.datasets.lines`.
"""

from collections import Counter
import dataclasses
import re
from xml.etree import ElementTree

import numpy as np

from experiments.datasets import Dataset, arrays, lines
from experiments.datasets.originals import Source, table_of
from ln.errors import InputError

SPLITS = {  # split -> lists
    "train": ("trainset.txt", "testset_f.txt"),
    "valid": ("testset_t.txt",),
    "test": ("testset_v.txt",),
}
LISTS = tuple(name for names in SPLITS.values() for name in names)
STROKES, TEXTS = "lineStrokes", "ascii"
FORM = "[a-z][0-9]{2}-[0-9]{3}[a-z]?"
NAME = re.compile(  # of a file that is read, in whichever folder
    rf"(?:.*/)?(?:(?P<list>{'|'.join(map(re.escape, LISTS))})"
    rf"|(?P<form>{FORM})(?:\.txt|-(?P<number>[0-9]{{2}})\.xml))"
)
ARCHIVE = re.compile(f"(?:{STROKES}|{TEXTS})-all" + r"\.tar(?:\.gz)?")

DROPPED_AT_MOST = 0.1  # of the lines of a split
# So far the pen jumps to a second row of text, or back over half a line to a forgotten dot; all
# else is noise. sjvasquez/handwriting-synthesis leaves out lines with an offset above 60 times the
# line's own median. That suits IAM-OnDB's whiteboard, but not denser points: where a tablet takes
# more of them a second, or a hand is slow, it is the gap between two words.
OUTLIER = 100  # times the median length of an offset in the training set


class Unusable(ValueError):
    """A line cannot be used. The message is the reason, in the words of the summary."""


Named = dict[str, lines.Line | Unusable]  # "a01-000u-01" -> the line, or why it cannot be used


@dataclasses.dataclass
class Corpus:
    """What the files hold.

    Attributes:
        forms: list -> the forms in it.
        texts: form -> the text of each line, or why there is none.
        points: form -> number of a line, from 1 -> its `lines.offsets`, or why there are none.
    """

    forms: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    texts: dict[str, list[str] | Unusable] = dataclasses.field(default_factory=dict)
    points: dict[str, dict[int, np.ndarray | Unusable]] = dataclasses.field(default_factory=dict)


def read(source: Source) -> arrays.Splits:
    """Return the splits of a folder or archive. Print what was left out, and why.

    Raises:
        InputError: a file is missing or damaged, or too many lines cannot be used.
    """
    corpus = read_files(source)
    named: dict[str, Named] = {split: {} for split in SPLITS}
    for split, names in SPLITS.items():
        for name in names:
            for form in corpus.forms[name]:
                named[split] |= lines_of(corpus, form)
    named = without_outliers(named)
    for split in SPLITS:
        check(split, named[split])
    used = {split: [line for line in named[split].values() if is_usable(line)] for split in SPLITS}
    scale = lines.scale_of(used["train"])
    splits = {split: lines.pack(used[split], scale) for split in SPLITS}
    print(summary(named, splits))
    unlisted = corpus.points.keys() - {form for forms in corpus.forms.values() for form in forms}
    if unlisted:
        count = sum(len(corpus.points[form]) for form in unlisted)
        print(f"  besides, {count:,} lines of {len(unlisted):,} forms that are in no list")
    return splits


def is_usable(found) -> bool:
    return not isinstance(found, Unusable)


# --- Files ---


def read_files(source: Source) -> Corpus:
    """Return the contents of all files of a folder or archive.

    Raises:
        InputError: one is missing, damaged, or a list of something else, or a form is in two lists.
    """
    corpus = Corpus()
    for name, file in source.files(NAME, ARCHIVE):
        match = NAME.fullmatch(name)
        assert match
        form, number = match["form"], match["number"]
        # The first counts: archives that lie beside what was unpacked from them come last.
        if match["list"]:
            if match["list"] not in corpus.forms:
                corpus.forms[match["list"]] = forms_of(match["list"], file.read())
        elif number:
            points = corpus.points.setdefault(form, {})
            if int(number) not in points:
                points[int(number)] = strokes_of(file.read())
        elif form not in corpus.texts:
            corpus.texts[form] = texts_of(file.read())
    missing = [name for name in LISTS if name not in corpus.forms]
    missing += [] if corpus.points else [f"files of {STROKES}"]
    missing += [] if corpus.texts else [f"files of {TEXTS}"]
    if missing:
        raise InputError(f"{source.path} has no {', '.join(missing)}.")
    list_of: dict[str, str] = {}
    for name in LISTS:
        for form in corpus.forms[name]:
            if list_of.setdefault(form, name) != name:
                raise InputError(f"{source.path}: {form} is in {list_of[form]} and in {name}.")
    return corpus


def forms_of(name: str, data: bytes) -> list[str]:
    """The forms in a list.

    Raises:
        InputError: it is empty, or a list of something else.
    """
    forms = rows(data)
    for form in forms:
        if not re.fullmatch(FORM, form):
            raise InputError(f"{name} must name forms like a01-000u, not {form[:20]!r}.")
    if not forms:
        raise InputError(f"{name} must name forms like a01-000u; it is empty.")
    return forms


def rows(data: bytes) -> list[str]:
    """The lines of a text file that are not blank, without the blanks around them."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    # Not splitlines: it would take more characters for ends of lines, some of them Latin-1's.
    return [row.strip() for row in re.split(r"[\r\n]+", text) if row.strip()]


def texts_of(data: bytes) -> list[str] | Unusable:
    """The text of each line of a form, from its transcript; unusable without text below "CSR:"."""
    # In some transcripts a row of percent signs stands for an end of line (sjvasquez).
    found = rows(re.sub(rb"%{5,}", b"\n", data))
    texts = found[found.index("CSR:") + 1 :] if "CSR:" in found else []
    return texts or Unusable("transcript without CSR text")


def strokes_of(data: bytes) -> np.ndarray | Unusable:
    """The `lines.offsets` of a line, from its XML; strokes without points are passed over.

    Unusable is what is no XML, a point without coordinates, and a line of fewer than two points.
    """
    try:
        strokes = [
            np.array([(float(point.attrib["x"]), float(point.attrib["y"])) for point in stroke])
            for stroke in ElementTree.fromstring(data).iter("Stroke")
            if len(stroke)
        ]
    except (ElementTree.ParseError, LookupError, ValueError):  # no such encoding or attribute
        return Unusable("unreadable XML")
    if not all((abs(stroke) < 2**24).all() for stroke in strokes):  # what float32 still counts by 1
        return Unusable("unreadable XML")
    if sum(map(len, strokes)) < 2:
        return Unusable("fewer than two points")
    return lines.offsets(strokes)


# --- Lines ---


def lines_of(corpus: Corpus, form: str) -> Named:
    """The lines of a form.

    None can be used without a transcript, or with one of more or fewer lines than there are files:
    nobody knows then which text is whose. A form without strokes has the lines of its transcript.
    """
    texts = corpus.texts.get(form, Unusable("no transcript"))
    points = corpus.points.get(form, {})
    found: dict[int, lines.Line | Unusable]
    if isinstance(texts, Unusable):
        found = dict.fromkeys(points or [1], texts)
    elif not points:
        found = dict.fromkeys(range(1, len(texts) + 1), Unusable("no strokes"))
    elif sorted(points) != list(range(1, len(texts) + 1)):
        found = dict.fromkeys(points, Unusable("transcript of other length"))
    else:
        found = {k: (p, texts[k - 1]) if is_usable(p) else p for k, p in points.items()}
    return {f"{form}-{number:02d}": found[number] for number in sorted(found)}


def without_outliers(named: dict[str, Named]) -> dict[str, Named]:
    """The same, where a line with an offset above OUTLIER cannot be used."""

    def lengths(line: lines.Line) -> np.ndarray:
        return np.hypot(*line[0][1:, :2].T)

    train = [lengths(line) for line in named["train"].values() if is_usable(line)]
    if not train:  # `check` will refuse it
        return named
    limit = OUTLIER * np.median(np.concatenate(train))
    far = Unusable(f"offset > {OUTLIER} medians")
    return {
        split: {
            name: far if is_usable(line) and lengths(line).max() > limit else line
            for name, line in found.items()
        }
        for split, found in named.items()
    }


def check(split: str, found: Named) -> None:
    """Refuses a split of which too many lines cannot be used.

    Raises:
        InputError: more than DROPPED_AT_MOST of them.
    """
    unusable = [f"{name} ({line})" for name, line in found.items() if not is_usable(line)]
    if len(unusable) > DROPPED_AT_MOST * len(found):
        examples = ", ".join(unusable[:3]) + (", …" if len(unusable) > 3 else "")
        raise InputError(
            f"Of the {len(found):,} lines of {split} {len(unusable):,} cannot be used, "
            f"more than {DROPPED_AT_MOST:.0%}: {examples}."
        )


def summary(named: dict[str, Named], splits: arrays.Splits) -> str:
    """A table of what was read, what was left out and why, and what is left."""
    unusable = {
        split: Counter(str(line) for line in found.values() if not is_usable(line))
        for split, found in named.items()
    }
    reasons = sorted(set().union(*unusable.values()))
    columns = {}
    for split, found in splits.items():
        count = len(found["point_starts"]) - 1
        points, text = len(found["points"]), found["text"]
        columns[split] = {
            "lines": f"{len(named[split]):,}",
            **{f"- {reason}": f"{unusable[split][reason]:,}" for reason in reasons},
            "left": f"{count:,}",
            "points": f"{points:,}",
            "points a line": f"{points / count:.0f}",
            "characters": f"{len(text):,}",
            "characters of class 0": f"{np.mean(text == 0):.1%}",
        }
    return table_of(columns)


DATASET = Dataset(
    title="handwriting in the layout of IAM-OnDB",
    read=read,
    needs=f"{STROKES}-all.tar.gz and {TEXTS}-all.tar.gz, as they are or unpacked, and "
    f"{', '.join(LISTS)}, in a folder or an archive",
    budget=2**33,
    url="https://fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database, which asks to "
    "register",
)

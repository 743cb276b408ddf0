"""IAM-OnDB: lines of English, written by 221 people on a whiteboard (Liwicki and Bunke 2005).

Its owners ask to register, so no command downloads it. These files are read, the archives as they
are or unpacked; or one archive of them all:

    lineStrokes-all.tar.gz   lineStrokes/a01/a01-000/a01-000u-01.xml   line 1 of the form a01-000u:
                             <Stroke>s of <Point x="1073" y="1058" time="769.05"/>
    ascii-all.tar.gz         ascii/a01/a01-000/a01-000u.txt            the text of the form:
                             below "CSR:" a line of text for each of its lines
    trainset.txt             names of forms, one a line, of the task IAM-OnDB-t1
    testset_v.txt            the same of its first validation set; a writer is in one list only
    testset_t.txt            of its second, larger one
    testset_f.txt            of its final test set

The paper does not say what it trained and tested on. Graves (2013, section 4) trained on trainset,
testset_f and testset_t, 10,741 lines, and stopped by and reported testset_v, 1,438 lines. We test
on testset_v too, but make our choices on testset_t:

    train   trainset and testset_f   9,223 lines, 86 % of Graves'
    valid   testset_t                1,518
    test    testset_v                1,438

Lines that cannot be used are left out and counted; `strokes_of`, `lines_of` and `read` say which.

Prepared: the arrays of `experiments.datasets.lines`.
"""

from collections.abc import Iterator
import io
import re
from xml.etree import ElementTree

import numpy as np

from experiments.datasets import Dataset, arrays, lines, text
from experiments.datasets.originals import Source, usable
from ln.errors import InputError

SPLITS = {  # split -> lists
    "train": ("trainset.txt", "testset_f.txt"),
    "valid": ("testset_t.txt",),
    "test": ("testset_v.txt",),
}
LISTS = tuple(name for names in SPLITS.values() for name in names)
STROKES, TEXTS = "lineStrokes", "ascii"
FORM = "[a-z][0-9]{2}-[0-9]{3}[a-z]?"
NAME = re.compile(
    rf"(?:.*/)?(?:(?P<list>{'|'.join(map(re.escape, LISTS))})"
    rf"|(?P<form>{FORM})(?:\.txt|-(?P<number>[0-9]{{2}})\.xml))"
)
ARCHIVE = re.compile(f"(?:{STROKES}|{TEXTS})-all" + r"\.tar(?:\.gz)?")

MOST = 0.1  # of the lines of a split may be left out
# So far the pen jumps to a second row of text, or back over half a line to a forgotten dot; all
# else is noise. sjvasquez/handwriting-synthesis leaves out lines with an offset above 60 times the
# line's own median. That suits IAM-OnDB's whiteboard, but not denser points: where a tablet takes
# more of them a second, or a hand is slow, it is the gap between two words.
OUTLIER = 100  # times the median length of an offset in the training set

Forms = dict[str, list[str]]  # list -> forms
Texts = dict[str, list[str]]  # form -> the text of each line
Points = dict[str, dict[int, np.ndarray | str]]  # form -> number of a line, from 1 -> its offsets
# A line that cannot be used is a str, the reason.


def read(source: Source) -> arrays.Splits:
    """Return the splits of a folder or archive. Print how many lines are left out, and why.

    A line with an offset above OUTLIER is left out.

    Raises:
        InputError: a file is missing or damaged, or too many lines cannot be used.
    """
    forms, texts, points = read_files(source)
    every = {
        split: [
            line
            for name in names
            for form in forms[name]
            for line in lines_of(form, texts.get(form, []), points.get(form, {}))
        ]
        for split, names in SPLITS.items()
    }
    moves = [lengths(line) for _, line in every["train"] if not isinstance(line, str)]
    limit = OUTLIER * np.median(np.concatenate(moves)) if moves else 0

    def checked(line: lines.Line | str) -> lines.Line | str:
        fits = isinstance(line, str) or lengths(line).max() <= limit
        return line if fits else f"offset > {OUTLIER} medians"

    used = {
        split: usable(f"lines of {split}", ((n, checked(line)) for n, line in every[split]), MOST)
        for split in SPLITS
    }
    scale = lines.scale_of(used["train"])
    return {split: lines.pack(used[split], scale) for split in SPLITS}


def lengths(line: lines.Line) -> np.ndarray:
    """Return the lengths of a line's offsets."""
    return np.hypot(*line[0][1:, :2].T)


# --- Files ---


def read_files(source: Source) -> tuple[Forms, Texts, Points]:
    """Return the contents of all files of a folder or archive.

    Raises:
        InputError: a list is missing, or a file is damaged.
    """
    forms: Forms = {}
    texts: Texts = {}
    points: Points = {}
    for match, file in source.files(NAME, ARCHIVE):
        name, form, number = match[0], match["form"], match["number"]
        # The first counts: archives beside what was unpacked from them come last.
        if match["list"]:
            rows = text.filled(file, f"{source.path}/{name}", legacy="latin-1")
            forms.setdefault(match["list"], list(dict.fromkeys(rows)))
        elif number:
            lines_of_form = points.setdefault(form, {})
            if int(number) not in lines_of_form:
                lines_of_form[int(number)] = strokes_of(file.read())
        else:
            texts.setdefault(form, texts_of(file.read(), name))
    if missing := [name for name in LISTS if name not in forms]:
        raise InputError(f"{source.path} has no {', '.join(missing)}.")
    return forms, texts, points


def texts_of(data: bytes, name: str) -> list[str]:
    """Return the text of each line of a form, from its transcript; none if there is no CSR."""
    # In some transcripts a row of percent signs stands for an end of line (sjvasquez).
    file = io.BytesIO(re.sub(rb"%{5,}", b"\n", data))
    transcript = list(filter(None, text.lines(file, name, legacy="latin-1")))
    return transcript[transcript.index("CSR:") + 1 :] if "CSR:" in transcript else []


def strokes_of(data: bytes) -> np.ndarray | str:
    """Return the offsets of a line, from its XML, or why it cannot be used.

    A line is unusable if the file is no XML, a point has no coordinates, or there are fewer than
    two points. Strokes without points are skipped.
    """
    try:
        strokes = [
            np.array([(float(point.attrib["x"]), float(point.attrib["y"])) for point in stroke])
            for stroke in ElementTree.fromstring(data).iter("Stroke")
            if len(stroke)
        ]
    except (ElementTree.ParseError, LookupError, ValueError):  # no such encoding or attribute
        return "unreadable XML"
    # float32 has no greater integers. The comparison is false for a NaN.
    if not all((abs(stroke) < 2**24).all() for stroke in strokes):
        return "unreadable XML"
    return lines.offsets(strokes) if sum(map(len, strokes)) > 1 else "fewer than two points"


# --- Lines ---


def lines_of(form: str, texts: list[str], points: dict[int, np.ndarray | str]) -> Iterator:
    """Yield names and lines of a form, `lines.Line` or str.

    None is usable if the transcript has more or fewer lines than there are files: then it
    is unknown which text belongs to which. A form without strokes has the lines of its transcript.
    """
    if texts and sorted(points) == list(range(1, len(texts) + 1)):
        for number, text in enumerate(texts, start=1):
            stroke = points[number]
            yield f"{form}-{number:02}", stroke if isinstance(stroke, str) else (stroke, text)
        return
    reason = "transcript of other length" if points else "no strokes"
    for _ in range(len(points) or len(texts) or 1):
        yield form, reason if texts else "no transcript"


DATASET = Dataset(
    title="handwriting in the layout of IAM-OnDB",
    read=read,
    needs=f"{STROKES}-all.tar.gz and {TEXTS}-all.tar.gz, as they are or unpacked, and "
    f"{', '.join(LISTS)}, in a folder or an archive",
    budget=2**33,
    records=dict(train=9_223, valid=1_518, test=1_438),
    url="https://fki.tic.heia-fr.ch/databases/iam-on-line-handwriting-database, which asks to "
    "register",
)

"""Lines of handwriting, and IAM-OnDB: good, unusable and bad files."""

import gzip
import re

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import lines
from experiments.datasets.corpora import iam
from tests.files import lay, tar
from tests.test_datasets import refused

# --- What all such data sets share ---


def test_offsets_cross_strokes_and_mark_their_ends():
    strokes = [np.array([(5, 7)]), np.array([(6, 9), (4, 9), (4, 8)])]
    offsets = lines.offsets(strokes)
    assert offsets.dtype == np.float32
    assert offsets.tolist() == [[0, 0, 1], [1, 2, 0], [-2, 0, 0], [0, -1, 1]]


def written(seed, count=40):
    """Positions of a pen in strokes, integers, from left to right."""
    draw = np.random.RandomState(seed)
    positions = 500 + np.cumsum(draw.randint(-20, 30, (count, 2)), axis=0)
    return np.split(positions, np.sort(draw.choice(np.arange(1, count), 4, replace=False)))


# --- A small corpus in the layout of IAM-OnDB ---

FORMS = {  # list -> form -> number of its lines
    "trainset.txt": {"a01-000u": 5, "a01-000w": 4, "b02-105": 2},
    "testset_f.txt": {"c03-000z": 9},
    "testset_t.txt": {"d04-081": 10},
    "testset_v.txt": {"p10-305z": 10, "p10-305": 2},
}
TEXTS = ("A MOVE to stop", "Mr. Gaitskell from", "it's late, he said", "the 2nd (of 3)")


def text_of(form, number):
    return f"{TEXTS[number % len(TEXTS)]} {form[0]}{'xyz'[len(form) % 3]}"


def strokes_of(form, number):
    return written(sum(form.encode()) * 100 + number)


def expected(*left_out):
    """Return the lines of each split without some."""
    return {
        split: [
            (strokes_of(form, number), lines.decode(lines.encode(text_of(form, number))))
            for name in lists
            for form, count in FORMS[name].items()
            for number in range(1, count + 1)
            if not {form, f"{form}-{number:02d}"} & set(left_out)
        ]
        for split, lists in iam.SPLITS.items()
    }


def xml(strokes, encoding="ISO-8859-1"):
    rows = [
        f'<?xml version="1.0" encoding="{encoding}"?>',
        '<WhiteboardCaptureSession><SensorLocation corner="top_left"/><StrokeSet>',
    ]
    for stroke in strokes:
        rows.append('    <Stroke colour="black" start_time="769.05" end_time="769.64">')
        rows += [f'      <Point x="{x}" y="{y}" time="769.05"/>' for x, y in stroke]
        rows.append("    </Stroke>")
    return "\n".join([*rows, "</StrokeSet></WhiteboardCaptureSession>"]).encode()


def transcript(texts):
    raw = "\n".join(text.lower().replace(" ", "  ") for text in texts)
    return ("OCR:\n\n" + raw + "\n\nCSR:\n\n" + "\n".join(texts) + "\n").encode()


def line_path(form, number):
    return f"lineStrokes/{form[:3]}/{form[:7]}/{form}-{number:02d}.xml"


def text_path(form):
    return f"ascii/{form[:3]}/{form[:7]}/{form}.txt"


def corpus():
    """Return path -> contents."""
    contents = {}
    for name, forms in FORMS.items():
        contents[name] = "".join(f" {form}\n" for form in forms).encode()
        for form, count in forms.items():
            numbers = range(1, count + 1)
            contents[text_path(form)] = transcript([text_of(form, number) for number in numbers])
            for number in numbers:
                contents[line_path(form, number)] = xml(strokes_of(form, number))
    # Not to be read: other parts of the database.
    contents["original/a01/a01-000/strokesu.xml"] = b"<WhiteboardCaptureSession/>"
    contents["forms.txt"] = b"a01-000u 10001\n"
    return contents


@pytest.fixture
def files():
    return corpus()


def packed(files):
    """Return the same with lineStrokes and ascii as archives."""
    contents = {name: data for name, data in files.items() if "/" not in name}
    for part in ("lineStrokes", "ascii"):
        inside = {name: data for name, data in files.items() if name.startswith(part)}
        contents[f"{part}-all.tar.gz"] = gzip.compress(tar(inside))
    return contents


def prepared(tmp_path, files):
    datasets.prepare("iam", tmp_path / "data", lay(tmp_path / "source", files))
    return datasets.load("iam", tmp_path / "data")


def assert_prepared(splits, lines_of):
    assert splits.keys() == lines_of.keys() == {"train", "valid", "test"}
    train = splits["train"]
    others = np.delete(train["points"], train["point_starts"][:-1], axis=0)[:, :2]
    np.testing.assert_allclose([others.mean(0), others.std(0)], [[0, 0], [1, 1]], atol=1e-5)
    dtypes = {key: str(array.dtype) for key, array in train.items()}
    starts = dict(point_starts="int64", text_starts="int64")
    assert dtypes == dict(points="float32", text="uint8", scale="float32") | starts
    for split, wanted in lines_of.items():
        offsets = [(lines.offsets(strokes), text) for strokes, text in wanted]
        for key, array in lines.pack(offsets, train["scale"]).items():
            np.testing.assert_allclose(splits[split][key], array, atol=1e-5)


# --- What is read ---


@pytest.mark.parametrize("layout", [dict, packed])
def test_a_folder_has_every_line_with_its_text(tmp_path, files, layout):
    splits = prepared(tmp_path, layout(files))
    assert_prepared(splits, expected())
    assert [len(splits[split]["text_starts"]) - 1 for split in iam.SPLITS] == [20, 10, 12]


FORM = "a01-000u"


def test_transcripts_may_have_blank_lines_and_percent_signs(tmp_path, files):
    text = files[text_path(FORM)].replace(b" az\nit", b" az%%%%%%%%%%%it")
    files[text_path(FORM)] = text.replace(b"\n", b"\n\n")
    files["trainset.txt"] = b" a01-000u\n\n a01-000w\n b02-105\n a01-000u\n"
    assert_prepared(prepared(tmp_path, files), expected())


# --- What is left out ---


def without(*paths):
    return lambda files: [files.pop(path) for path in paths]


def changed(path, change):
    return lambda files: files.update({path: change(files[path])})


FORM_OF_2 = "b02-105"
LINE = line_path(FORM, 2)
TEXT = text_path(FORM_OF_2)
JUMP = strokes_of(FORM, 2)
JUMP[1] = JUMP[1] + 3_000
NAME = f"{FORM}-02"
BAD = {
    "no transcript": ("no transcript", FORM_OF_2, without(TEXT)),
    "no text": ("no transcript", FORM_OF_2, changed(TEXT, lambda _: b"CSR:\n")),
    "a line more": ("transcript of other length", FORM_OF_2, changed(TEXT, lambda t: t + b"x\n")),
    "a lost line": ("transcript of other length", FORM_OF_2, without(line_path(FORM_OF_2, 1))),
    "lost lines": ("no strokes", FORM_OF_2, without(*(line_path(FORM_OF_2, n) for n in (1, 2)))),
    "a single point": ("fewer than two points", NAME, changed(LINE, lambda _: xml([[], [(3, 4)]]))),
    **{
        name: ("unreadable XML", NAME, changed(LINE, change))
        for name, change in {
            "half a file": lambda data: data[:500],
            "an unknown encoding": lambda data: data.replace(b"ISO-8859-1", b"whiteboard"),
            "no coordinate": lambda data: re.sub(rb'y="\d+"', b"", data, count=1),
            "not a number": lambda data: re.sub(rb'y="\d+"', b'y="nan"', data, count=1),
            "a huge number": lambda data: re.sub(rb'y="\d+"', b'y="1e300"', data, count=1),
        }.items()
    },
    "an outlier": ("offset > 100 medians", NAME, changed(LINE, lambda _: xml(JUMP))),
}


@pytest.mark.parametrize("bad", BAD)
def test_unusable_lines_are_counted_by_reason(tmp_path, files, capsys, bad):
    reason, left_out, change = BAD[bad]
    change(files)
    splits = prepared(tmp_path, files)
    assert_prepared(splits, expected(left_out))
    count = sum(left_out in name and name.endswith("xml") for name in files) or 2
    kept = len(expected(left_out)["train"])
    printed = (
        f"lines of train: {kept + count}, left out: {count} {reason} (the first: {left_out})\n"
    )
    assert printed in capsys.readouterr().out


def test_more_than_a_tenth_of_unusable_lines_raise(tmp_path, files):
    files[line_path("d04-081", 3)] = xml([])
    assert_prepared(prepared(tmp_path, files), expected("d04-081-03"))
    files[line_path("d04-081", 7)] = b"<"
    with refused(
        "2 of 10 lines of valid cannot be used",
        "1 fewer than two points (the first: d04-081-03), 1 unreadable XML",
        "Needed: lineStrokes-all.tar.gz",
    ):
        prepared(tmp_path / "other", files)
    assert not (tmp_path / "other" / "data").exists()

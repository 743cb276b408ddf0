"""Lines of handwriting, and IAM-OnDB: good, unusable and bad files."""

import gzip
from itertools import pairwise
import lzma
import re

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import arrays, lines
from experiments.datasets.corpora import iam
from tests.files import lay, tar
from tests.test_datasets import names, python, refused

# --- What all such data sets share ---


def test_there_are_57_classes_of_characters():
    assert lines.CLASSES == 57 and len(set(lines.ALPHABET)) == 56
    text = "Ah, it's 5 o'clock. Zürich?"
    classes = lines.encode(text)
    assert classes.dtype == np.uint8 and classes.max() < lines.CLASSES
    assert lines.decode(classes) == "Ah, it's ? o'clock. Z?rich?"
    for k, character in enumerate(lines.ALPHABET, start=1):
        assert lines.encode(character).tolist() == [k]
    assert lines.encode("").shape == (0,)


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


def unpacked(split):
    """The lines of a split: offsets in units of the tablet, and text."""
    (mean, std), found = split["scale"], []
    for points, text in zip(
        pairwise(split["point_starts"]), pairwise(split["text_starts"]), strict=True
    ):
        line = split["points"][slice(*points)].astype(float)
        assert line[0, :2].tolist() == [0, 0]
        line[1:, :2] = line[1:, :2] * std + mean
        found.append((line, lines.decode(split["text"][slice(*text)])))
    return found


def assert_lines(split, expected):
    found = unpacked(split)
    assert [text for _, text in found] == [text for _, text in expected]
    for (points, _), (strokes, _) in zip(found, expected, strict=True):
        np.testing.assert_allclose(points, lines.offsets(strokes), atol=1e-3)


def test_packed_lines_are_normalized_and_as_recorded():
    recorded = [
        (written(seed, count), f"line {'abc'[seed]}") for seed, count in enumerate((9, 40, 5))
    ]
    train = [(lines.offsets(strokes), text) for strokes, text in recorded]
    split = lines.pack(train, lines.scale_of(train))
    assert_lines(split, recorded)
    others = np.delete(split["points"], split["point_starts"][:-1], axis=0)[:, :2]
    np.testing.assert_allclose(others.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(others.std(0), 1, atol=1e-6)
    assert {key: array.dtype for key, array in split.items()} == dict(
        points=np.float32,
        point_starts=np.int64,
        text=np.uint8,
        text_starts=np.int64,
        scale=np.float32,
    )


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
    """The lines of each split without some."""
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


@pytest.fixture
def files():
    """Path -> contents."""
    found = {}
    for name, forms in FORMS.items():
        found[name] = "".join(f" {form}\n" for form in forms).encode()
        for form, count in forms.items():
            numbers = range(1, count + 1)
            found[text_path(form)] = transcript([text_of(form, number) for number in numbers])
            for number in numbers:
                found[line_path(form, number)] = xml(strokes_of(form, number))
    # Not to be read: other parts of the database, and what a Mac adds to archives.
    found["original/a01/a01-000/strokesu.xml"] = b"<WhiteboardCaptureSession/>"
    found["forms.txt"] = b"a01-000u 10001\n"
    found["lineStrokes/a01/a01-000/._a01-000u-01.xml"] = b"\0"
    return found


def packed(files, pack=gzip.compress, end=".tar.gz"):
    """The same with lineStrokes and ascii as archives."""
    found = {name: data for name, data in files.items() if "/" not in name}
    for part in ("lineStrokes", "ascii"):
        inside = {name: data for name, data in files.items() if name.startswith(part)}
        found[f"{part}-all{end}"] = pack(tar(inside))
    return found


def moved(files):
    return {re.sub("^(lineStrokes|ascii)/", r"\1-all/\1/", name): files[name] for name in files}


def prepared(tmp_path, files):
    datasets.prepare("iam", tmp_path / "data", lay(tmp_path / "source", files))
    return datasets.load("iam", tmp_path / "data")


def assert_prepared(found, lines_of):
    assert found.keys() == lines_of.keys() == {"train", "valid", "test"}
    for split, wanted in lines_of.items():
        assert_lines(found[split], wanted)
        np.testing.assert_array_equal(found[split]["scale"], found["train"]["scale"])


# --- What is read ---

LAYOUTS = {
    "folders": lambda files: files,
    "folders of archives": moved,
    "archives": packed,
    "archives without gzip": lambda files: packed(files, bytes, ".tar"),
    "archives and their folders": lambda files: files | packed(files),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_has_every_line_with_its_text(tmp_path, files, layout):
    assert_prepared(prepared(tmp_path, LAYOUTS[layout](files)), expected())
    assert str(tmp_path / "source") in arrays.manifest(tmp_path / "data", "iam")["source"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_one_archive_may_hold_it_all_in_any_order(tmp_path, files, pack, is_reversed):
    order = sorted(files, reverse=is_reversed)
    path = tmp_path / "all"
    path.write_bytes(pack(tar({name: files[name] for name in order})))
    datasets.prepare("iam", tmp_path / "data", path)
    assert_prepared(datasets.load("iam", tmp_path / "data"), expected())
    assert names(tmp_path) == ["all", "data"]


def test_splits_have_the_lists_of_graves(tmp_path, files):
    assert iam.SPLITS == dict(
        train=("trainset.txt", "testset_f.txt"), valid=("testset_t.txt",), test=("testset_v.txt",)
    )
    found = prepared(tmp_path, files)
    assert [len(unpacked(found[split])) for split in iam.SPLITS] == [20, 10, 12]


FORM = "a01-000u"
GOOD = {
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "old Macs' ends of lines": lambda text: text.replace(b"\n", b"\r"),
    "no empty line below CSR:": lambda text: text.replace(b"CSR:\n\n", b"CSR:\n"),
    "blank lines between the lines": lambda text: text.replace(b"\n", b" \n \n"),
    "no end of the last line": bytes.rstrip,
    "percent signs for an end of line": lambda text: text.replace(b" az\nit", b" az%%%%%%%%%%%it"),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "no OCR part": lambda text: text[text.index(b"CSR:") :],
}


@pytest.mark.parametrize("good", GOOD)
def test_a_transcript_may_have(tmp_path, files, good):
    before = files[text_path(FORM)]
    files[text_path(FORM)] = GOOD[good](before)
    assert files[text_path(FORM)] != before
    assert_prepared(prepared(tmp_path, files), expected())


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_letters_with_accents_are_of_class_0(tmp_path, files, encoding):
    odd = "caf\xe9 \x85 na\xefve"
    text = files[text_path(FORM)].decode().replace("Mr. Gaitskell from az", odd)
    files[text_path(FORM)] = text.encode(encoding)
    assert unpacked(prepared(tmp_path, files)["train"])[0][1] == "caf? ? na?ve"


def test_lists_may_have_blank_lines_and_forms_twice(tmp_path, files):
    files["trainset.txt"] = b" a01-000u\r\n\r\n a01-000w\r\n b02-105\r\n a01-000u\r\n"
    assert_prepared(prepared(tmp_path, files), expected())


def test_strokes_without_points_are_passed_over(tmp_path, files):
    strokes = strokes_of(FORM, 2)
    files[line_path(FORM, 2)] = xml([[], strokes[0], [], [], *strokes[1:], []])
    assert_prepared(prepared(tmp_path, files), expected())


def test_a_line_may_have_another_encoding_attributes_and_decimals(tmp_path, files):
    data = xml(strokes_of(FORM, 2), "utf-8").decode()
    data = re.sub(r'x="(\d+)" y="(\d+)" time', r'time="1" y="\2.0" X="7" x="\1.00" t', data)
    files[line_path(FORM, 2)] = data.encode()
    assert_prepared(prepared(tmp_path, files), expected())


def test_lines_in_no_list_are_counted(tmp_path, files, capsys):
    for number in (1, 2, 3):
        files[line_path("h05-012z", number)] = xml(strokes_of("h05-012z", number))
    assert_prepared(prepared(tmp_path, files), expected())
    assert "3 lines of 1 forms that are in no list" in capsys.readouterr().out


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
    "an empty transcript": ("transcript without CSR text", FORM_OF_2, changed(TEXT, lambda _: b"")),
    "a heading without text": (
        "transcript without CSR text",
        FORM_OF_2,
        changed(TEXT, lambda text: text[: text.index(b"CSR:") + 6]),
    ),
    "a transcript with a line more": (
        "transcript of other length",
        FORM_OF_2,
        changed(TEXT, lambda text: text + b"one more\n"),
    ),
    "a form that lacks a line": (
        "transcript of other length",
        FORM_OF_2,
        without(line_path(FORM_OF_2, 1)),
    ),
    "a form without folder": (
        "no strokes",
        FORM_OF_2,
        without(line_path(FORM_OF_2, 1), line_path(FORM_OF_2, 2)),
    ),
    "empty strokes": ("fewer than two points", NAME, changed(LINE, lambda _: xml([[], []]))),
    "a single point": ("fewer than two points", NAME, changed(LINE, lambda _: xml([[], [(3, 4)]]))),
    "half a file": ("unreadable XML", NAME, changed(LINE, lambda data: data[:500])),
    "zeros": ("unreadable XML", NAME, changed(LINE, lambda data: bytes(len(data)))),
    "an unknown encoding": (
        "unreadable XML",
        NAME,
        changed(LINE, lambda data: data.replace(b"ISO-8859-1", b"whiteboard")),
    ),
    **{
        f"{value!r} for a coordinate": (
            "unreadable XML",
            NAME,
            changed(LINE, lambda data, value=value: re.sub(rb'y="\d+" time', value, data, count=1)),
        )
        for value in (b"time", b'y="nan" time', b'y="1e300" time', b'y="five" time')
    },
    "an outlier": ("offset > 100 medians", NAME, changed(LINE, lambda _: xml(JUMP))),
}


@pytest.mark.parametrize("bad", BAD)
def test_unusable_lines_are_counted_by_reason(tmp_path, files, capsys, bad):
    reason, left_out, change = BAD[bad]
    change(files)
    found = prepared(tmp_path, files)
    assert_prepared(found, expected(left_out))
    count = sum(left_out in name and name.endswith("xml") for name in files) or 2
    kept = len(expected(left_out)["train"])
    printed = re.sub(" +", " ", capsys.readouterr().out)
    assert f"\n lines {kept + count} 10 12\n" in printed
    assert f"\n - {reason} {count} 0 0\n" in printed
    assert f"\n left {kept} 10 12\n points " in printed


def test_a_pen_that_jumps_less_far_is_no_outlier(tmp_path, files):
    strokes = strokes_of(FORM, 2)
    strokes[1] = strokes[1] + 1_000
    files[LINE] = xml(strokes)
    found = prepared(tmp_path, files)
    np.testing.assert_allclose(unpacked(found["train"])[1][0], lines.offsets(strokes), atol=1e-3)


def test_more_than_a_tenth_of_unusable_lines_is_refused(tmp_path, files):
    files[line_path("d04-081", 3)] = xml([])
    assert_prepared(prepared(tmp_path, files), expected("d04-081-03"))
    files[line_path("d04-081", 7)] = b"<"
    with refused(
        "Of the 10 lines of valid more than 10% cannot be used",
        "1 fewer than two points, 1 unreadable XML",
        "Needed: lineStrokes-all.tar.gz",
    ):
        prepared(tmp_path / "other", files)
    assert not (tmp_path / "other" / "data").exists()


def test_strokes_without_transcripts_are_refused(tmp_path, files):
    for name in [name for name in files if name.startswith("ascii")]:
        files["ascii/z01-000z.txt"] = files.pop(name)
    with refused("20 lines of train", "20 no transcript"):
        prepared(tmp_path, files)


# --- What is refused ---


@pytest.mark.parametrize("part", ["lineStrokes", "ascii", *FORMS])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_missing_part_is_refused_by_name(tmp_path, files, part, is_packed):
    files = {name: data for name, data in files.items() if not name.startswith(part)}
    source = lay(tmp_path / "source", files)
    if is_packed:
        source = tmp_path / "all.tar.gz"
        source.write_bytes(gzip.compress(tar(files)))
    with refused(f"{source} has no ", part, "python -m scripts.data iam --from=DIR"):
        datasets.prepare("iam", tmp_path / "data", source)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("change", [lambda data: data[:-99], lambda data: b"<!DOCTYPE html>404"])
def test_a_broken_archive_is_refused_by_name(tmp_path, files, change):
    files = packed(files)
    files["ascii-all.tar.gz"] = change(files["ascii-all.tar.gz"])
    with refused(tmp_path / "source" / "ascii-all.tar.gz"):
        prepared(tmp_path, files)


@pytest.mark.parametrize("data, words", [(b"", "found 'nothing'"), (b"<html>\n", "'<html>'")])
def test_a_list_of_something_else_is_refused_by_name(tmp_path, files, data, words):
    files["testset_t.txt"] = data
    with refused("testset_t.txt must have forms like a01-000u", words):
        prepared(tmp_path, files)


def test_a_form_in_two_lists_is_refused(tmp_path, files):
    files["testset_v.txt"] += b" a01-000w\n"
    with refused("a01-000w is in trainset.txt and in testset_v.txt"):
        prepared(tmp_path, files)


# --- The command ---


@pytest.mark.slow
def test_the_command_prepares_an_archive(tmp_path, files):
    source = lay(tmp_path, {"all.tar.xz": lzma.compress(tar(files))}) / "all.tar.xz"
    done = python("-m", "scripts.data", "iam", f"--from={source}", f"--data_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    for word in ("points a line", "train.point_starts", "float32 [800, 3]", str(tmp_path / "iam")):
        assert word in done.stdout
    assert_prepared(datasets.load("iam", tmp_path), expected())

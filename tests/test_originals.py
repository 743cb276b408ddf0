"""Reading untrusted folders and archives: regular files, litter, links, budgets and damage."""

import contextlib
import gzip
import lzma
import pickle
import re
import tarfile

import numpy as np
import pytest

from experiments.datasets import originals, pickles
from experiments.datasets.originals import Source
from tests.files import PACKED, lay, tar
from tests.test_datasets import refused

WANTED = re.compile(r"(?:.*/)?[a-z]\.txt")
FILES = {"b.txt": b"bee", "part/a.txt": b"ay", "part/c.txt": b"sea" * 99}
NOISE = {"a.txt": np.random.default_rng(0).bytes(3_000)}
LITTER = {
    "part/._a.txt": b"\0",
    "__MACOSX/part/a.txt": b"\0",
    ".DS_Store": b"\0",
    "Thumbs.db/a.txt": b"\0",
    "part/a.png": b"\0",
}


def source(path, budget=100_000):
    return Source(path, "toy", budget, path.with_name("data"), contextlib.ExitStack())


def read(path, budget=100_000, archives=originals.NEVER):
    """Return the files of a place, name -> contents."""
    files = source(path, budget).files(WANTED, archives)
    return {match[0].removeprefix("./"): file.read() for match, file in files}


@pytest.mark.parametrize("pack, end", [(gzip.compress, ".gz"), (lzma.compress, ".xz"), (bytes, "")])
def test_a_file_is_a_source_alone_and_in_a_folder(tmp_path, pack, end):
    folder = lay(tmp_path / "toy", {name + end: pack(data) for name, data in FILES.items()})
    assert read(folder) == FILES and read(folder / f"b.txt{end}") == {"b.txt": b"bee"}


def test_archives_in_a_folder_come_after_its_files(tmp_path):
    packed = {"all.tar": tar({"z.txt": b"1", "a.txt": b"2"}), "other.tar": tar({"o.txt": b"3"})}
    folder = lay(tmp_path / "toy", {"b.txt": b"0"} | packed)
    assert list(read(folder, archives=re.compile(r"all\.tar")).items()) == [
        ("b.txt", b"0"),
        ("z.txt", b"1"),
        ("a.txt", b"2"),
    ]


@pytest.mark.parametrize("end", PACKED)
def test_no_name_of_an_archive_leads_out_of_it(tmp_path, end):
    path = tmp_path / f"toy{end}"
    path.write_bytes(PACKED[end](FILES | LITTER | {"../a.txt": b"", "x/../../b.txt": b""}))
    assert read(path) == FILES
    assert list(read(lay(tmp_path / "toy", FILES | LITTER)).items()) == sorted(FILES.items())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_an_archive_are_skipped(tmp_path, kind):
    with tarfile.open(tmp_path / "toy.tar", "w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    assert read(tmp_path / "toy.tar") == {}


@pytest.mark.parametrize("end", PACKED)
@pytest.mark.parametrize("kept", [0, 0.02, 0.1, 0.3])
def test_a_truncated_archive_raises(tmp_path, end, kept):
    data = PACKED[end](NOISE)
    path = lay(tmp_path, {f"toy{end}": data[: int(kept * len(data))]}) / f"toy{end}"
    with refused(path):
        read(path)


# --- Budgets ---


def sparse(size):
    """Return a tar of 10 kB with a sparse file (old GNU format) of this size."""
    header = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.GNU_FORMAT))
    number = b"\x80" + size.to_bytes(11, "big")
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = header[483:495] = number  # the offset of its only, empty part; its size
    header[398:410] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(10240 - 512)


def long_name(size):
    """Return a tar whose first header announces a name of this size."""
    header = tarfile.TarInfo("a.txt")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
    return header.tobuf(tarfile.GNU_FORMAT) + b"a" * size + bytes(10240)


ZEROS = {"a.txt": bytes(9_000_000)}
BOMBS = {
    "a.txt.gz": gzip.compress(bytes(9_000_000)),
    "b.txt.gz": gzip.compress(bytes(900_000)) * 10,
    "a.txt.xz": lzma.compress(bytes(9_000_000)),
    "plain.tar": tar(ZEROS),
    "packed.tar.gz": gzip.compress(tar(ZEROS)),
    "unwanted.tar.gz": gzip.compress(tar({"a.png": bytes(9_000_000)})),
    "many.tar.xz": lzma.compress(tar({f"{k:c}.txt": bytes(900_000) for k in range(97, 107)})),
    "one.zip": PACKED[".zip"](ZEROS),
    "many.zip": PACKED[".zip"]({f"{k:c}.txt": bytes(900_000) for k in range(97, 107)}),
    "sparse.tar": sparse(64 << 30),
    "name.tar.gz": gzip.compress(long_name(9_000_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_more_is_unpacked_than_the_budget(tmp_path, name, monkeypatch):
    path = lay(tmp_path, {name: BOMBS[name]}) / name
    counts = []
    spend = originals.Budget.spend

    def counted(budget, count, place):
        counts.append(count)
        spend(budget, count, place)

    monkeypatch.setattr(originals.Budget, "spend", counted)
    with refused(path, "more than 1,000,000 bytes, too many for toy"):
        read(path.parent if ".txt." in name else path, budget=1_000_000)
    assert sum(counts) < 2_500_000  # members, and the archive as a whole


def test_progress_is_printed_now_and_then(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(originals, "SECONDS", -1)
    read(lay(tmp_path / "toy", FILES))
    assert "toy: 0 MB read\n" in capsys.readouterr().out


# --- Pickles ---


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


CODE = {
    "code": Malicious(),
    "code inside": {"data": Malicious()},
    "an array": np.zeros(3),
    "bytes": [b"ab"],  # in protocol 2 a call of _codecs.encode
}


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("protocol", [0, 2])
def test_code_in_a_pickle_raises(name, protocol, capsys):
    with refused("a.pkl is no pickle of plain data", "not loaded"):
        pickles.load("a.pkl", pickle.dumps(CODE[name], protocol))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02Nr\xff\xff\xff\xff",  # the memo has a place 2³²
        b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",  # a bytearray of 2⁴⁰ bytes
    ],
)
def test_a_damaged_or_oversized_pickle_raises(data):
    with refused("a.pkl"):
        pickles.load("a.pkl", data)

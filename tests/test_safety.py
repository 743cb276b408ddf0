"""Untrusted files are data: nothing in them is executed, and no path leaves its folder."""

import ast
from pathlib import Path
import re

from tests.commands import run

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("configs", "experiments", "ln", "scripts")
UNPICKLER = "experiments/datasets/pickles.py"  # rejects all but plain data

# exec, extractall, pickle, marshal, eval, pickle imports, yaml.load, shells
RULES = "S102,S202,S301,S302,S307,S403,S506,S602,S604,S605"
# Dangers that ruff does not know.
OTHERS = (
    r"allow_pickle=(?!False)|\.extract\(|unpack_archive|joblib|torch.load|from torch import load"
)


def dangers(*words):
    """Return what ruff finds in files."""
    options = "--isolated --preview --quiet --output-format=concise".split()
    done = run("ruff", "check", *options, f"--select={RULES}", *words)
    assert not done.stderr, done.stderr
    return done.stdout


def test_no_module_executes_files_or_unpacks_elsewhere(tmp_path):
    (tmp_path / "x.py").write_text("import pickle, os\nos.system(line)\nx = eval(text)\n")
    assert {line for line in "123" if f":{line}:" in dangers(str(tmp_path))} == {*"123"}
    assert re.search(OTHERS, "np.load(path, allow_pickle=True)")
    assert dangers(*PACKAGES, f"--exclude={UNPICKLER}") == ""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert not [path for path in files if re.search(OTHERS, path.read_text(encoding="utf-8"))]


# --- Untrusted files ---

OPENING = set("open read_text read_bytes fromfile loadtxt genfromtxt memmap open_memmap".split())
PACKERS = set("bz2 gzip lzma tarfile zipfile".split())
OWN = {  # these open what the project itself wrote or brings along; originals.py is the boundary
    *("arrays.py", "originals.py", "curves.py"),
    *("pen.py", "docs.py"),
}


def openings(code):
    """Return the names in a module that open or unpack files."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from {getattr(node, "module", None), *(a.name for a in node.names)} & PACKERS
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            yield from {name} & OPENING


def test_no_reader_opens_files_by_itself():
    assert {*openings("import gzip\np.read_text()\nopen(p)")} == {"gzip", "read_text", "open"}
    paths = [path for path in (ROOT / "experiments").rglob("*.py") if path.name not in OWN]
    assert not [(path, n) for path in paths for n in openings(path.read_text(encoding="utf-8"))]

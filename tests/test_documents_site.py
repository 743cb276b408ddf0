"""The documentation site builds with strict links, and loads nothing from other machines."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

pytest.importorskip("mkdocs", reason='pip install mkdocs-material "mkdocstrings[python]"')


@pytest.mark.slow
def test_the_site_builds_and_loads_no_foreign_file(tmp_path):
    """A broken link, anchor or docstring is a warning, which --strict makes an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    root, environment = Path(__file__).parent.parent, os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert tmp_path / "docs/tutorial.html" in pages
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', text), page

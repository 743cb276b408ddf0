"""The documentation site builds with strict links, and loads nothing from other machines."""

import re

import pytest

from tests.commands import python

pytest.importorskip("mkdocs", reason='pip install mkdocs-material "mkdocstrings[python]"')


@pytest.mark.slow
def test_the_site_builds_and_loads_no_foreign_file(tmp_path):
    """A broken link, anchor or docstring is a warning, which --strict makes an error."""
    words = ("-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path)
    built = python(*words, NO_MKDOCS_2_WARNING="1")
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert tmp_path / "docs/tutorial.html" in pages
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', text), page

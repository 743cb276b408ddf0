"""The README is short, links resolve, and commands name what exists."""

from pathlib import Path
import re

import pytest

import experiments

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "results/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page):
    return page.read_text(encoding="utf-8")


def links_of(page):
    """Return the links of a page, without those to other machines."""
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    return [link for link in links if not re.match(r"\w+:", link)]


def anchors_of(page):
    """Return the anchors that a Markdown viewer gives the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_readme_is_short():
    """At most 200 lines, and at most 1,200 words outside of tables."""
    lines = text_of(README).splitlines()
    words = sum(len(line.split()) for line in lines if not line.lstrip().startswith("|"))
    assert len(lines) <= 200 and words <= 1200, (len(lines), words)


@pages
def test_links_resolve(page):
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and ROOT in target.parents, link
        assert not anchor or anchor in anchors_of(target), link


@pages
def test_commands_exist(page):
    """A page names no script and no config that is not there."""
    text = text_of(page)
    for name in re.findall(r"python -m scripts\.(\w+)", text):
        assert (ROOT / f"scripts/{name}.py").exists(), name
    for name in re.findall(r"\bconfigs/(\w+)\.py", text):
        # x: the example of a new experiment
        assert name == "x" or (ROOT / f"configs/{name}.py").exists(), name


def test_readme_links_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links_of(README)}
    assert set(PAGES) - linked == {README}


def test_readme_has_a_command_for_every_experiment():
    named = set(re.findall(r"`--scale=paper (\w+)`", text_of(README)))
    assert named == set(experiments.names())
    assert {path.stem for path in (ROOT / "docs/results").glob("*.md")} == named


def test_no_text_is_told_twice():
    """No line of prose or of a table, of 60 characters or more, is in two places."""
    places = {}
    for page in PAGES:
        code = False
        for number, line in enumerate(text_of(page).splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            if not code and len(line) >= 60 and not line.startswith(("    ", "|---", "![")):
                places.setdefault(line.strip(), []).append(f"{page.relative_to(ROOT)}:{number}")
    twice = {line: where for line, where in places.items() if len(where) > 1}
    assert not twice


def test_robustness_names_existing_tests():
    rows = [line for line in text_of(ROOT / "docs/robustness.md").splitlines() if "::" in line]
    assert len(rows) > 20
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", "\n".join(rows)):
        assert f"\ndef {test}(" in text_of(ROOT / "tests" / file), f"{file}::{test}"

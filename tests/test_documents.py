"""The README is short and links each page; commands exist; tables are up to date.

tests/test_documents_site.py checks the links.
"""

from pathlib import Path
import re

import numpy as np
import pytest

import experiments
from ln.errors import InputError
from scripts.pages import documents
from tests.test_theory import EXCEPTIONS

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


def test_the_readme_is_short():
    """At most 200 lines, and at most 1,200 words outside of tables."""
    lines = text_of(README).splitlines()
    words = sum(len(line.split()) for line in lines if not line.lstrip().startswith("|"))
    assert len(lines) <= 200 and words <= 1200, (len(lines), words)


@pages
def test_commands_exist(page):
    """A page names no script and no config that is not there."""
    text = text_of(page)
    for name in re.findall(r"python -m scripts\.(\w+)", text):
        assert (ROOT / f"scripts/{name}.py").exists(), name
    for name in re.findall(r"\bconfigs/(\w+)\.py", text):
        # x: the example of a new experiment
        assert name == "x" or (ROOT / f"configs/{name}.py").exists(), name


@pages
def test_tables_of_numbers_are_up_to_date(page):
    """`python -m scripts.report --documents` writes them."""
    assert documents.fill(text_of(page), page) == text_of(page)


def test_results_are_generated_wherever_there_are_tables():
    """No table of a page of results, of claims or of speed is written by hand."""
    results = (ROOT / "docs/results").glob("*.md")
    for page in (*results, ROOT / "docs/claims.md", ROOT / "docs/speed.md"):
        assert "|---" not in documents.BLOCK.sub("", text_of(page)).replace(" ", ""), page


@pytest.mark.parametrize(
    "words, message",
    [
        ("curvs scenes r1 at 500", "Unknown generated block 'curvs'. Did you mean 'curves'?"),
        ("curves scenes r2 at 500", "Unknown panel 'r2'"),
        ("speed nothing", "No such file"),
        ("results here there", "positional argument"),
    ],
)
def test_an_invalid_block_gives_its_page_and_words(words, message):
    text = f"<!-- generated: {words} -->\n<!-- end -->"
    with pytest.raises(InputError, match=f"x.md: the block '{words}' is wrong: .*{message}"):
        documents.fill(text, Path("x.md"))


def test_a_block_without_an_end_leaves_the_text():
    text = "<!-- generated: results -->\n| 1 |\n"
    assert documents.fill(text, README) == text


def test_the_stored_analysis_has_the_expected_verdicts():
    """tests/test_theory.py checks the same of the computed one."""
    for check in documents.stored_analysis():
        assert check.holds is EXCEPTIONS.get((check.number, check.statement), True), check


def test_readme_links_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links_of(README)}
    assert set(PAGES) - linked == {README}


def test_readme_has_a_command_for_every_experiment():
    named = set(re.findall(r"`--scale=paper (\w+)`", text_of(README)))
    assert named == set(experiments.names())
    assert {path.stem for path in (ROOT / "docs/results").glob("*.md")} == named


def test_no_text_is_repeated():
    """No line of prose or of a table, of 60 characters or more, is in two places."""
    places = {}
    for page in PAGES:
        code = False
        text = documents.BLOCK.sub(r"\1\3", text_of(page))  # tables may share rows
        for number, line in enumerate(text.splitlines(), 1):
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


def test_a_median_counts_seeds_that_never_arrive():
    """The second and the ninth of ten sorted times bound the median with 97.9 % (binomial)."""
    times = np.array([3, 1, 2, 10, 4, 5, np.nan, np.nan, 7, 6.0])
    assert documents.waiting(times) == "5.5 [2, never], 8 of 10"
    assert documents.waiting(times[:5]) == "3, 5 of 5"
    assert documents.waiting(np.full(3, np.nan)) == "never in 3"

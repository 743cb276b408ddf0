"""The product stays small: lines of code against a budget for each part.

    python -m tests.test_budgets      prints the table

A line of code is a line with at least one token besides comments and docstrings, as ruff formats it
at 100 columns. A test fails if a part is more than a tenth above its budget.
"""

import ast
import io
from pathlib import Path
import tokenize

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("configs", "ln", "experiments", "scripts")
NO_CODE = "COMMENT NL NEWLINE INDENT DEDENT ENDMARKER".split()


def lines_of_code(path: Path) -> int:
    source = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {
        line
        for token in tokens
        if tokenize.tok_name[token.type] not in NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - docstring_lines(ast.parse(source)))


def docstring_lines(tree: ast.Module) -> set[int]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, owners)]
    strings = [n.body[0] for n in nodes if ast.get_docstring(n, clean=False) is not None]
    return {line for s in strings for line in range(s.lineno, s.end_lineno + 1)}


def python(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern)})


PATTERNS = {
    "product": [f"{folder}/**/*.py" for folder in PRODUCT],
    "reading core": ["ln/**/*.py", "experiments/*/model.py", "experiments/*/task.py"],
    "benchmarks": ["scripts/benchmarks/*.py", "scripts/benchmark.py"],
    "data sets": ["experiments/datasets/**/*.py"],
    "tests": ["tests/**/*.py"],
}
BUDGETS = {
    "product": 11_000,
    "reading core": 3_600,
    "benchmarks": 1_300,
    "data sets": 1_800,
    "tests": 9_000,
}


def measured(part: str) -> tuple[int, str]:
    """Return the lines of code of a part, and a row of the table."""
    lines, budget = sum(map(lines_of_code, python(*PATTERNS[part]))), BUDGETS[part]
    return lines, f"{part:14} {lines:7,}, budget {budget:,}, fails above {1.1 * budget:,.0f}"


@pytest.mark.parametrize("part", BUDGETS)
def test_a_part_is_at_most_a_tenth_above_its_budget(part):
    lines, row = measured(part)
    assert lines <= 1.1 * BUDGETS[part], row


if __name__ == "__main__":
    for name in BUDGETS:
        print(measured(name)[1])
    for suffix in ("html", "toml", "sh", "ci/run", "md"):
        tracked = [p for p in ROOT.rglob(f"*{suffix}") if not {".venv", ".cache"} & {*p.parts}]
        print(
            f"{suffix:14} {sum(len(p.read_text().splitlines()) for p in tracked):7,}, not limited"
        )

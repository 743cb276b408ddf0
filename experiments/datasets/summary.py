"""Print what was read from original files."""

from collections.abc import Mapping


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table with a column for each split and the same rows in each."""
    rows = next(iter(columns.values()))
    lines = [" " * 40 + "".join(f"{name:>14}" for name in columns)]
    for row in rows:
        lines.append(f"  {row:<38}" + "".join(f"{cells[row]:>14}" for cells in columns.values()))
    return "\n".join(lines)


def compare(what: str, count: int, original: int) -> None:
    """Print a note if a count differs from the count in the original corpus."""
    if count != original:
        print(f"  NOTE: {what}: {count:,}; the original has {original:,}")

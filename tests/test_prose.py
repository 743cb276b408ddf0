"""Texts and names are plain English: none has the phrases below, which readers had to decode.

python -m pytest -q tests/test_prose.py -k scripts      lists each place in a folder
"""

import ast
import io
from pathlib import Path
import re
import tokenize

import pytest

ROOT = Path(__file__).parents[1]
PHRASES = {  # phrase -> what to write in its place
    r"(?:^|(?<=[.!?:] ))(?:Of|What|Whatever|Where|Whether)\b(?![^.]*\?)": "subject, verb, object",
    r"\btold\b(?! apart)|\btells\b|\bsa(?:ys|id) of\b": "who logs, prints or returns what",
    r"\b(?:any|every|no|some)body\b|\bwhoever\b": "the user, the caller, each process",
    r"\bof (?:its|their) own\b|\bgiven again\b|\bas (?:it|they) comes?\b": "separate, rerun",
    r"\bl(?:ies?|ying)\b|\bstands?\b(?! for|-)": "is, is stored",
    r"\bgo(?:es|ing)? on\b|\bwent on\b": "continues",
    r"\brefus(?:e[sd]?|al)\b|\bshall\b|\balike\b|\bstrangers?\b": "raises, must, the same",
    r"\bdead\b|\bbur(?:y|ied)\b": "diverged",
    r"(?<!in )(?<!in this )(?<!upper )(?<!lower )\bcases?\b(?![=:'])": "example",
    r"(?<!standard )(?<!absolute )\bdeviations?\b": "standard deviation",
    r"[.:;] else\b": "if not",
}
NAMES = r"of|of_\w+|found|one|other"
NO_VERBS = r"(?:Al?l?|An|As|At|How|I[fnt]s?|No|O[fn]e?|Some|The[rs]?e?|Th[ao]se|Wh\w+|With)\b"
CODE = re.compile(r"```.*?```|`[^`]*`|<!-- generated.*?<!-- end -->", re.DOTALL)
TEXTS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def files(folder: str) -> list[Path]:
    if folder != "documents":
        return sorted(ROOT.glob(f"{folder}/**/*.py"))
    # Not LOG.md, which is history.
    return [p for pages in ("[!L]*", "results/*", "docs/**/*") for p in ROOT.glob(f"{pages}.md")]


def faults(path: Path):
    """Yield (line, fault) for each text or name of a file that breaks a rule."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        prose = CODE.sub(lambda code: "\n" * code[0].count("\n") or "`", text)
        texts = [(n, line.lstrip("*- ")) for n, line in enumerate(prose.splitlines(), 1)]
    else:
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        texts = [(t.start[0], t.string) for t in tokens if t.type in TEXTS and " " in t.string]
        for node in ast.walk(ast.parse(text)):
            stored = isinstance(getattr(node, "ctx", None), ast.Store)
            name = getattr(node, "id" if stored else "name", None) or getattr(node, "arg", "") or ""
            if isinstance(name, str) and re.fullmatch(NAMES, name):
                yield node.lineno, f"the name {name}: a noun that says what it holds"
            if not isinstance(node, ast.FunctionDef):
                continue
            is_property = any("property" in ast.unparse(d) for d in node.decorator_list)
            if name.startswith("test_"):
                texts.append((node.lineno, name[5:].capitalize().replace("_", " ")))
                if len(name) > 60:
                    yield node.lineno, f"{name} has {len(name)} characters; at most 60"
            elif not is_property and re.match(NO_VERBS, ast.get_docstring(node) or ""):
                yield node.lineno, f"{name}: start the docstring with a verb"
    for line, text in texts:
        text = " ".join(CODE.sub("`", re.sub(r"^[rf]*[\"'#]+ ?|[\"']+$", "", text)).split())
        for phrase, instead in PHRASES.items():
            for match in re.finditer(phrase, text):
                # Benchmarks use the word for what they time.
                if instead != "example" or not re.search("benchmark|speed", path.as_posix()):
                    yield line, f"…{text[max(0, match.start() - 20) :][:60]}…: {instead}"


@pytest.mark.parametrize("folder", "documents configs ln experiments scripts tests".split())
def test_texts_are_plain_english(folder):
    listed = [f"{path}:{line}: {fault}" for path in files(folder) for line, fault in faults(path)]
    assert not listed, "\n".join(listed)

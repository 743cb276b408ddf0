"""Lay out the documentation site as the repository, so that the links between files stay valid.

mkdocs calls `on_files` and `on_page_markdown`. The site has the pages below, the notebook as a
page, and each file that a page links to, such as a figure or a module.
"""

import json
from pathlib import Path
import re

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "results/README.md",
    "docs/**/*.md",
    "docs/site.css",
)
NOTEBOOK = ROOT / "docs/tutorial.ipynb"
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def on_files(files, config):
    """Return the files of the site in place of those in docs/; those of the theme stay."""
    pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    links = ((page, link) for page in pages for link in LINK.findall(page.read_text("utf-8")))
    linked = {(page.parent / link).resolve() for page, link in links}
    site = [file for file in files if file.src_dir != config.docs_dir]
    for path in [*pages, *sorted(linked - set(pages) - {NOTEBOOK})]:
        if path.is_file():  # mkdocs itself reports a link to nowhere
            uri = path.relative_to(ROOT).as_posix()
            site.append(File.generated(config, uri, abs_src_path=str(path)))
    tutorial = NOTEBOOK.relative_to(ROOT).with_suffix(".md").as_posix()
    return Files([*site, File.generated(config, tutorial, content=markdown(NOTEBOOK))])


def on_page_markdown(markdown, **_):
    """Return a page whose links to the notebook lead to its page."""
    return markdown.replace("tutorial.ipynb)", "tutorial.md)")


def markdown(notebook: Path) -> str:
    """Return a notebook with its outputs as Markdown."""
    parts = []
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if picture := data.get("image/png"):
                url = "data:image/png;base64," + "".join(picture).strip()
                parts.append(f"![The figure that the cell above draws]({url})")
            elif text := "".join(output.get("text") or data.get("text/plain", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"

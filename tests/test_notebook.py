"""The tutorial runs, and its stored outputs are those of its code."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")

TUTORIAL = Path(__file__).parent.parent / "docs/tutorial.ipynb"


def outputs_of(notebook):
    """Return the kinds of output of each cell."""
    outputs = (cell.get("outputs", ()) for cell in notebook.cells)
    return [{kind for output in cell for kind in output.get("data", ["text"])} for cell in outputs]


@pytest.mark.slow
def test_the_tutorial_runs():
    """Four updates in place of 200 give outputs of the same kinds, and one figure."""
    notebook = nbformat.read(TUTORIAL, as_version=4)
    stored = outputs_of(notebook)
    for cell in notebook.cells:
        cell.source = cell.source.replace("updates = 200", "updates = 4")
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    assert outputs_of(notebook) == stored
    assert sum("image/png" in kinds for kinds in stored) == 1

"""Section 5 as numbers."""

import base64

from experiments.theory import theory
from scripts.pages.drawing import draw_panels


def page() -> tuple[dict, dict[str, bytes]]:
    """What the template shows of section 5, and its pictures by file name."""
    shown, pictures = [], {}
    for function in theory.DEMONSTRATIONS:
        found, name = function(theory.SEED), function.__name__
        if found.panels:
            pictures[f"{name}.png"] = draw_panels(found.panels, found.columns)
        embedded = [
            (panel.title, base64.b64encode(draw_panels([panel], 1)).decode())
            for panel in found.panels
        ]
        shown.append(dict(name=name, demonstration=found, pictures=embedded))
    return dict(shown=shown, seed=theory.SEED), pictures

"""Section 5 as numbers: what its template shows."""

from typing import Any

from experiments.claims import CLAIMS
from experiments.rules import CONFIRMED, CONTRADICTED, NOT_DECIDED
from experiments.theory import SEED, analysis
from experiments.theory.checks import sci

WORDS = {True: CONFIRMED, False: CONTRADICTED, None: NOT_DECIDED}


def page() -> dict[str, Any]:
    """Return what the template shows of section 5."""
    claims = {claim.number: claim for claim in CLAIMS}
    return dict(results=analysis(), claims=claims, words=WORDS, sci=sci, seed=SEED)

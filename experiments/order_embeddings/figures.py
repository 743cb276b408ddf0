"""Figure 1 and table 2 (§6.1): retrieval with order embeddings."""

from experiments.curves import Figure, Panel, Style, Table

RANKS = dict(r1="R@1", r5="R@5", r10="R@10", mean="mean rank")
RECALL: Style = dict(
    digits=".2f",
    x_per=300,
    landmarks=(20, 30, 40, 50, 60, 75, 100, 125, 150, 165, 200, 250, 270),
    summaries=(("mean", 10), ("max", 0)),
    falling=False,
)
PAIRS: Style = RECALL | dict(split="test", metric="order", label="pairs in order [%]", times=100)
PAIRS |= dict(digits=".1f", limits=(50.0, 100.0), landmarks=(), summaries=(("mean", 10),))


def recall(K: int, **options) -> Panel:
    """Return the panel of image retrieval among the first K."""
    return Panel(
        f"r{K}", f"recall at {K}", "valid", f"image_r{K}", f"R@{K} [%]", **RECALL, **options
    )


def rank(what: str, key: str) -> Panel:
    """Return a column of table 2."""
    label = f"{what} retrieval {RANKS[key]}"
    options: Style = dict(digits=".1f", falling=key == "mean")
    return Panel(f"table_2_{what}_{key}", "", "test", f"{what}_{key}", label, **options)


FIGURES = (
    Figure(
        name="figure_1",
        title="Figure 1: order embeddings",
        caption="Image retrieval on the validation set: how often a caption's own image is among "
        "the first 1, 5 and 10 of a fold of images (R@K). Recall falls with the number of images "
        "and their similarity, so numbers on other data cannot be compared with the paper's, which "
        "are on 1,000 images of MSCOCO. Batch norm is not in the paper.",
        source="Ba, Kiros and Hinton (2016), figure 1",
        panels=(
            recall(1, limits=(34.0, 43.0), levels=(38.0, 39.0, 40.0, 41.0)),
            recall(5, limits=(71.0, 78.0), levels=(75.0, 76.0, 77.0)),
            recall(10, limits=(84.0, 90.0), levels=(87.0, 88.0, 89.0)),
        ),
    ),
    Figure(
        name="order",
        title="Order of captions",
        caption="For two captions of an image of which one says less than the other: how often the "
        "one that says less is nearer to being above the other than the reverse. Chance is 50 %. "
        "Only data that mark such pairs, such as the built-in scenes, have this metric.",
        panels=(Panel(**PAIRS, name="order", title="captions that say less and more"),),
    ),
)

TABLES = (
    Table(
        name="table_2",
        title="Table 2: retrieval on the test set",
        caption="The mean over five folds of 1,000 images and 5,000 captions; of other data, over "
        "as many folds as there are. Ours: at the step with the highest sum of R@1, R@5 and R@10 "
        "of image retrieval on the validation set, chosen for each seed.",
        source="Ba, Kiros and Hinton (2016), table 2; a caption's rank is that of the best of an "
        "image's five",
        columns=tuple(rank(what, key) for what in ("caption", "image") for key in RANKS),
    ),
)

"""Figures and table of §6.1 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, Table, typed

UNITS = dict(x="step", x_per=300, x_label="unit (300 updates)")

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="figure_1",
        title="Figure 1: order embeddings",
        caption="Image retrieval on the validation set: how often a caption's own image is among "
        "the first 1, 5 and 10 of a fold of images (R@K). A unit of the x axis is 300 updates. "
        "Recall falls with the number of images and their similarity, so numbers on other data "
        "cannot be compared with the paper's, which are on 1,000 images of MSCOCO. Batch norm is "
        "not in the paper.",
        source="Ba, Kiros and Hinton (2016), figure 1",
        columns=3,
        panels=tuple(
            dict(
                UNITS,
                name=f"r{K}",
                title=f"recall at {K}",
                where={},
                split="valid",
                metric=f"image_r{K}",
                label=f"R@{K} [%]",
                digits=".2f",
                limits=limits,
                landmarks=(20, 30, 40, 50, 60, 75, 100, 125, 150, 165, 200, 250, 270),
                summaries=(("mean", 10), ("max", 0)),
                levels=levels,
                falling=False,
            )
            for K, limits, levels in (
                (1, (34.0, 43.0), (38.0, 39.0, 40.0, 41.0)),
                (5, (71.0, 78.0), (75.0, 76.0, 77.0)),
                (10, (84.0, 90.0), (87.0, 88.0, 89.0)),
            )
        ),
    ),
    dict(
        name="order",
        title="Order of captions",
        caption="Of two captions of an image of which one says less than the other: how often the "
        "one that says less is nearer to lying above the other than the other way round. Chance is "
        "50 %. Only data that say which captions these are, such as the built-in scenes, have it. "
        "That one lies above the other altogether, in every coordinate, cannot be: the model's "
        "points are all of length 1 and have no negative coordinates, so it would be the same "
        "point.",
        source=None,  # not in the paper
        columns=1,
        panels=(
            dict(
                UNITS,
                name="order",
                title="captions that say less and more",
                where={},
                split="test",
                metric="order",
                label="pairs in order [%]",
                times=100,
                digits=".1f",
                limits=(50.0, 100.0),
                summaries=(("mean", 10),),
                falling=False,
            ),
        ),
    ),
)

TABLES = typed(
    Table,
    __name__,
    dict(
        name="table_2",
        title="Table 2: retrieval on the test set",
        caption="The mean over five folds of 1,000 images and 5,000 captions; of other data, over "
        "as many folds as there are. Ours: at the step with the highest sum of R@1, R@5 and R@10 "
        "of image retrieval on the validation set, each seed at its own.",
        source="Ba, Kiros and Hinton (2016), table 2; a caption's rank is that of the best of an "
        "image's five",
        columns=tuple(
            dict(
                name=f"table_2_{what}_{metric}",
                label=f"{what} retrieval {label}",
                split="test",
                metric=f"{what}_{metric}",
                digits=".1f",
            )
            for what in ("caption", "image")
            for metric, label in (
                ("r1", "R@1"),
                ("r5", "R@5"),
                ("r10", "R@10"),
                ("mean", "mean rank"),
            )
        ),
        rows=(
            dict(
                model="symmetric, Vendrov et al.",
                norm=None,
                values=(45.4, None, 88.7, 5.8, 36.3, None, 85.8, 9.0),
            ),
            dict(
                model="order embeddings, Vendrov et al.",
                norm=None,
                values=(46.7, None, 88.9, 5.7, 37.9, None, 85.9, 8.1),
            ),
            dict(
                model="order embeddings",
                norm="none",
                values=(46.6, 79.3, 89.1, 5.2, 37.8, 73.6, 85.7, 7.9),
            ),
            dict(
                model="order embeddings, layer norm",
                norm="layer",
                values=(48.5, 80.6, 89.8, 5.1, 38.9, 74.3, 86.3, 7.6),
            ),
        ),
    ),
)

MAIN = dict(panel="r1")  # the curve that sums it up

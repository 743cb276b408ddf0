"""Figures and table of §6.3 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, Table, typed

UNITS = dict(
    where={},
    x="step",
    x_per=50_000,
    x_label="updates / 50,000",
    landmarks=(1, 2, 5, 10, 15, 16, 20, 25, 30, 34),
    summaries=(("median", 2),),
)
ERROR = dict(metric="mse", label="mean square error x 100", times=100, digits=".2f")
R = dict(metric="r", label="Pearson's r x 100", times=100, digits=".1f", falling=False)
ACCURACY = dict(metric="accuracy", label="accuracy [%]", digits=".1f", falling=False)

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="figure_3",
        title="Figure 3: skip-thoughts on the five sentence tasks",
        caption="What linear classifiers make of the vectors of sentences, over the course of "
        "training the encoder: relatedness of pairs (SICK) on its test set, and five kinds of "
        "sentences told apart in nested tenfold cross-validation. Bands: the paper's are of ten "
        "folds, ours of seeds. That of Kiros et al. is of the vectors they gave away.",
        source="Ba, Kiros and Hinton (2016), figure 3",
        columns=3,
        panels=(
            dict(UNITS, **R, name="sick_r", title="SICK", split="sick", limits=(82.0, 86.0)),
            dict(UNITS, **ERROR, name="sick_mse", title="SICK", split="sick", limits=(27.0, 34.0)),
            dict(UNITS, **ACCURACY, name="mr", title="MR", split="mr", limits=(70.0, 82.0)),
            dict(UNITS, **ACCURACY, name="cr", title="CR", split="cr", limits=(74.0, 86.0)),
            dict(UNITS, **ACCURACY, name="subj", title="SUBJ", split="subj", limits=(90.0, 94.5)),
            dict(UNITS, **ACCURACY, name="mpqa", title="MPQA", split="mpqa", limits=(83.0, 91.0)),
        ),
    ),
    dict(
        name="library",
        title="Skip-thoughts on tasks of the built-in data",
        caption="As figure 3, on tasks made of Python's own documentation: how related two of its "
        "sentences are, which of two fields a sentence is about, and which of two sources it is "
        "from. They stand in for the five tasks, whose files nobody may pass on.",
        source=None,  # not in the paper
        columns=2,
        panels=(
            dict(UNITS, **R, name="pairs_r", title="pairs", split="pairs", limits=(0.0, 100.0)),
            dict(UNITS, **ERROR, name="pairs_mse", title="pairs", split="pairs", limits=(0.0, 100)),
            dict(UNITS, **ACCURACY, name="topic", title="topic", split="topic", limits=(50.0, 100)),
            dict(UNITS, **ACCURACY, name="style", title="style", split="style", limits=(50.0, 100)),
        ),
    ),
    dict(
        name="neighbours",
        title="Skip-thoughts: telling the neighbours",
        caption="What the encoder is trained for: −log p of the words of the sentences before and "
        "behind, in books that it was not trained on.",
        source=None,  # not in the paper
        columns=1,
        panels=(
            dict(
                UNITS,
                name="nll",
                title="validation",
                split="valid",
                metric="nll",
                label="nats per word",
                digits=".3f",
                limits=(3.5, 5.0),
            ),
        ),
    ),
)

TABLES = typed(
    Table,
    __name__,
    dict(
        name="table_3",
        title="Table 3: skip-thoughts on the five sentence tasks",
        caption="The row without norm is that of the checkpoint after 800,000 updates, by figure "
        "3; that with layer norm of the one after a million. Ours: at the step with the lowest "
        "validation nll, each seed at its own.",
        source="Ba, Kiros and Hinton (2016), table 3",
        columns=tuple(
            dict(name=f"table_3_{name}", label=label, split=split, metric=metric, digits=digits)
            for name, label, split, metric, digits in (
                ("sick_r", "SICK r", "sick", "r", ".3f"),
                ("sick_rho", "SICK ρ", "sick", "rho", ".3f"),
                ("sick_mse", "SICK MSE", "sick", "mse", ".3f"),
                ("mr", "MR", "mr", "accuracy", ".1f"),
                ("cr", "CR", "cr", "accuracy", ".1f"),
                ("subj", "SUBJ", "subj", "accuracy", ".1f"),
                ("mpqa", "MPQA", "mpqa", "accuracy", ".1f"),
            )
        ),
        rows=(
            dict(
                model="skip-thoughts, Kiros et al.",
                norm=None,
                values=(0.848, 0.778, 0.287, 75.5, 79.3, 92.1, 86.9),
            ),
            dict(
                model="skip-thoughts",
                norm="none",
                values=(0.842, 0.767, 0.298, 77.3, 81.8, 92.6, 87.9),
            ),
            dict(
                model="skip-thoughts, layer norm",
                norm="layer",
                values=(0.854, 0.785, 0.277, 79.5, 82.6, 93.4, 89.0),
            ),
            dict(
                model="… for 1.7 million updates",
                norm="month",
                values=(0.858, 0.788, 0.270, 79.4, 83.1, 93.7, 89.3),
            ),
        ),
    ),
)

PAPER_ONLY = "month", "original"  # rows and curves of the paper that are no norm of ours

SPEED = dict(
    name="skip_thoughts",  # results/speed/<name>.json
    case="full",
    peers={"none": "ours without norm", "layer": "ours"},
)

MAIN = dict(panel="mr")  # the curve that sums it up

"""Figure 3 and table 3 (§6.3): skip-thought vectors on sentence tasks."""

from experiments.curves import Figure, Panel, Style, Table

UPDATES: Style = dict(
    x_per=50_000, landmarks=(1, 2, 5, 10, 15, 16, 20, 25, 30, 34), summaries=(("median", 2),)
)
R: Style = dict(
    UPDATES, metric="r", label="Pearson's r x 100", times=100, digits=".1f", falling=False
)
MSE: Style = dict(UPDATES, metric="mse", label="mean square error x 100", times=100, digits=".2f")
ACCURACY: Style = dict(
    UPDATES, metric="accuracy", label="accuracy [%]", digits=".1f", falling=False
)


def column(name: str, label: str, split: str, metric: str, digits: str, falling=True) -> Panel:
    """Return a column of table 3."""
    return Panel(f"table_3_{name}", "", split, metric, label, digits=digits, falling=falling)


FIGURES = (
    Figure(
        name="figure_3",
        title="Figure 3: skip-thoughts on the five sentence tasks",
        caption="Results of linear classifiers on the vectors of sentences, over the course of "
        "training the encoder: relatedness of pairs (SICK) on its test set, and classification of "
        "five kinds of sentences in nested tenfold cross-validation. Bands: the paper's are over "
        "ten folds, ours over seeds. Kiros et al.'s is of their published vectors.",
        source="Ba, Kiros and Hinton (2016), figure 3",
        panels=(
            Panel(**R, name="sick_r", title="SICK", split="sick", limits=(82.0, 86.0)),
            Panel(**MSE, name="sick_mse", title="SICK", split="sick", limits=(27.0, 34.0)),
            Panel(**ACCURACY, name="mr", title="MR", split="mr", limits=(70.0, 82.0)),
            Panel(**ACCURACY, name="cr", title="CR", split="cr", limits=(74.0, 86.0)),
            Panel(**ACCURACY, name="subj", title="SUBJ", split="subj", limits=(90.0, 94.5)),
            Panel(**ACCURACY, name="mpqa", title="MPQA", split="mpqa", limits=(83.0, 91.0)),
        ),
    ),
    Figure(
        name="library",
        title="Skip-thoughts on tasks of the built-in data",
        caption="Like figure 3, on tasks made from Python's own documentation: how related two of "
        "its sentences are, which of two fields a sentence is about, and which of two sources it "
        "is from. They replace the five tasks, whose files must not be redistributed.",
        panels=(
            Panel(**R, name="pairs_r", title="pairs", split="pairs", limits=(0.0, 100.0)),
            Panel(**MSE, name="pairs_mse", title="pairs", split="pairs", limits=(0.0, 100.0)),
            Panel(**ACCURACY, name="topic", title="topic", split="topic", limits=(50.0, 100.0)),
            Panel(**ACCURACY, name="style", title="style", split="style", limits=(50.0, 100.0)),
        ),
    ),
    Figure(
        name="neighbours",
        title="Skip-thoughts: predicting the neighbours",
        caption="The encoder's training objective: −log p of the words of the sentences before and "
        "after, in books that are not in the training set.",
        panels=(
            Panel(
                "nll", "validation", "valid", "nll", "nats per word", limits=(3.5, 5.0), **UPDATES
            ),
        ),
    ),
)

TABLES = (
    Table(
        name="table_3",
        title="Table 3: skip-thoughts on the five sentence tasks",
        caption="The row without norm is that of the checkpoint after 800,000 updates, by figure "
        "3; that with layer norm is of the one after a million. Ours: at the step with the lowest "
        "validation nll, chosen for each seed.",
        source="Ba, Kiros and Hinton (2016), table 3",
        columns=(
            column("sick_r", "SICK r", "sick", "r", ".3f", falling=False),
            column("sick_rho", "SICK ρ", "sick", "rho", ".3f", falling=False),
            column("sick_mse", "SICK MSE", "sick", "mse", ".3f"),
            *(
                column(name, name.upper(), name, "accuracy", ".1f", falling=False)
                for name in ("mr", "cr", "subj", "mpqa")
            ),
        ),
    ),
)

# The benchmark in results/speed/step.json; peers: norm -> its name there.
PEERS = {"none": "ours without norm", "layer": "ours"}
SPEED = dict(case="skip_thoughts", peers=PEERS)

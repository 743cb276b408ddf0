"""Figures of §6.2 in the report; `experiments.curves` documents the fields."""

from experiments.curves import Figure, typed

FIGURES = typed(
    Figure,
    __name__,
    dict(
        name="figure_2",
        title="Figure 2: the attentive reader",
        caption="How often, on the validation set, another word than the answer is the most "
        "probable of the whole vocabulary. With batch norm (BN-LSTM in the paper) it is in the "
        "LSTMs; with batch norm everywhere also in attention and read-out. In the paper's data 57 "
        "% of the passages, cut to four sentences, still have the answer; in other data more, so "
        "that errors cannot be compared. On the built-in stories a "
        "perfect reader has an error of 0.05, and a model that guesses among the entities of the "
        "story has 0.75. Layer norm with gains of 0.1, of which §6.2 says that it was worse, is "
        "not in the paper's figure.",
        source="Ba, Kiros and Hinton (2016), figure 2; all curves but layer norm's are those of "
        "Cooijmans et al. (2016)",
        columns=1,
        panels=(
            dict(
                name="valid",
                title="validation",
                where={},
                split="valid",
                metric="error",
                label="error rate",
                limits=(0.4, 1.0),
                x="step",
                x_per=1000,
                x_label="updates / 1,000",
                landmarks=(0.5, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 75, 100, 125, 150, 200)
                + (250, 300, 400, 500, 600, 700),
                summaries=(("median", 10), ("min", 0)),
                levels=(0.8, 0.6, 0.55, 0.52, 0.51, 0.5),
            ),
        ),
    ),
)

MAIN = dict(panel="valid")  # the curve that sums it up

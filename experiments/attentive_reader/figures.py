"""Figure 2 (§6.2): validation error of the attentive reader."""

from experiments.curves import Figure, Panel, Style

ERROR: Style = dict(
    limits=(0.4, 1.0),
    x_per=1000,
    landmarks=(0.5, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 75, 100, 125, 150)
    + (200, 250, 300, 400, 500, 600, 700),
    levels=(0.8, 0.6, 0.55, 0.52, 0.51, 0.5),
)

FIGURES = (
    Figure(
        name="figure_2",
        title="Figure 2: the attentive reader",
        caption="Share of the validation questions for which the most probable word of the whole "
        "vocabulary is not the answer. Batch norm (BN-LSTM in the paper) is in the LSTMs; batch "
        "norm everywhere is also in attention and read-out. In the paper's data 57 % of the "
        "passages, cut to four sentences, still contain the answer; in other data more do, so "
        "errors cannot be compared. On the built-in stories a perfect reader has an error of 0.05, "
        "and a model that guesses among the entities of the story has 0.75. Layer norm with gains "
        "of 0.1, which §6.2 calls worse, is not in the paper's figure.",
        source="Ba, Kiros and Hinton (2016), figure 2; all curves but layer norm's are those of "
        "Cooijmans et al. (2016)",
        panels=(Panel("valid", "validation", "valid", "error", "error rate", **ERROR),),
    ),
)

"""The 31 claims of the paper in our words: one row each, with what decides it.

Claims of the experiment "theory" are decided by the checks of `experiments.theory`, all others by
pairs of runs and the rules of `experiments.rules`.
"""

from experiments.rules import AXES, Claim, Part, best, better, faster, later, ratio, sooner

TASKS = "sick_r", "sick_mse", "mr", "cr", "subj", "mpqa"
BUILT_IN = "pairs_r", "pairs_mse", "topic", "style"  # stand-ins for the five tasks
TABLE_2 = tuple(
    f"table_2_{what}_{K}" for what in ("caption", "image") for K in ("r1", "r5", "r10", "mean")
)
OTHERS = "none", "batch", "everywhere"  # norms of the reader in figure 2, apart from layer norm
FASTER = 1.1  # the least factor that counts, since readings are noisy


def against(rule, panel: str, norm: str = "layer", baseline: str = "none", **options) -> Part:
    """Return a comparison of two norms in the same panel."""
    return Part(rule, (panel, norm), (panel, baseline), **options)


def each(rule, *panels: str, **options) -> tuple[Part, ...]:
    """Return the comparison of two norms, by default layer norm with no norm, in each panel."""
    return tuple(against(rule, panel, **options) for panel in panels)


def trends(panel: str) -> tuple[Part, ...]:
    """Return how the speed-up over no norm changes along each axis."""
    return tuple(against(faster, panel, per=axis) for axis in AXES)


CLAIMS = (
    Claim(1, "§3", "Layer norm introduces no dependency between training examples."),
    Claim(2, "abstract", "Layer norm computes the same in training and in test."),
    Claim(3, "§3", "Layer norm works with batches of one."),
    Claim(
        4,
        "§3.1",
        "A recurrent network keeps no statistics per time step, and runs on longer sequences than "
        "in training.",
    ),
    Claim(5, "table 1", "Table 1: the invariances of each method."),
    Claim(
        6,
        "§5.1, eq. 6",
        "Layer norm is invariant to adding the same γ to the weight vectors of all units, but not "
        "to rescaling a single one.",
    ),
    Claim(7, "§5.1, eq. 7", "Layer norm is invariant to rescaling a single example."),
    Claim(
        8,
        "§4",
        "Weight norm, and batch norm with given statistics, reparametrize the plain network; layer "
        "norm does not.",
    ),
    Claim(
        9,
        "§5.2.2",
        "Doubling the weights changes the curvature along them by a factor of ½.",
        reading="An error in the wording: the block of the weights alone changes by ¼, that of "
        "weights and bias, or of weights and gain, by ½.",
        is_erratum=True,
    ),
    Claim(
        10,
        "§5.2.2",
        "The norm of the weights grows, so that directions turn less and less: an implicit early "
        "stop.",
    ),
    Claim(
        11,
        "§5.2.2, eqs. 32–35",
        "Learning magnitudes through gains is robust to the scale of the inputs under batch and "
        "layer norm, not without norm.",
    ),
    Claim(12, "§3.1", "Layer norm stabilizes the hidden-to-hidden dynamics."),
    Claim(
        13,
        "§6.1, figure 1",
        "Layer norm needs fewer updates in all metrics.",
        "order_embeddings",
        parts=each(faster, "r1", "r5", "r10", margin=FASTER),
    ),
    Claim(
        14,
        "§6.1, figure 1",
        "It reaches its best validation model in 60 % of the baseline's time.",
        "order_embeddings",
        reading="60 %: less than 80 % of the time, a factor above 1.25.",
        parts=each(sooner, "r1+r5+r10", margin=1.25),
    ),
    Claim(
        15,
        "§6.1, table 2",
        "It also generalizes better: all eight test results are better.",
        "order_embeddings",
        parts=each(better, *TABLE_2, peak="r1+r5+r10"),
    ),
    Claim(
        16,
        "§6.2, figure 2",
        "It trains faster than no norm, batch norm in the LSTMs and batch norm everywhere.",
        "attentive_reader",
        parts=tuple(against(faster, "valid", baseline=norm, margin=FASTER) for norm in OTHERS),
    ),
    Claim(
        17,
        "§6.2, figure 2",
        "It converges to a better validation error than all three.",
        "attentive_reader",
        parts=tuple(against(best, "valid", baseline=norm) for norm in OTHERS),
    ),
    Claim(
        18,
        "§6.2",
        "Gains that start at 1 do significantly better than gains that start at 0.1.",
        "attentive_reader",
        parts=each(better, "valid", baseline="layer_small"),
    ),
    Claim(
        19,
        "§6.3",
        "Layer norm does not slow an update down significantly.",
        "skip_thoughts",
        reading="Not significantly: a step at full size (2,400 units, 64 sentences of 30 words) "
        "takes less than 1.15 times as long. A pair is a round of the benchmark.",
        parts=each(ratio, "seconds", margin=1 / 1.15),
        is_timing=True,
    ),
    Claim(
        20,
        "§6.3, figure 3, table 3",
        "It trains faster and is better on all five tasks after a million updates.",
        "skip_thoughts",
        parts=each(faster, *TASKS, margin=FASTER) + each(better, *TASKS),
        stand_ins=each(faster, *BUILT_IN, margin=FASTER) + each(better, *BUILT_IN),
    ),
    Claim(
        21,
        "§6.3, table 3",
        "Trained for 1.7 million updates it improves further on all tasks but one.",
        "skip_thoughts",
        reading="Further: than after 10/17 of the updates, by when its curves must have stopped "
        "climbing; otherwise any network would pass.",
        parts=each(later, *TASKS, baseline="layer"),
        stand_ins=each(later, *BUILT_IN, baseline="layer"),
        spare=1,
        setting=('steps: "1000000 steps" -> "1700000 steps"',),
    ),
    Claim(
        22,
        "§6.4, figure 4",
        "It converges almost twice as fast.",
        "draw",
        reading="Almost twice: a factor above 1.5, nearer to twice than to once.",
        parts=each(faster, "bound", margin=1.5),
    ),
    Claim(
        23,
        "§6.4",
        "After 200 epochs its bound is slightly better: 82.09 nats against 82.36.",
        "draw",
        parts=each(better, "bound"),
    ),
    Claim(
        24,
        "§6.5, figure 5",
        "It converges to a comparable log likelihood, much faster.",
        "handwriting",
        reading="Much: a factor above 2. Comparable: not worse by 20 nats.",
        parts=each(faster, "test", margin=2.0) + each(better, "test", margin=-20.0),
    ),
    Claim(
        25,
        "§6.6, figure 6",
        "Layer norm is robust to the batch size.",
        "mnist",
        reading="From batch size 128 to 4 the test error worsens less than with batch norm.",
        parts=each(better, "error_batch4", baseline="batch", minus="error_batch128"),
    ),
    Claim(
        26,
        "§6.6, figure 6",
        "It trains faster than batch norm in all layers.",
        "mnist",
        parts=each(faster, "nll_batch128", "nll_batch4", baseline="batch", margin=FASTER),
    ),
    Claim(
        27,
        "§6.7",
        "In convolutional networks layer norm is faster than no norm, and batch norm than both.",
        "convnet",
        parts=(
            against(faster, "train_nll", margin=FASTER),
            against(faster, "train_nll", "batch", "layer", margin=FASTER),
        ),
    ),
    Claim(
        28,
        "§6.7",
        "The reason is that units near the border of the image are rarely active.",
        "convnet",
        reading="Rarely: less than half as often as the other units, with every norm.",
        parts=tuple(
            Part(ratio, ("border", norm), ("inside", norm), margin=2.0)
            for norm in ("none", "layer", "batch")
        ),
        datasets=("cifar10",),
        limits="At a border of constant pixels a unit is always active or never.",
    ),
    Claim(
        29,
        "§7",
        "Recurrent networks benefit most, above all with long sequences and small batches.",
        "sequential_mnist",
        reading="Within one experiment the speed-up grows with each doubling of the length and "
        "with each halving of the batch size, the other one fixed.",
        parts=trends("error_permuted"),
        stand_ins=trends("error_in_order"),
    ),
    Claim(
        30, "§7", "Layer norm is invariant to shifts and scales of the features of single examples."
    ),
    Claim(31, "§1", "Batch norm cannot be used online, on batches of one."),
)

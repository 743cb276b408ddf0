"""Permutation invariant MNIST: §6.6 and figure 6 of the paper.

    python -m scripts.data mnist
    python -m scripts.train --config=configs/mnist.py --config.norm=batch --workdir=runs/x
    python -m scripts.sweep --config=configs/mnist.py

Test error after 65 epochs in the paper: none 1.50 %, batch 1.33 %, layer 1.30 % (batch size 128).
Where a value comes from stands beside it: §, or "ours" where the paper is silent.
"""

from ml_collections import ConfigDict


def get_config(scale="paper"):
    config = ConfigDict()
    config.experiment = "mnist"
    config.scale = scale
    config.dataset = "mnist"  # §6.6: 55,000 training cases; or "digits", built in
    config.data_dir = "data"

    config.norm = "layer"  # a key of norms
    config.norms = dict(
        none={},
        batch=dict(kind="batch", sites=("a", "out"), gain=1.0, unbiased=False),  # §6.6: all layers
        layer=dict(kind="layer", sites=("a",), gain=1.0),  # §6.6: not on the logits; §6: gain 1
        weight=dict(kind="weight", sites=("a",), gain=1.0),  # not in figure 6
    )
    config.hidden = 1000  # figure 6: 784-1000-1000-10; ReLU: ours
    config.init = "he_normal"  # ours

    config.batch_size = 128  # §6.6: also 4
    config.steps = "65 epochs"  # figure 6: epochs 0 to 64
    config.optimizer = dict(kind="adam", b1=0.9, b2=0.999, eps=1e-8)  # §6.6: Adam; rest ours
    config.lr = (1e-3,)  # ours
    config.schedule = dict(kind="constant", tau=0.0)  # or "inverse_sqrt": lr / √(1 + t/tau)
    config.clip = 0.0  # ours: none
    config.seeds = (0,)
    config.data_seed = -1  # each seed has its own order of the data; >= 0: one order for all

    config.log_every = "1 epoch"
    config.eval_every = "1 epoch"
    config.save_every = "5 epochs"
    config.select = dict(split="valid", metric="error", mode="min")  # the best checkpoint
    config.steps_per_call = 11  # divides an epoch at batch sizes 128 and 4
    config.update(SCALES[scale])
    return config


SCALES = ConfigDict(
    dict(
        paper={},
        small=dict(dataset="digits", hidden=100, steps_per_call=108),
        tiny=dict(
            dataset="digits",
            hidden=8,
            batch_size=4,
            steps="4 steps",
            log_every="1 step",
            eval_every="2 steps",
            save_every="2 steps",
            steps_per_call=2,
        ),
    )
)


def sweep():
    """Figure 6: three norms at two batch sizes; three seeds: ours."""
    for batch_size in (128, 4):
        for norm in ("none", "batch", "layer"):
            run = dict(norm=norm, batch_size=batch_size, seeds=(0, 1, 2))
            if norm == "batch" and batch_size == 4:
                run["norms.batch.unbiased"] = True  # §6.6: n/(n − 1) at batch size 4
            yield run


# What scripts/report.py draws, tabulates and decides; the words are those of experiments/curves.py.

LANDMARKS = dict(
    nll=(0, 1, 2, 5, 10, 15, 20, 21, 22, 25, 30, 38, 40, 42, 45, 50, 64),
    error=(0, 1, 2, 5, 10, 20, 22, 30, 40, 50, 64),
)

FIGURES = (
    dict(
        name="figure_6",
        title="Figure 6: permutation invariant MNIST",
        caption="Negative log likelihood (NLL) of the training set and test error; in the paper of "
        "a 784-1000-1000-10 network on MNIST. Epoch 0 is the end of the first pass.",
        source="Ba, Kiros and Hinton (2016), figure 6. The paper does not say what its bands are; "
        "every edge of them lies on the grid of one error in 10,000 and the line midway, as with "
        "two runs",
        columns=2,
        panels=tuple(
            dict(
                axes,
                name=f"{axes['metric']}_batch{batch_size}",
                title=f"batch size {batch_size}",
                where=dict(batch_size=batch_size),
                x="epoch",
                x_plus=-1,
                x_label="epoch",
                landmarks=LANDMARKS[axes["metric"]],
                summaries=(("mean", 10), ("median", 20), ("min", 0)),
            )
            for axes in (
                dict(
                    split="train",
                    metric="nll",
                    label="training NLL [nats]",
                    log=True,
                    limits=(1e-7, 1.0),
                    digits=".2g",
                    levels=(1e-2, 1e-3, 1e-4, 1e-6),
                ),
                dict(
                    split="test",
                    metric="error",
                    label="test error [%]",
                    times=100,
                    limits=(0.5, 2.5),
                    digits=".3f",
                ),
            )
            for batch_size in (128, 4)
        ),
    ),
)

MAIN = dict(panel="nll_batch128", length=1)  # the curve that sums it up; steps of a sequence

CLAIMS = (
    dict(
        number=25,
        text="Layer normalization is robust to the batch size.",
        source="§6.6, figure 6",
        rule="claim_25",
    ),
    dict(
        number=26,
        text="It trains faster than batch normalization applied to all layers.",
        source="§6.6, figure 6",
        rule="claim_26",
    ),
)

"""Permutation invariant MNIST: §6.6 and figure 6 of the paper.

    python -m scripts.data mnist
    python -m scripts.train --config=configs/mnist.py --config.norm=batch --workdir=runs/x
    python -m scripts.sweep --config=configs/mnist.py

Test error after 65 epochs in the paper: none 1.50 %, batch 1.33 %, layer 1.30 % (batch size 128).
The source of a value is beside it: §, or "ours" where the paper is silent.
"""

from configs import base


def get_config(scale="paper"):
    config = base.get_config("mnist", scale)
    config.dataset = "mnist"  # §6.6: 55,000 training examples; or "digits", built in

    config.norms = base.norms(
        batch=dict(kind="batch", sites=("a", "out"), gain=1.0, unbiased=False),  # §6.6: all layers
        layer=dict(kind="layer", sites=("a",), gain=1.0),  # §6.6: not on the logits; §6: gain 1
        weight=dict(kind="weight", sites=("a",), gain=1.0),  # not in figure 6
    )
    config.hidden = 1000  # figure 6: 784-1000-1000-10; ReLU: ours
    config.init = "he_normal"  # ours

    config.batch_size = 128  # §6.6: also 4
    config.steps = "65 epochs"  # figure 6: epochs 0 to 64
    # §6.6: Adam; the optimizer and its rate in base.py are Adam's defaults.

    config.save_every = "5 epochs"
    config.steps_per_call = 11  # divides an epoch at batch sizes 128 and 4
    return base.scaled(config, SCALES)


SCALES = base.scales(
    small=dict(dataset="digits", hidden=100, steps_per_call=108),
    tiny=dict(base.TINY, dataset="digits", hidden=8),
)

SECONDS = 9  # of a run at scale small on a core: scripts.reproduce trains the longest first


def sweep():
    """Yield the runs of figure 6: three norms at two batch sizes; three seeds: ours."""
    for batch_size in (128, 4):
        for norm in ("none", "batch", "layer"):
            run = dict(norm=norm, batch_size=batch_size, seeds=(0, 1, 2))
            if norm == "batch" and batch_size == 4:
                run["norms.batch.unbiased"] = True  # §6.6: n/(n − 1) at batch size 4
            yield run

"""DRAW on binarized MNIST (§6.4, figure 4).

    python -m scripts.data binarized_mnist
    python -m scripts.train --config=configs/draw.py --workdir=runs/x
    python -m scripts.sweep --config=configs/draw.py
    python -m scripts.sample draw --workdir=runs/x

The paper's test bound after 200 epochs is 82.36 nats without and 82.09 with layer norm. It says
little of the model; "DRAW" marks what is from Gregor et al. (2015), table 3 and text, "code" what
is from the public jbornschein/draw, which has the paper's data and sizes.
"""

from configs import base


def get_config(scale="paper"):
    config = base.get_config("draw", scale)
    config.dataset = "binarized_mnist"  # or "binarized_digits", built in

    config.norms = base.norms(
        layer=dict(kind="layer", sites=("c",), gain=1.0),  # eqs. 29-31
        # In figure 4, nowhere in the text; on all matrices, gain 1: ours.
        weight=dict(kind="weight", sites=("x", "h", "out")),
        # Not in the paper; sites and gain are those of an LSTM in Cooijmans et al.
        batch=dict(kind="batch", sites=("x", "h", "c"), gain=0.1),
    )
    config.hidden = 256  # paper
    config.glimpses = 64  # paper
    config.latent = 100  # DRAW
    config.read_size = 2  # DRAW
    config.write_size = 5  # DRAW
    config.init_std = 0.0  # > 0: every matrix begins as N(0, init_std²); code: 0.01

    config.batch_size = 128  # paper
    config.steps = "200 epochs"  # paper
    # Paper: Adam; the optimizer and its rate in base.py are Adam's defaults.
    config.clip = 10.0  # code: norm of the gradient
    config.select.metric = "bound"
    return base.scaled(config, SCALES)


SCALES = base.scales(
    # The built-in digits with a small model: minutes on a CPU. A window of 2 x 2 begins at the
    # four corners, which are black in all images, and few glimpses are not enough to move it:
    # nothing is encoded then (divergence 0).
    small=dict(
        dataset="binarized_digits",
        hidden=64,
        glimpses=6,
        latent=16,
        read_size=5,
        batch_size=32,
        lr=(2e-3,),
        steps="16 epochs",
        **base.every(log="2 epochs", evaluate="2 epochs", save="16 epochs"),
    ),
    tiny=dict(base.TINY, dataset="binarized_digits", hidden=8, glimpses=2, latent=3, write_size=3),
)

SECONDS = 29  # of a run at scale small on a core: scripts.reproduce trains the longest first


def sweep():
    """Return the curves of figure 4, in the paper of one seed, it seems; and batch norm, ours."""
    return base.runs("none weight layer batch", seeds=(0, 1))

"""Handwriting synthesis (§6.5, figure 5).

    python -m scripts.data iam --from=DIR
    python -m scripts.train --config=configs/handwriting.py --workdir=runs/x
    python -m scripts.sweep --config=configs/handwriting.py
    python -m scripts.sample handwriting --workdir=runs/x --text="layer norm"

The paper trains the network of Graves (2013), section 5, on IAM-OnDB with mini-batches of 8 and
sequences of 500 points. "Graves" marks what is from him; the paper gives no learning rate.
"""

from configs import base


def get_config(scale="paper"):
    config = base.get_config("handwriting", scale)
    config.dataset = "iam"  # or "pen", built in
    config.length = 500  # paper: points of a line; longer ones are cut
    config.buckets = 5  # ours: lines are padded to multiples of length / buckets
    config.bucket_run = 10  # ours: batches of one padded length that follow one another

    config.norms = base.norms(
        batch=dict(kind="batch", sites=("x", "h", "c"), gain=0.1),  # ours, as Cooijmans et al.
        layer=dict(kind="layer", sites=("x", "h", "c"), gain=1.0),  # eqs. 20-22, all three layers
    )
    config.hidden = 400  # Graves
    config.components = 10  # Graves: K
    config.mixtures = 20  # Graves: M
    config.init_std = 0.0  # > 0: every matrix begins as N(0, init_std²)
    config.kappa_bias = -3.0  # ours: initial bias of κ̂, about 20 points a character

    config.batch_size = 8  # paper
    config.steps = "191000 steps"  # paper: where the curves of figure 5 end
    # Paper: Adam; the optimizer and its rate in base.py are Adam's defaults.
    config.clip = 10.0  # ours: norm of the gradient

    config.log_every = "200 steps"  # paper: a unit of figure 5's x axis
    config.eval_every = config.save_every = "1000 steps"
    config.select.metric = "nll"
    return base.scaled(config, SCALES)


SCALES = base.scales(
    # The built-in pen with a small model: minutes on a CPU. Its writing is legible after 800 or
    # 1,200 steps; the rate is high, since at 1e-3 it takes five times as long.
    small=dict(
        dataset="pen",
        length=100,
        buckets=1,  # compiling a program for each length takes longer than the padding
        hidden=64,
        components=4,
        mixtures=8,
        kappa_bias=-2.3,
        batch_size=8,
        lr=(1e-2,),
        steps="300 steps",
        **base.every(log="50 steps", evaluate="100 steps", save="300 steps"),
    ),
    tiny=dict(base.TINY, dataset="pen", length=20, buckets=2, hidden=6, components=2, mixtures=2),
)

SECONDS = 26  # of a run at scale small on a core: scripts.reproduce trains the longest first


def sweep():
    """Return the two curves of figure 5, and batch norm, which is ours; two seeds: ours."""
    return base.runs("none layer batch", seeds=(0, 1))

"""Order embeddings of images and captions (§6.1, figure 1, table 2).

    python -m scripts.data coco --from=DIR
    python -m scripts.train --config=configs/order_embeddings.py --workdir=runs/x
    python -m scripts.sweep --config=configs/order_embeddings.py

The paper takes the code of Vendrov et al. (2016), with MSCOCO's features and captions, and puts
layer norm into its GRU; "code" marks what is from there. Recall at 1 of captions and of images on
the test set is 46.6 and 37.8 without, 48.5 and 38.9 with layer norm.
"""

from configs import base


def get_config(scale="paper"):
    config = base.get_config("order_embeddings", scale)
    config.dataset = "coco"  # or "scenes", built in
    # Ours: captions are padded to the longest of all, rounded up to a multiple of pad_to. More
    # buckets save padding, but the images of a batch then have captions of similar lengths.
    config.buckets = 1
    config.pad_to = 8

    config.norms = base.norms(
        batch=dict(kind="batch", sites=("x", "h"), gain=0.1),  # ours, as Cooijmans et al.
        layer=dict(kind="layer", sites=("x", "h"), gain=1.0),  # eqs. 26-28
    )
    config.embedding_dim = 300  # code
    config.hidden = 1024  # code
    config.margin = 0.05  # code

    config.batch_size = 128  # code
    config.steps = "81000 steps"  # paper: where the longer curve of figure 1 ends
    # Base's Adam, at the code's rate, is that of Adam's paper. The code's, which figure 1 was made
    # with, corrects the moments by 1 - 0.1^t and 1 - 0.001^t: "adam_uncorrected".
    config.clip_each = 2.0  # code: norm of each array's gradient, not of all together

    config.fold = 1000  # code: images that are ranked among each other
    config.log_every = config.eval_every = "300 steps"  # code; a unit of figure 1's x axis
    config.save_every = "1500 steps"
    config.select = dict(split="valid", metric="sum", mode="max")  # code: R@1 + R@5 + R@10
    config.steps_per_call = 1
    return base.scaled(config, SCALES)


SCALES = base.scales(
    # The built-in scenes with a small model: a minute a norm on a CPU.
    small=dict(
        dataset="scenes",
        pad_to=16,  # one padded length compiles once
        embedding_dim=32,
        hidden=64,
        batch_size=32,
        steps="800 steps",
        **base.every(log="100 steps", evaluate="100 steps", save="1000 steps"),
        steps_per_call=50,
    ),
    tiny=dict(base.TINY, dataset="scenes", pad_to=16, embedding_dim=5, hidden=8, fold=20),
)

SECONDS = 16  # of a run at scale small on a core: scripts.reproduce trains the longest first


def sweep():
    """Return the two curves of figure 1, and batch norm, which is ours; two seeds: ours."""
    return base.runs("none layer batch", seeds=(0, 1))

"""Sequential MNIST, in order and permuted: the benchmark of "Recurrent Batch Normalization".

    python -m scripts.data mnist
    python -m scripts.train --config=configs/sequential_mnist.py --workdir=runs/x
    python -m scripts.sweep --config=configs/sequential_mnist.py

Test accuracy in Cooijmans et al. (2016), table 1: LSTM 98.9 % in order and 90.2 % permuted, with
batch norm 99.0 % and 95.4 %. The layer normalization paper has no such experiment. The source
of a value is beside it: their paper, their code (sequential_mnist.py), or "ours".
"""

from configs import base


def get_config(scale="paper"):
    config = base.get_config("sequential_mnist", scale)
    config.dataset = "mnist"  # or "digits", built in
    config.valid_cases = 10_000  # code: the last of 60,000
    config.pixels_per_step = 1  # paper: pixel by pixel; 28: row by row
    config.permuted = False  # paper: both
    config.permutation_seed = 0  # ours; a true permutation, the code's was drawn with replacement

    config.norms = base.norms(
        batch=dict(kind="batch", sites=("x", "h", "c"), gain=0.1),  # paper
        layer=dict(kind="layer", sites=("x", "h", "c"), gain=1.0),  # LN: eqs. 20-22; §6: gain 1
    )
    config.hidden = 100  # paper
    # A single pixel x leaves layer norm as sign(x) LN(w): its intensity is lost, black or not is
    # kept. True adds b under the norm, as the layer norm authors' code does, and keeps it. Ours.
    config.bias_inside = False
    config.noise = 0.0  # standard deviation on the initial h; see sweep()

    config.batch_size = 100  # code
    config.steps = "200 epochs"  # code: 100,000 updates
    config.optimizer = dict(kind="rmsprop", decay=0.9, eps=1e-5)  # paper: RMSProp, 0.9; code: eps
    config.clip = 1.0  # paper: norm of the gradient
    # The paper's rate, the code's evaluation every epoch, and the paper's choice of the best
    # checkpoint are those of base.py.
    return base.scaled(config, SCALES)


SCALES = base.scales(
    small=dict(  # the built-in digits of 8 x 8 pixels, 8 pixels at a time: seconds, not days
        dataset="digits",
        pixels_per_step=8,
        valid_cases=200,
        steps="30 epochs",
        **base.every(log="2 epochs", evaluate="2 epochs", save="30 epochs"),
        steps_per_call=26,
    ),
    tiny=dict(base.TINY, dataset="digits", valid_cases=200, pixels_per_step=16, hidden=8),
)

SECONDS = 14  # of a run at scale small on a core: scripts.reproduce trains the longest first


def sweep():
    """Yield three norms, in order and permuted; two seeds: ours."""
    for permuted in (False, True):
        for norm in ("none", "batch", "layer"):
            run = dict(norm=norm, permuted=permuted, seeds=(0, 1))
            # The first pixels are black in all examples; permuted, in almost all. In order, batch
            # norm (paper, code) divides by the standard deviation of equal examples. In both forms
            # layer norm (ours) divides by that of units that are all 0, where its derivative is
            # 1/√epsilon, step after step: the gradient overflows.
            needs_noise = norm == "layer" or (norm == "batch" and not permuted)
            yield run | dict(noise=0.1) if needs_noise else run

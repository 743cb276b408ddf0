r"""Train many runs: those of a config's sweep(), a grid given here, or a search for the best.

    python -m scripts.sweep --config=configs/mnist.py:small --workers=2
    python -m scripts.sweep --config=configs/mnist.py:small --config.hidden=50 --root=runs/narrow \
        --grid norm=none,batch,layer --grid batch_size=128,4
    python -m scripts.sweep --engine=optuna --config=configs/mnist.py:small --trials=40 \
        --space lr=log:1e-4:1e-2 --space hidden=int:50:200 --space norm=none,layer
    python -m scripts.sweep --engine=slurm --config=configs/mnist.py --slurm timeout_min=600

Each run has its folder, <root>/<experiment>/norm=layer,batch_size=4; the default root is
runs/<scale>. Finished runs are skipped and interrupted runs resumed, so the same command can be
rerun at any time, also while another process executes it: the process that trains a run holds a
lock on its folder, and other processes skip that run. A run whose process was killed is restarted
once. If a run fails, the others continue, and the command ends with exit status 1. Values of seeds
and lr are lanes of one run unless the grid varies them. --dry_run lists the runs.

With several GPUs or TPU chips, the command starts one run per device. With --workers these runs
share out all devices, with --devices_per_run each gets so many. If there are more --workers than
devices for them, runs share devices.

--engine=optuna searches with --sampler=tpe, random or grid for the best config.select; --pruner
stops runs that lag behind: asha, hyperband or none. A trial is a run, in <root>/<experiment>/
<study>/trial=7, whose score is its best evaluation, as the mean over its seeds. Several of these
commands can work on the same folder. If a command is killed, another one, or the same command when
rerun, continues its trials from their checkpoints. Trials are stored in journal.log; for many
machines that share the folder, in --storage=postgresql://USER@HOST/NAME. A grid takes lists, as in
lr=1e-4,1e-3,1e-2.

--plan=results/plan.toml trains the stages of a plan, one seed and one rate a run, in runs/plan/
<stage>; its file explains the kinds of stages. --only=STAGE takes the stages whose names begin with
STAGE, --minutes=60 saves and ends after an hour, --dry_run lists the remaining runs, and --collect
copies finished runs to the folder of the plan's file (with --dry_run it lists them). The same
command resumes the plan.

--engine=slurm submits each run as a job of a SLURM cluster, --workers at a time. Before the cluster
takes the machine away, the run saves; the job returns to the queue and resumes the run. --slurm
sets options of submitit: timeout_min, cpus_per_task, mem_gb, slurm_partition, ... --devices_per_run
sets the number of GPUs per job.
"""

import math
from pathlib import Path
import sys

from absl import flags
from ml_collections import config_flags

from ln.errors import InputError
from scripts import cli
from scripts.engines import devices, jobs, slurm

CONFIG = config_flags.DEFINE_config_file("config", help_string="config file, and :scale")
GRID = flags.DEFINE_multi_string("grid", [], "KEY=VALUE,VALUE,...: an axis, instead of sweep()")
ROOT = flags.DEFINE_string("root", None, "folder of the run folders; default: runs/<scale>")
WORKERS = flags.DEFINE_integer("workers", None, "runs at a time [as many as get devices]", 1)
DEVICES = flags.DEFINE_integer("devices_per_run", None, "devices of a run [an even share]", 1)
ENGINE = flags.DEFINE_enum("engine", "local", ["local", "optuna", "slurm"], "what trains the runs")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "lists the runs and stops")
PLAN = flags.DEFINE_string("plan", None, "plan: a file of stages, such as results/plan.toml")
ONLY = flags.DEFINE_string("only", "", "plan: only the stages whose names begin with this")
MINUTES = flags.DEFINE_float("minutes", math.inf, "plan: time after which runs save and end", 0)
COLLECT = flags.DEFINE_bool("collect", False, "plan: copies finished runs beside the plan's file")
SPACE = flags.DEFINE_multi_string("space", [], "optuna: KEY=KIND:LOW:HIGH, or KEY=VALUE,VALUE,...")
flags.DEFINE_integer("trials", 20, "optuna: how many in all", lower_bound=1)
flags.DEFINE_enum("sampler", "tpe", ["tpe", "random", "grid"], "optuna: of the settings")
flags.DEFINE_enum("pruner", "asha", ["asha", "hyperband", "none"], "optuna: of bad runs")
flags.DEFINE_string("study", "search", "optuna: name of the study and of its folder")
flags.DEFINE_string("storage", None, "optuna: postgresql://USER@HOST/NAME; [a file]")
flags.DEFINE_string("cluster", "slurm", "slurm: submit to slurm, or local processes")
flags.DEFINE_multi_string("slurm", [], "slurm: KEY=VALUE for submitit, as timeout_min=600")


OWN = {  # engine -> flags that no other engine reads
    "optuna": {"trials", "sampler", "pruner", "study", "storage"},
    "slurm": {"cluster", "slurm"},
}


def check_given(given: set[str], varied: set[str]) -> None:
    """Raise InputError if a flag gives a setting that each run of the sweep sets itself."""
    if twice := sorted(f"--config.{key}" for key in varied if f"config.{key}" in given):
        raise InputError(
            f"{', '.join(twice)} would be ignored: each run of this sweep has its own. "
            f"Leave it out, or give all axes by --grid."
        )


def shares() -> list[devices.Environment]:
    """Return the environment of each run at work; asks for devices, which takes a second."""
    return devices.share(devices.ask(), WORKERS.value, DEVICES.value)


def main(_):
    """Train the runs that the flags ask for."""
    given = {name for name in flags.FLAGS if flags.FLAGS[name].present}
    if PLAN.value:
        own = (PLAN, ONLY, MINUTES, COLLECT, ROOT, WORKERS, DEVICES, DRY_RUN)
        known = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
        if wrong := sorted(f"--{name}" for name in (given & known) - {flag.name for flag in own}):
            raise InputError(f"--plan takes no {', '.join(wrong)}; its stages say what to train.")
        from scripts.engines import plan  # it imports jax, which takes a second

        sys.exit(plan.run(Path(ROOT.value or "runs/plan"), shares, bool(DRY_RUN.value)))
    if given & {"only", "minutes", "collect"}:
        raise InputError("--only, --minutes and --collect belong to a --plan=FILE.")
    if (config := CONFIG.value) is None:
        raise InputError("Give --config=FILE[:SCALE] or --plan=FILE; --help has examples.")
    if (ENGINE.value == "optuna") != bool(SPACE.value):
        raise InputError("--engine=optuna and --space belong together; --help has examples.")
    for engine, names in OWN.items():
        if engine != ENGINE.value and (alien := sorted(f"--{name}" for name in given & names)):
            raise InputError(f"{', '.join(alien)} belongs to --engine={engine}.")
    root = Path(ROOT.value or f"runs/{config.scale}") / config.experiment
    if ENGINE.value == "optuna":
        if GRID.value or DRY_RUN.value:
            raise InputError("--engine=optuna takes --space instead of --grid, and no --dry_run.")
        try:
            from scripts.engines import search
        except ImportError:
            raise InputError("optuna is not installed: pip install 'optuna>=4.5,<6'") from None
        check_given(given, {key for key, _, _ in (text.partition("=") for text in SPACE.value)})
        sys.exit(search.run(config, root, shares))
    points = jobs.read_grid(GRID.value) if GRID.value else jobs.listed(config)
    check_given(given, {key for point in points for key in point})
    todo = jobs.unfinished(config, points, root)
    if DRY_RUN.value:
        return print(*(job.folder for job in todo), sep="\n")
    draw = f"To draw them: python -m scripts.report --runs={root.parent}"
    if not todo:
        return print(draw)
    if ENGINE.value == "slurm":
        start, slots = slurm.start_there(root / "submitit", WORKERS.value or 1, DEVICES.value)
    else:
        places = shares()
        start, slots = jobs.start_here(places), len(places)
    with jobs.Stopping() as stopping:
        status = jobs.train_all(todo, start, jobs.Clock(slots), stopping)
    if status == 0:
        print(draw)
    sys.exit(status)


if __name__ == "__main__":
    cli.run(main)

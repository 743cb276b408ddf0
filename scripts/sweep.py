r"""Trains many runs: those of a config's sweep(), a grid given here, or a search for the best.

    python -m scripts.sweep --config=configs/mnist.py:small --workers=2
    python -m scripts.sweep --config=configs/mnist.py:small --config.hidden=50 --root=runs/narrow \
        --grid norm=none,batch,layer --grid batch_size=128,4
    python -m scripts.sweep --engine=optuna --config=configs/mnist.py:small --trials=40 \
        --space lr=log:1e-4:1e-2 --space hidden=int:50:200 --space norm=none,layer
    python -m scripts.sweep --engine=slurm --config=configs/mnist.py --slurm timeout_min=600

Each run has a folder of its own, <root>/<experiment>/norm=layer,batch_size=4; the default root is
runs/<scale>. Finished runs are skipped and broken ones resumed, so the same command may be given
again at any time, also while it is at work elsewhere: the process that trains a run holds a lock on
its folder, and a second process leaves the run to it. A run whose process was killed is taken
up again once. When a run fails the others go on; the command then ends with exit status 1.
Values of seeds and lr are lanes of one run unless the grid varies them. --dry_run lists the runs.

--engine=optuna searches with --sampler=tpe, random or grid for the best config.select; --pruner
stops what is not worth its time: asha, hyperband or none. A trial is a run, in <root>/<experiment>/
<study>/trial=7, judged by its best evaluation in the mean over its seeds. Where only lr is
searched, --lanes=8 makes eight trials lanes of one program. Several of these commands may be at
work on the same folder; a trial whose command was killed is taken up by another one, or the same
given again, from its checkpoint. Trials are kept in journal.log; for many machines that see one
folder, in --storage=postgresql://USER@HOST/NAME. In a grid lr=log:1e-4:1e-2:5 is five values.

--plan=results/plan.toml trains the stages of a plan, one seed and one rate a run, in runs/plan/
<stage>. Its file says what the kinds of stages do. --only=STAGE takes the stages whose names begin
so, --minutes=60 saves and ends after an hour, --dry_run lists what is to do, and --collect copies
finished runs beside the plan's file (with --dry_run it lists them). The same command goes on.

--engine=slurm submits each run as a job of a SLURM cluster, --workers at a time. Before the machine
is taken away the run saves; the job goes back in the queue, and the same run goes on. --slurm sets
what submitit knows: timeout_min, gpus_per_node, cpus_per_task, mem_gb, slurm_partition, ...
"""

from collections.abc import Iterator
import importlib
import itertools
from pathlib import Path
import sys

from absl import flags
from ml_collections import config_flags

from ln.errors import InputError, choose, nearest
from scripts import cli
from scripts.engines import jobs, plan, search, slurm

CONFIG = config_flags.DEFINE_config_file("config", help_string="config file, and :scale")
GRID = flags.DEFINE_multi_string("grid", [], "KEY=VALUE,VALUE,...: an axis, instead of sweep()")
ROOT = flags.DEFINE_string("root", None, "folder of the run folders; default: runs/<scale>")
WORKERS = flags.DEFINE_integer("workers", 1, "how many runs to train at a time", lower_bound=1)
ENGINE = flags.DEFINE_string("engine", "local", "local, optuna, or slurm")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "lists the runs and stops")

for engine in (plan, search, slurm):
    flags.adopt_module_key_flags(engine)

ENGINES = {"local": jobs.run_here, "slurm": slurm.run_there}  # what trains given runs
LANE_KEYS = ("seeds", "lr")  # what one program trains side by side


def read_grid(axes: list[str], config) -> list[dict[str, str]]:
    """All combinations of axes such as "norm=none,layer", as overrides KEY -> VALUE.

    Raises:
        InputError: not of that form, an unknown key, or one key twice.
    """
    values: dict[str, list[str]] = {}
    known = list(flatten(config.to_dict()))
    for axis in axes:
        key, equals, choices = axis.partition("=")
        if not equals or not choices:
            raise InputError(f"--grid {axis!r}: write KEY=VALUE,VALUE,... as in norm=none,layer.")
        if key not in known:
            raise InputError(f"--grid {axis!r}: the config has no {key!r}.{nearest(key, known)}")
        if key in values:
            raise InputError(f"--grid gives {key!r} twice.")
        values[key] = choices.split(",")
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def flatten(tree: dict, prefix: str = "") -> Iterator[str]:
    """The keys of nested dicts, "norms.batch.gain"."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def run_names(points: list[dict]) -> list[str]:
    """One folder name per run, made of its overrides; of lane keys only those that vary."""
    vary = [k for k in LANE_KEYS if len({str(point.get(k)) for point in points}) > 1]
    names = []
    for point in points:
        words = [f"{k}={v}" for k, v in point.items() if k not in LANE_KEYS or k in vary]
        names.append(",".join(words).replace(" ", "") or "run")
    if len(set(names)) < len(names):
        raise InputError(f"Two runs of this sweep are the same: {', '.join(names)}.")
    return names


def main(_):
    if plan.PLAN.value:
        ignored = {"config", "grid", "engine"}
        for engine in (search, slurm):
            ignored |= {flag.name for flag in flags.FLAGS.get_key_flags_for_module(engine)}
        if given := sorted(f"--{name}" for name in ignored if flags.FLAGS[name].present):
            raise InputError(f"--plan takes no {', '.join(given)}; its stages say what to train.")
        return plan.run(Path(ROOT.value or "runs/plan"), WORKERS.value, DRY_RUN.value)
    if plan.ONLY.value or plan.MINUTES.value is not None or plan.COLLECT.value:
        raise InputError("--only, --minutes and --collect belong to a --plan=FILE.")
    if CONFIG.value is None:
        raise InputError("Give --config=FILE[:SCALE] or --plan=FILE; --help has examples.")
    from ln.training import runs

    config = CONFIG.value
    root = Path(ROOT.value or f"runs/{config.scale}") / config.experiment
    choose("--engine", ENGINE.value, ENGINES | {"optuna": None})
    if (ENGINE.value == "optuna") != bool(search.SPACE.value):
        raise InputError("--engine=optuna and --space belong together; --help has examples.")
    if ENGINE.value == "optuna":
        if GRID.value or DRY_RUN.value:
            raise InputError("--engine=optuna takes --space instead of --grid, and no --dry_run.")
        return search.run(config, root, list(flatten(config.to_dict())), WORKERS.value)
    points = read_grid(GRID.value, config) if GRID.value else sweep_of(config.experiment)
    made = []
    for name, point in zip(run_names(points), points, strict=True):
        try:
            jobs.check(jobs.settings(point, sys.argv[1:]))
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        made.append(jobs.make_job(root / name, point))

    todo = [job for job in made if not runs.is_finished(job.folder)]
    print(f"{len(made)} runs in {root}, {len(made) - len(todo)} of them finished.", flush=True)
    if DRY_RUN.value:
        print(*todo, sep="\n")
        return None
    statuses = train_all(todo)
    # Once more what was killed, and what another process had but may have left.
    again = [job for job, status in statuses.items() if status < 0 or status == cli.BUSY]
    statuses |= train_all([job for job in again if not runs.is_finished(job.folder)])
    busy = [str(job.folder) for job, status in statuses.items() if status == cli.BUSY]
    if busy:
        print(f"Left to another process that is at work on them: {', '.join(busy)}", flush=True)
    failed = [job for job, status in statuses.items() if status not in (0, cli.BUSY)]
    failed = [job for job in failed if not runs.is_finished(job.folder)]  # by another process
    if failed:
        folders = (str(job.folder) for job in failed)
        print(
            f"{len(failed)} of {len(statuses)} runs failed:", *folders, sep="\n  ", file=sys.stderr
        )
        sys.exit(1)


def train_all(todo: list[jobs.Job]) -> dict[jobs.Job, int]:
    """Trains all, and returns their exit statuses; ends this command where the user wants that."""
    statuses = {}
    for job, status in ENGINES[ENGINE.value](todo, WORKERS.value):
        if status == cli.INTERRUPTED:
            print("Stopped; the same command goes on from here.", flush=True)
            sys.exit(cli.INTERRUPTED)
        if status and status != cli.BUSY:
            print(f"Failed with exit status {status}: {job.folder}", flush=True)
        statuses[job] = status
    return statuses


def sweep_of(experiment: str) -> list[dict]:
    """The overrides of each run that the experiment's config lists."""
    return list(importlib.import_module(f"configs.{experiment}").sweep())


if __name__ == "__main__":
    cli.run(main)

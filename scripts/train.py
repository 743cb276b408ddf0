r"""Train one config into one run folder; the same command again resumes it.

    python -m scripts.train --config=configs/mnist.py:small --workdir=runs/try
    python -m scripts.train --config=configs/mnist.py:small --config.norm=batch \
        --config.batch_size=4 --config.seeds=0,1,2 --workdir=runs/batch4

--config=FILE:SCALE picks a config file and one of its scales (paper, small, tiny); any of its keys
is set by --config.KEY=VALUE; --config_json=FILE is a whole config, such as config.json of another
run, or - the standard input. All pairs of --config.seeds and --config.lr train side by side in one
program. Lengths are written as "300 steps" or "65 epochs". Ctrl-C saves and says how to resume.

A run uses as many devices of this machine as divide lanes and batch, at most --devices=N. To use
several machines, run this command on each with a different --process; HOST is the machine of
process 0:

    python -m scripts.train --coordinator=HOST:PORT --processes=2 --process=0 \
        --config=configs/mnist.py:small --workdir=runs/try

Under SLURM, and other systems that jax.distributed recognizes, --distributed is enough. Process 0
writes the run folder. If a process is lost, the others end; the same commands, with any number of
processes, resume the run.
"""

import json
import os
from pathlib import Path
import shlex
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from ln.errors import InputError, choose
from scripts import cli, hosts

CONFIG = config_flags.DEFINE_config_file("config", help_string="config file, and :scale")
CONFIG_JSON = flags.DEFINE_string("config_json", None, "file of a whole config; -: standard input")
WORKDIR = flags.DEFINE_string("workdir", None, "the run folder: config, metrics, checkpoints")
DEVICES = flags.DEFINE_integer("devices", None, "most devices of this machine that it takes")
flags.adopt_module_key_flags(hosts)


def main(_):
    """Train the config of the flags."""
    # If there is a cache of compiled programs, keep all of them: most take less than a second.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    config, name, workdir = CONFIG.value, CONFIG_JSON.value, WORKDIR.value
    if (config is None) == (name is None) or not workdir:
        raise InputError("Give --config=FILE[:SCALE] and --workdir=DIR; --help has examples.")
    if name is not None:
        config = read_json(name)
    with hosts.together():
        train_run(config, workdir)


def read_json(name: str) -> ConfigDict:
    """Return the config in a file.

    Raises:
        InputError: the file cannot be read, is no JSON object, or has a key that is in no config of
            its experiment.
    """
    from ln.training import ranges, runs

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        config = runs.as_config(json.loads(text))
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"--config_json={name} cannot be read ({error}).") from error
    ranges.check_types(config)
    known = cli.read_config(config.experiment, "paper")
    for key in config:
        choose(f"key of --config_json={name}", key, known)
    return config


def train_run(config: ConfigDict, workdir: str) -> None:
    """Train a config into a folder; after Ctrl-C, print the command that resumes it."""
    import experiments  # jax takes a second: not before the flags are known to be right
    from ln.training import train

    task = experiments.check(config)
    try:
        train.fit(task, config, workdir, DEVICES.value)
    except train.Interrupted as stopped:
        again = f" To resume: python {shlex.join(sys.orig_argv[1:])}"
        print(f"{stopped}.{'' if CONFIG_JSON.value == '-' else again}", flush=True)
        sys.exit(cli.INTERRUPTED)
    folder, name = Path(workdir), config.experiment
    then = [f"evaluate --workdir={folder}", f"report --runs={folder.parent}"]
    then += [f"sample {name} --workdir={folder}"] * (name in experiments.names("samples"))
    print("Next:", ", ".join(f"python -m scripts.{words}" for words in then), flush=True)


if __name__ == "__main__":
    cli.run(main)

"""Run commands as a user does, each in a new process."""

import os
from pathlib import Path
import subprocess
import sys

PROJECT = Path(__file__).parent.parent


def start(*words):
    """Start Python with these words; standard output and errors come in one pipe."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=PROJECT, **pipes)


def python(*words, **environment):
    """Run Python with these words."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run(*words):
    """Run a module, such as scripts.train, with these words."""
    return python("-m", *words)


def on_devices(count, *words):
    """Run Python with these words on several devices, which XLA makes out of one CPU."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return python(*words, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def assert_rejected(done, *messages):
    """Check that a command ended with one line that has these messages."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(str(message) in done.stderr for message in messages), done.stderr

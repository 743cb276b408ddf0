"""All that a number may depend on besides the config: code, versions, machine and arithmetic."""

from collections.abc import Mapping
import datetime
import functools
import hashlib
import importlib.metadata
import os
from pathlib import Path
import platform
import shlex
import subprocess
import sys
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
ROOT = Path(__file__).parents[2]
CODE = ("configs", "experiments", "ln", "scripts")  # folders in ROOT
# How the names of the variables of compilers and threads begin.
TUNING = (
    "XLA_",
    "LIBTPU_",
    "NVIDIA_TF32",
    "OMP_",
    "GOMP_",
    "MKL_",
    "OPENBLAS_",
    "TF_XLA_",
    "TF_GPU_",
    "TF_CUDNN_",
)


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def commit() -> str | None:
    """Return the git commit of the running code, with a "+" if files differ from it.

    Return None if git does not track this file, as when the package is installed in the virtual
    environment of another repository.
    """

    def git(*words):
        return subprocess.run(
            ("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        # Results are collected while runs train, and no number depends on them.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/results")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def code() -> str:
    """Return the digest of the Python files of this project, wherever they are installed."""
    digest = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (ROOT / name).rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        # With names, and with / on every system: a moved file is another code, another folder is
        # not.
        digest.update(f"{path.relative_to(ROOT).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def arithmetic() -> dict[str, Any]:
    """Return the settings of jax that change every number: a run keeps them."""
    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
    values = {name.removeprefix("jax_"): getattr(jax.config, name) for name in names}
    return {name: value and str(value) for name, value in values.items()}


def environment() -> dict[str, Any]:
    """Return what a number may depend on besides the config."""
    device = jax.devices()[0]
    return dict(
        commit=commit(),
        code=code(),
        python=platform.python_version(),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        arithmetic=arithmetic(),
        tuning={k: v for k, v in sorted(os.environ.items()) if k.startswith(TUNING)},
        device=device.device_kind,
        backend=device.platform,
        devices=jax.device_count(),
        processes=jax.process_count(),
        cores=os.cpu_count(),
        system=platform.platform(),
    )


def machine(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rounding may depend on besides the arithmetic, as a session recorded it."""
    names = ("tuning", "device", "devices", "processes", "cores")
    return {name: session[name] for name in names if name in session}


def provenance(step: int) -> dict[str, Any]:
    """Return what made something from the state at a step: time, command and environment."""
    return dict(time=now(), command=shlex.join(sys.orig_argv[1:]), step=step, **environment())

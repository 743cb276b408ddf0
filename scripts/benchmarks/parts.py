"""Train a run as scripts.train does, and write how its time divides into parts.

    python -m scripts.benchmarks.parts OUT BEGAN UNTIL EXPERIMENT --config=... --workdir=...

OUT is a JSON file, part -> seconds; BEGAN is the time at which the process was started. UNTIL is
"end", or "first call" to end the process after the first call of the trainer.
"""

import functools
import importlib
import json
import os
from pathlib import Path
import sys
import time
from typing import NamedTuple

import numpy as np

from scripts import cli

EVENTS = {  # of jax -> part
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "tracing",
    "/jax/core/compile/backend_compile_duration": "compiling",  # or loading from the cache
}
REST = "data, run folder"  # all that is in no other part
FIRST_CALL = "first call"
PARTS = ("importing", REST, "tracing", "compiling", FIRST_CALL, "training", "evaluating", "writing")


class Interval(NamedTuple):
    """A part of the time of a process."""

    part: str
    began: float
    ended: float


def shares(intervals: list[Interval]) -> dict[str, float]:
    """Return the seconds of each part; at any time the interval that began last counts."""
    times = np.unique([time for interval in intervals for time in interval[1:]])
    owner = np.zeros(len(times) - 1, int)
    parts = [part for part in PARTS if part in {interval.part for interval in intervals}]
    for part, began, ended in sorted(intervals, key=lambda i: (i.began, -i.ended)):
        owner[slice(*np.searchsorted(times, (began, ended)))] = parts.index(part)
    return dict(zip(parts, np.bincount(owner, np.diff(times), len(parts)).tolist(), strict=True))


class Clock:
    """Notes when parts begin and end in this process.

    Attributes:
        intervals: those that have ended.
        opened: the part and the begin of the others, the innermost last.
    """

    def __init__(self, began: float):
        self.began, self.intervals, self.opened = began, list[Interval](), [(REST, began)]

    def note(self, part: str, began: float) -> None:
        """Note a part that ends now."""
        self.intervals.append(Interval(part, began, time.time()))

    def watch(self, part: str, owner: type, name: str) -> None:
        """Note each call of a method as a part."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def watched(*arguments):
            self.opened.append((part, time.time()))
            try:
                return method(*arguments)
            finally:
                self.note(*self.opened.pop())

        setattr(owner, name, watched)

    def write(self, path: str) -> None:
        """Write the seconds of the process until now, of its CPU time, and of each part."""
        used = time.process_time()
        for part, began in self.opened:
            self.note(part, began)
        seconds = {"seconds": time.time() - self.began, "CPU seconds": used}
        Path(path).write_text(json.dumps(seconds | shares(self.intervals)))


def main():
    """Train the run of the command line."""
    out, began, until, experiment, *words = sys.argv[1:]
    clock = Clock(float(began))

    import jax

    from ln.training import runs, train
    from scripts import train as command  # here, for its flags

    importlib.import_module(f"experiments.{experiment}.task")
    clock.note("importing", clock.began)

    def compiled(event: str, duration_secs: float, **_) -> None:
        if event in EVENTS:
            clock.note(EVENTS[event], time.time() - duration_secs)

    jax.monitoring.register_event_duration_secs_listener(compiled)
    if until == FIRST_CALL:
        dispatch = train.Training.dispatch

        def dispatch_once(*arguments):
            jax.block_until_ready(dispatch(*arguments))
            clock.write(out)
            os._exit(0)

        setattr(train.Training, "dispatch", dispatch_once)  # noqa: B010
    clock.watch(FIRST_CALL if until == FIRST_CALL else "training", train.Training, "train")
    clock.watch("evaluating", train.Training, "evaluate")
    for name in ("save", "write", "finish"):
        clock.watch("writing", runs.Run, name)
    sys.argv = [command.__file__, *words]
    try:
        cli.run(command.main)
    finally:
        clock.write(out)


if __name__ == "__main__":
    main()

"""Output of training: a live line on a terminal, and lines that stay.

It imports no jax, so that commands can use it before they load anything heavy.
"""

from collections.abc import Iterator
import contextlib
import datetime
import io
import os
from pathlib import Path
import sys
import time
from typing import TextIO

EVERY = 0.2, 10  # seconds between two lines of progress on a terminal, and elsewhere


class Output(io.TextIOBase):
    """A standard output that may be lost, as when a terminal closes: printing never ends a run."""

    def __init__(self, stream: TextIO | None):
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text; from the first error on, write nothing."""
        if self.stream is not None:
            try:
                # Flushed at once: behind a pipe, lines of progress would come in blocks of 8 kB.
                self.stream.write(text)
                self.stream.flush()
            except (OSError, ValueError):
                # Python flushes the rest of the buffer at exit: it goes nowhere.
                with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as null:
                    os.dup2(null.fileno(), self.stream.fileno())
                self.stream = None
        return len(text)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self.stream is not None and self.stream.isatty()


def say(text: str, end: str = "\n") -> None:
    """Print a line, in place of the live line if there is one."""
    # To the start of the line, and erase it: a shorter text would leave the end of the longer one.
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    print(f"{clear}{text}", end=end, flush=True)


@contextlib.contextmanager
def live_line() -> Iterator[None]:
    """Clear the live line at the end, also before an error is printed."""
    try:
        yield
    finally:
        say("", end="")


class Progress:
    """How far the work is: a line that is overwritten on a terminal, else one every ten seconds.

    The rate is that of steps alone. The ETA also counts the work between steps, such as compiling
    and evaluating, as far as it is still to come and was timed before.

    Attributes:
        left: kind of work between steps -> how often it is still to come.
    """

    def __init__(self, name: str, first: int, steps: int, unit: str = "step", value: str = "loss"):
        self.name, self.first, self.steps = name, first, steps
        self.unit, self.value = unit, value
        self.left: dict[str, int] = {}
        self.seconds: dict[str, float] = {}  # of the last work of each kind
        self.began = self.shown = time.monotonic()

    @contextlib.contextmanager
    def between(self, kind: str, said: str = "") -> Iterator[None]:
        """Time some work between steps, which has no part in the rate, and perhaps say so."""
        if said:
            say(f"{said} …", end=" ")
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[kind] = time.monotonic() - began
            self.began += self.seconds[kind]
            if said:
                print(f"{self.seconds[kind]:.1f} s", flush=True)

    def show(self, step: int, values) -> None:
        """Print the step, the rate, a value for each lane and the ETA, if some time has passed."""
        now, last, is_live = time.monotonic(), step == self.steps, sys.stdout.isatty()
        if now - self.shown < EVERY[not is_live] and not last:
            return
        self.shown = now
        # Work between steps has moved `began` forward, so it is no part of the rate.
        rate = max(step - self.first, 1) / max(now - self.began, 1e-9)  # of this session only
        rest = sum(seconds * self.left.get(kind, 0) for kind, seconds in self.seconds.items())
        eta = datetime.timedelta(seconds=round((self.steps - step) / rate + rest))
        text = " ".join(f"{value:.4g}" for value in values[:4]) + (" …" if len(values) > 4 else "")
        say(
            f"{self.name}  {self.unit} {step:,}/{self.steps:,} ({step / self.steps:.0%})  "
            f"{rate:,.1f} {self.unit}s/s  {self.value} {text}  ETA {eta}",
            end="" if is_live and not last else "\n",
        )

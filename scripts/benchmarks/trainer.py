"""The training loop as a peer, beside its bare compiled call."""

import contextlib
import dataclasses
import io
from pathlib import Path
import tempfile
import time
from unittest import mock

import jax
import jax.numpy as jnp

from ln.training import runs, train
from ln.training.optim import make_optimizer
from scripts.benchmarks import jax_peers
from scripts.benchmarks.timing import Peer

NEVER = 2**30  # more steps than it makes
LONGER = 10  # than the rounds of other peers: its rows come once in dozens of calls


class EndOfWindowError(Exception):
    """The trainer has made the calls that are timed."""


class Timed(train.Training):
    """The trainer, which notes when it has settled each call, and ends after some."""

    def begin(self, calls: int) -> "Timed":
        """Set the number of calls to time, which come after a first one."""
        self.calls, self.settled = calls, list[tuple[int, float]]()
        return self

    def dispatch(self, *arguments):
        """Start a call, and keep its results."""
        self.newest = super().dispatch(*arguments)
        return self.newest

    def settle(self, call):
        """Note the step and the time after a call was settled."""
        super().settle(call)
        if call is not None:
            self.settled.append((call[0].stop, time.perf_counter()))
            if len(self.settled) > self.calls:
                raise EndOfWindowError


class Trainer(Peer):
    """The loop of `train.fit` in steady state, without evaluations and checkpoints.

    Each round is a new run, whose time is taken from the end of the first call to that of the last
    one: batches are prepared, metrics fetched, and rows written as often as the config says.
    """

    def __init__(self, config):
        self.task, self.lanes = jax_peers.load(config), train.make_lanes(config)
        plan, never = train.Plan.make(config, self.task), dict(eval_every=NEVER, save_every=NEVER)
        self.plan = dataclasses.replace(plan, steps=NEVER, **never)
        self.optimizer = make_optimizer(config)
        self.compiled, (self.state, _) = jax_peers.trainer_call(config, self.task)
        steps = len(next(self.plan.calls(0)))  # a row may end a call early
        super().__init__(call=lambda: None, wait=lambda result: None, steps=steps)

    def seconds_per_step(self, calls: int) -> float:
        """Train a run for these calls and two more, and return the time of a step."""

        def initial(*_):
            return jax.tree.map(jnp.copy, self.state)

        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(io.StringIO()),
            runs.open_run(Path(folder, "run"), self.task.config, self.lanes) as run,
            # The same program in all rounds.
            mock.patch.multiple(train, make_call=lambda *_: self.compiled, init_lanes=initial),
        ):
            training = Timed(self.task, self.plan, run, train.ALONE).begin(calls)
            with contextlib.suppress(EndOfWindowError):
                training.train(self.optimizer, train.Interrupt())
            jax.block_until_ready(training.newest)  # so that it disturbs no other peer
        (first, began), (last, ended) = training.settled[0], training.settled[-1]
        return (ended - began) / (last - first)

    def calls_within(self, seconds: float) -> int:
        """Return about how many calls take that long, times LONGER."""
        return super().calls_within(LONGER * seconds)

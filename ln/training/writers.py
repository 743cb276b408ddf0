"""Copies of the rows of a run for other tools, chosen by name in ``config.writers``.

A writer is made when a session starts, gets all rows of the run again, and then each new one. Its
``write`` takes the values of a lane at a step, {"split/metric": value}.
"""

from pathlib import Path
import shutil
import time
from typing import Any

from flax.traverse_util import flatten_dict

from ln.errors import InputError

Lane = tuple[int, float]  # seed, learning rate


def settings(config: dict, lane: Lane) -> dict[str, Any]:
    """Return the flat config of one lane, with its own seed and learning rate."""
    kept = {key: value for key, value in config.items() if key not in ("seeds", "norms")}
    return flatten_dict(kept, sep=".") | dict(seed=lane[0], lr=lane[1])


class TensorBoard:
    """Event files in events/, a folder for each lane, with its settings as hyperparameters."""

    def __init__(self, folder: Path, config: dict, lanes: list[Lane]):
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
        from tensorboard.plugins.hparams import plugin_data_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        shutil.rmtree(folder / "events", ignore_errors=True)
        self.files: dict[Lane, Any] = {}
        for lane in lanes:
            place = folder / "events" / "seed={},lr={}".format(*lane)
            self.files[lane] = EventFileWriter(str(place))
            start = plugin_data_pb2.SessionStartInfo()
            for name, value in settings(config, lane).items():
                if isinstance(value, bool | int | float):
                    start.hparams[name].number_value = value
                else:
                    start.hparams[name].string_value = str(value)
            # As its module `metadata` makes it, which takes half a second to import.
            data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
            about = summary_pb2.SummaryMetadata()
            about.plugin_data.plugin_name = "hparams"
            about.plugin_data.content = data.SerializeToString()
            nothing = tensor_pb2.TensorProto(dtype="DT_FLOAT")
            names = dict(tag="_hparams_/session_start_info", tensor=nothing)
            self._add(lane, 0, [self.summary.Value(**names, metadata=about)])

    def _add(self, lane: Lane, step: int, values: list) -> None:
        event = self.event(summary=self.summary(value=values), step=step, wall_time=time.time())
        self.files[lane].add_event(event)

    def write(self, lane: Lane, step: int, values: dict[str, float]) -> None:
        """Add scalars."""
        scalars = [self.summary.Value(tag=k, simple_value=v) for k, v in values.items()]
        self._add(lane, step, scalars)

    def close(self) -> None:
        """Close the files."""
        for file in self.files.values():
            file.close()


class WandB:
    """Runs of Weights & Biases, one for each lane; WANDB_MODE=offline keeps them in wandb/."""

    def __init__(self, folder: Path, config: dict, lanes: list[Lane]):
        import wandb

        self.runs, name = {}, folder.name
        try:
            for lane in lanes:
                self.runs[lane] = wandb.init(
                    project="layer-normalization",
                    dir=folder,
                    group=name,
                    name="{},seed={},lr={}".format(name, *lane),
                    config=settings(config, lane),
                    reinit="create_new",  # several at a time
                )
        except wandb.errors.Error as error:
            raise InputError(
                f"Weights & Biases cannot start ({error}). Set WANDB_MODE=offline to keep its rows "
                f"here, or leave it out of config.writers."
            ) from error

    def write(self, lane: Lane, step: int, values: dict[str, float]) -> None:
        """Log the values."""
        self.runs[lane].log(values, step=step)

    def close(self) -> None:
        """Finish the runs."""
        for run in self.runs.values():
            run.finish()


Writer = TensorBoard | WandB
WRITERS: dict[str, type[Writer]] = dict(tensorboard=TensorBoard, wandb=WandB)


def make(folder: Path, config: dict, lanes: list[Lane]) -> list[Writer]:
    """Return the writers of a config; say which are not installed."""
    made: list[Writer] = []
    for name in config["writers"]:
        try:
            made.append(WRITERS[name](folder, config, lanes))
        except ImportError as error:
            print(f"config.writers: {name} is left out ({error}); metrics.jsonl has all rows.")
    return made

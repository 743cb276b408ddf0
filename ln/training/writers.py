"""Copies of the rows of a run for other tools, chosen by name in ``config.writers``.

A writer is for one lane. It is made when a session starts, gets all rows of the lane again, and
then each new one. Its ``write`` takes the values at a step, {"split/metric": value}.
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
    """An event file in events/, in a folder for each lane, with its settings as hyperparameters."""

    def __init__(self, folder: Path, config: dict, lane: Lane):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.hparams import plugin_data_pb2 as hparams_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # A folder for each lane, which TensorBoard shows as a separate curve. It is written anew,
        # since rows beyond the checkpoint of a resumed run would stay in the file.
        place = folder / "events" / "seed={},lr={}".format(*lane)
        shutil.rmtree(place, ignore_errors=True)
        self.event, self.file = Event, EventFileWriter(str(place))
        hparams = {
            name: dict(number_value=value)
            if isinstance(value, bool | int | float)
            else dict(string_value=str(value))
            for name, value in settings(config, lane).items()
        }
        # As its module `metadata` makes it, which takes half a second to import.
        about = hparams_pb2.HParamsPluginData(session_start_info=dict(hparams=hparams))
        self._add(
            step=0,
            tag="_hparams_/session_start_info",
            tensor=dict(dtype="DT_FLOAT"),
            metadata=dict(
                plugin_data=dict(plugin_name="hparams", content=about.SerializeToString())
            ),
        )

    def _add(self, step: int, **value) -> None:
        event = self.event(step=step, wall_time=time.time(), summary=dict(value=[value]))
        self.file.add_event(event)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._add(step, tag=name, simple_value=value)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class WandB:
    """A run of Weights & Biases for each lane; WANDB_MODE=offline keeps it in wandb/."""

    def __init__(self, folder: Path, config: dict, lane: Lane):
        import wandb

        try:
            self.run = wandb.init(
                project="layer-normalization",
                dir=folder,
                group=folder.name,
                name="{},seed={},lr={}".format(folder.name, *lane),
                config=settings(config, lane),
                reinit="create_new",  # several at a time
            )
        except wandb.errors.Error as error:
            raise InputError(
                f"Weights & Biases cannot start ({error}). Set WANDB_MODE=offline to keep its rows "
                f"here, or leave it out of config.writers."
            ) from error

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log the values."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


Writer = TensorBoard | WandB
WRITERS: dict[str, type[Writer]] = dict(tensorboard=TensorBoard, wandb=WandB)


def make(folder: Path, config: dict, lanes: list[Lane]) -> dict[Lane, list[Writer]]:
    """Return the writers of each lane; say which are not installed."""
    made: dict[Lane, list[Writer]] = {lane: [] for lane in lanes}
    for name in config["writers"]:
        try:
            for lane in lanes:
                made[lane].append(WRITERS[name](folder, config, lane))
        except ImportError as error:
            # Copies are a convenience: a run does not fail because a tool is not there.
            print(f"config.writers: {name} is left out ({error}); metrics.jsonl has all rows.")
    return made

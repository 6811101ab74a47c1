"""A run's numbers for TensorBoard, beside the run folder's own files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from deepskip.errors import InputError
from deepskip.training.events import EpochEnded, Event, Stepped

EVERY = 10  # steps between points of the step's loss
FOLDER = "tensorboard"


def writer() -> Any:
    """Return PyTorch's class that writes for TensorBoard. Raises InputError where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--track", "no TensorBoard here", "an installed one: pip install 'deepskip[track]'"
        ) from error
    return SummaryWriter


class Tracker:
    """Writes events to `<run folder>/tensorboard` as TensorBoard reads them. Raises InputError without it."""

    def __init__(self, folder: Path) -> None:
        self._writer = writer()(folder / FOLDER)

    def __call__(self, event: Event) -> None:
        """Write the event's numbers."""
        if isinstance(event, Stepped) and event.step % EVERY == 0:
            self._writer.add_scalar("step/loss", event.loss, event.step)
            self._writer.add_scalar("step/learning_rate", event.learning_rate, event.step)
        if isinstance(event, EpochEnded):
            for name, value in asdict(event).items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(f"epoch/{name}", value, event.epoch)
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

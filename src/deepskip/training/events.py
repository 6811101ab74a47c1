"""What a training run tells its caller, one event at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """Training is about to begin, at `step` of `steps` (above 0 when it resumes)."""

    step: int
    steps: int
    epochs: int
    device: str
    precision: str
    ranks: int = 1
    """Processes that train together."""


@dataclass(frozen=True)
class Noted:
    """Something that the user should know and that does not stop the run: one line."""

    text: str


@dataclass(frozen=True)
class Stepped:
    """One step was taken. Only yielded with `each_step=True`."""

    step: int
    steps: int
    epoch: int
    loss: float
    """Mean loss of the step; on a GPU, which is not asked after every step, of the last one that is known."""
    learning_rate: float


@dataclass(frozen=True)
class EpochEnded:
    """An epoch ended; the fields are the columns of `metrics.jsonl`. Errors in percent."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the epoch's batches as they were trained on, in nats."""
    train_error: float
    """Likewise: images that were wrong when they were trained on. With mixed images, whose label is two, those
    that were wrong about the label with the larger share."""
    val_loss: float
    val_error: float
    learning_rate: float
    """Of the epoch's last step."""
    images_per_second: float
    """Training alone, data included, scoring not."""
    seconds: float
    """Since the beginning of the run, pauses left out."""
    reconstruction_error: float | None = None
    """Of reversible steps: the largest difference of a reconstructed input, as a share of its largest value."""


@dataclass(frozen=True)
class Finished:
    """The run is complete. `score` fields are the last epoch's, as `deepskip evaluate` measures them."""

    seconds: float
    val_error: float
    train_error: float


Event = Started | Noted | Stepped | EpochEnded | Finished

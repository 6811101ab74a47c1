"""Where a run is: with the weights and the optimiser's state, all that resuming needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepskip.training.events import EpochEnded


@dataclass
class Progress:
    """A run's place and its sums, which go into its state as they are."""

    step: int = 0
    epochs: int = 0
    """Epochs that have ended."""
    epoch_step: int = 0
    """Steps taken in the epoch that is under way."""
    learning_rate: float = 0.0
    """Of the last step."""
    loss_sum: float = 0.0
    wrong: int = 0
    seen: int = 0
    held: bool = False
    """Whether the rate is still the recipe's `hold_lr`."""
    held_steps: int = 0
    """Steps taken there; the schedule has the rest."""
    best_error: float = math.inf
    """Lowest validation error of an epoch so far, in percent."""
    best_epoch: int = 0
    stopped: bool = False
    """Whether the run ended before its last step, because the error fell no more."""
    reconstruction_error: float | None = None
    """Largest of the epoch that is under way, of reversible steps."""
    seconds: float = 0.0
    train_seconds: float = 0.0
    """In the epoch that is under way."""

    def end_epoch(self, val_loss: float, val_error: float) -> EpochEnded:
        """Count the epoch that is under way as ended, and return its row."""
        ended = EpochEnded(
            epoch=self.epochs + 1,
            train_loss=self.loss_sum / self.seen,
            train_error=100 * self.wrong / self.seen,
            val_loss=val_loss,
            val_error=val_error,
            learning_rate=self.learning_rate,
            images_per_second=self.seen / max(self.train_seconds, 1e-9),
            seconds=self.seconds,
            reconstruction_error=self.reconstruction_error,
        )
        self.epochs += 1
        if val_error < self.best_error:
            self.best_error, self.best_epoch = val_error, self.epochs
        self.epoch_step, self.loss_sum, self.wrong, self.seen, self.train_seconds = 0, 0.0, 0, 0, 0.0
        self.reconstruction_error = None
        return ended

    def patience_is_out(self, patience: int | None) -> bool:
        """Return whether `patience` epochs have gone by without a lower validation error."""
        return patience is not None and self.epochs - self.best_epoch >= patience

"""Kernels of a training step, recorded once and launched at one stroke: a CUDA graph.

A GPU is done with a small layer before Python has asked for the next one; a graph asks for all of them at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepskip.data.batches import Batch

WARM = 3
"""Batches of a shape that are computed as usual before one is recorded: what is made once is then there."""


class Replayed:
    """Computes the gradient of batches as `compute` does, and from the fourth of a shape on by a recording.

    `compute` leaves a gradient in each of `trained`, which has none before, and waits for nothing that the GPU
    computes. One shape is recorded, the first that comes so often; other batches are computed as usual, and so
    are mixed ones, whose shares differ. What is drawn at random is drawn anew each time. A recording keeps its
    own memory, as much as a step needs.
    """

    def __init__(
        self, compute: Callable[[Batch], None], trained: Sequence[nn.Parameter], device: torch.device
    ) -> None:
        self.compute, self.trained, self.device = compute, trained, device
        self.why: str | None = None
        """Why nothing can be recorded, once that is known."""
        self._seen: dict[tuple[Any, ...], int] = {}
        self._key: tuple[Any, ...] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> None:
        """Leave the batch's gradient in the parameters, which have none."""
        key = (batch.images.shape, batch.images.stride(), batch.total, batch.copies)
        if batch.others is not None or self.why is not None:
            self.compute(batch)
        elif key == self._key:
            self._replay(batch)
        else:
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if self._key is not None or seen <= WARM:
                self.compute(batch)
            else:
                self._record(batch)
                (self.compute if self.why is not None else self._replay)(batch)
                self._key = key

    def _record(self, batch: Batch) -> None:
        """Record what `compute` does with a batch of this shape. Nothing is computed."""
        images = torch.empty_like(batch.images, device=self.device)
        self._batch = batch._replace(images=images, labels=torch.empty_like(batch.labels, device=self.device))
        try:
            graph = torch.cuda.CUDAGraph()
            # By itself it would record the current GPU, whichever the net is on; and other threads pin memory.
            with torch.cuda.device(self.device):
                stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    self.compute(self._batch)
        except RuntimeError as error:  # memory for both does not suffice, or a part waits for the GPU
            self.why = str(error).partition("\n")[0]
            self._batch = None
            for parameter in self.trained:
                parameter.grad = None
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
            return
        self._graph, self._gradients = graph, [parameter.grad for parameter in self.trained]

    def _replay(self, batch: Batch) -> None:
        assert self._batch is not None
        assert self._graph is not None
        self._batch.images.copy_(batch.images, non_blocking=True)
        self._batch.labels.copy_(batch.labels, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in zip(self.trained, self._gradients, strict=True):
            parameter.grad = gradient

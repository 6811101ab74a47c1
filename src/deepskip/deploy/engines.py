"""Runners: a net made ready by one library, from uint8 pictures to float32 logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepskip.deploy.runner import Closing, Logits, Pixels
from deepskip.extras import need, openvino_core
from deepskip.training.precision import computing_with

PIECE = 8
"""Pictures that a thread computes at once: weights are read once for all of them."""


class TorchRunner(Closing):
    """A module that takes uint8 images [n, c, h, w], by PyTorch, on the device where its parameters are."""

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        *,
        device: torch.device,
        threads: int,
        context: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        contiguous: bool = False,
        fixed: int | None = None,
    ) -> None:
        """Run `module` within `context`.

        `threads` of the processor compute, in calls and nowhere else.
        `contiguous`: images in the order [n, c, h, w] in memory, not [n, h, w, c]. `fixed`: a number of images
        that every call has, filled up with blank ones; None where any number will do.
        """
        self.name, self.threads = "torch", threads
        self._module, self._device, self._context = module, device, context
        self._contiguous, self._fixed = contiguous, fixed

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Logits:
        """Return logits float32 [n, classes] of uint8 pictures [n, h, w, c]."""
        whole = plain(pixels) if self._fixed is None else filled(pixels, self._fixed)
        images = torch.from_numpy(whole).to(self._device).permute(0, 3, 1, 2)
        if self._contiguous:
            images = images.contiguous()
        with computing_with(self.threads), self._context():
            logits = self._module(images)
        return logits[: len(pixels)].float().cpu().numpy()


class OnnxRunner(Closing):
    """An ONNX model, input `pixels` and output `logits`, by ONNX Runtime on the processor."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        """Load `model`, the content of a file. Its number of images may vary."""
        self.name, self.threads = "onnxruntime", threads
        onnxruntime = need("onnxruntime", self.name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, pixels: Pixels) -> Logits:
        """Return logits float32 [n, classes] of uint8 pictures [n, h, w, c]."""
        logits: Logits = self._session.run(None, {self._input: plain(pixels)})[0]
        return logits


class OpenVinoRunner(Closing):
    """An OpenVINO model, one input uint8 [n, h, w, c] and one output, on the processor.

    Each thread computes some pictures by itself, so that none waits for another inside a layer; fewer pictures
    than threads are computed by all threads together. A whole batch has shapes of its own, known beforehand,
    and so has one picture; any other number is computed a little less fast.
    """

    def __init__(self, model: Any, *, precision: str, threads: int, batch: int) -> None:
        """Compile `model`, whose number of pictures may vary, for `precision` ("f32" or "bf16")."""
        self.name, self.threads = "openvino", threads
        self._openvino = need("openvino", self.name)
        self._model, self._batch, self._streams = model, batch, min(threads, batch)
        self._classes = int(_inner(model.outputs[0])[0].get_length())
        self._compiled: dict[tuple[int, int | None], Any] = {}
        # A thread that is bound to a core waits while another program computes there, though others are idle.
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._requests(*self._plan(batch))

    def __call__(self, pixels: Pixels) -> Logits:
        """Return logits float32 [n, classes] of uint8 pictures [n, h, w, c]."""
        pixels, n = plain(pixels), len(pixels)
        logits = np.empty((n, self._classes), np.float32)
        requests = self._requests(*self._plan(n))
        parts = [slice(i * n // len(requests), (i + 1) * n // len(requests)) for i in range(len(requests))]
        for request, part in zip(requests, parts, strict=True):
            request.set_input_tensor(self._openvino.Tensor(pixels[part], shared_memory=True))
            request.start_async()
        for request, part in zip(requests, parts, strict=True):
            request.wait()
            logits[part] = request.get_output_tensor().data
        return logits

    def _plan(self, n: int) -> tuple[int, int, int | None]:
        """Return, for `n` pictures, how many requests are computed at once, how many there are, and their size.

        A size of None is left open.
        """
        streams = 1 if n < self._streams else self._streams
        count = 1 if n < self._streams else streams * -(-n // (PIECE * streams))
        fixed = n in (1, self._batch) and n % count == 0
        return streams, count, n // count if fixed else None

    def _requests(self, streams: int, count: int, size: int | None) -> list[Any]:
        """Return so many requests; what they run is compiled when it is first needed."""
        if (streams, size) not in self._compiled:
            shaped = self._model.clone()
            pictures = size or self._openvino.Dimension(1, max(PIECE, self.threads))
            shaped.reshape([pictures, *_inner(shaped.inputs[0])])
            settings = {**self._settings, "NUM_STREAMS": streams}
            self._compiled[streams, size] = openvino_core().compile_model(shaped, "CPU", settings), []
        compiled, requests = self._compiled[streams, size]
        requests += [compiled.create_infer_request() for _ in range(count - len(requests))]
        return list(requests[:count])


def _inner(port: Any) -> list[Any]:
    """Return a port's shape without the number of pictures."""
    return list(port.partial_shape)[1:]


def plain(pixels: Pixels) -> Pixels:
    """Return `pixels` as libraries take them without a copy: one after the other, and not read-only."""
    return np.require(pixels, np.uint8, ("C_CONTIGUOUS", "WRITEABLE"))


def filled(pixels: Pixels, count: int) -> Pixels:
    """Return `pixels` [n, h, w, c] with blank pictures after them, `count` in all."""
    if len(pixels) == count:
        return plain(pixels)
    whole = np.zeros((count, *pixels.shape[1:]), np.uint8)
    whole[: len(pixels)] = pixels
    return whole

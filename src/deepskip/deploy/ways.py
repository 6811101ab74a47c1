"""Every way to run a net here: which library computes it, in which numbers, what it needs, how it is made."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from deepskip.data.batches import scale_and_shift
from deepskip.deploy import graph
from deepskip.deploy.engines import OnnxRunner, OpenVinoRunner, TorchRunner
from deepskip.deploy.runner import Pixels, Runner
from deepskip.describe.preprocessing import Colour, Preprocessing
from deepskip.describe.spec import Spec
from deepskip.errors import InputError, WorkError, choices, nearest
from deepskip.extras import has, need
from deepskip.model import Model
from deepskip.nets.builder import build
from deepskip.training.precision import has_bf16
from deepskip.weights.store import Header

Numbers = Literal["float32", "bf16", "int8"]
Making = Callable[["Source", int, int], Runner]
"""Of a model, a batch and a number of threads."""
EXTRA = 'pip install "deepskip[export]"'


class Source:
    """A model, and what is converted from it, once, for all that is made of it.

    `calibration` are real pictures, uint8 [n, h, w, c], by which an int8 net chooses its ranges.
    """

    def __init__(self, model: Model, calibration: Pixels | None = None) -> None:
        self.model, self.calibration = model, calibration

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.net.parameters()).device

    @cached_property
    def openvino(self) -> Any:
        """The net as an OpenVINO model, uint8 pictures in, logits out."""
        return graph.openvino_of(self.onnx)

    @cached_property
    def int8(self) -> Any:
        """The same in eight bits. Raises WorkError without pictures to calibrate it."""
        if self.calibration is None:
            raise WorkError("openvino-int8", "no pictures to choose its ranges by", "--data DATA")
        return _rounded(self.openvino, self.calibration)

    @cached_property
    def onnx(self) -> bytes:
        """The net as an ONNX model, uint8 pictures in, logits out."""
        return graph.onnx_bytes(self.model)

    def module(self, *, channels_last: bool = True) -> nn.Module:
        """Return a copy of the network in evaluation mode, with the scaling, from uint8 [n, c, h, w]."""
        order = torch.channels_last if channels_last else torch.contiguous_format
        net = copy.deepcopy(self.model.net).eval().requires_grad_(False)
        return _Images(net.to(memory_format=order), self.model.preprocessing)  # type: ignore[call-overload]


class _Images(nn.Module):
    """A net with its scaling: uint8 images [n, c, h, w], in any order in memory → logits [n, classes]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net = net
        weight = next(net.parameters())
        self.dtype = weight.dtype
        numbers = scale_and_shift(preprocessing.mean, preprocessing.std, torch.float32, weight.device)
        for name, tensor in zip(("scale", "shift"), numbers, strict=True):
            self.register_buffer(name, tensor)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images`."""
        scaled = images.to(torch.float32) * self.scale + self.shift
        logits: Tensor = self.net(scaled.to(self.dtype))
        return logits


@dataclass(frozen=True)
class Way:
    """One way to run a net."""

    name: str
    numbers: Numbers
    """What it computes in. float32 is as PyTorch but for rounding."""
    needs: tuple[str, ...]
    """Packages beside PyTorch; "c++" is a compiler."""
    preparing: float
    """Seconds that it takes to make, a layer, roughly: what it has to pay back."""
    _make: Making
    devices: tuple[str, ...] = ("cpu",)

    def lacking(self, device: torch.device) -> str | None:
        """Return why it cannot run a net on `device`; None where it can."""
        if device.type not in self.devices:
            return f"a net on {device.type}"
        for package in self.needs:
            if package == "c++":
                if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
                    return "no C++ compiler"
            elif not has(package):
                return f"no {package} ({EXTRA})"
        return "no bf16 in hardware" if self.numbers == "bf16" and not has_bf16(device) else None

    def make(self, source: Source | Model, *, batch: int, threads: int | None = None) -> Runner:
        """Return a runner, ready and warm, for up to `batch` pictures a call.

        `threads` of the processor compute, by default as many as PyTorch uses. Raises WorkError when the way
        does not work here.
        """
        source = source if isinstance(source, Source) else Source(source)
        if (lack := self.lacking(source.device)) is not None:
            raise WorkError(f"way {self.name}", lack, "another way, or what it needs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compilers and converters tell of their own inside
            runner = self._make(source, batch, threads or torch.get_num_threads())
            runner.name = self.name
            if self.needs:  # PyTorch's own operations need no warming
                size, channels = source.model.preprocessing.size, source.model.preprocessing.channels
                runner(np.zeros((batch, size, size, channels), np.uint8))
        return runner


def _torch(*, order: str = "channels last", bf16: bool = False, compiled: bool = False) -> Making:
    def make(source: Source, batch: int, threads: int) -> Runner:
        module: Any = source.module(channels_last=order == "channels last")
        if compiled:
            # Freezing makes constants of the weights: normalisers are folded, layouts chosen for the kernels.
            module = torch.compile(module, dynamic=False, options={"freezing": True})
        return TorchRunner(
            module,
            device=source.device,
            threads=threads,
            context=functools.partial(_bf16 if bf16 else _exact, source.device),
            contiguous=order == "contiguous",
            fixed=batch if compiled else None,
        )

    return make


def _bf16(device: torch.device) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _exact(device: torch.device) -> contextlib.AbstractContextManager[object]:
    if device.type == "cpu":
        return contextlib.nullcontext()
    cudnn = torch.backends.cudnn  # TF32 would round the convolutions' inputs to ten bits
    return cudnn.flags(enabled=cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False)


def _onnxruntime(source: Source, batch: int, threads: int) -> Runner:
    return OnnxRunner(source.onnx, threads=threads)


def _openvino(numbers: Numbers) -> Making:
    def make(source: Source, batch: int, threads: int) -> Runner:
        model = source.int8 if numbers == "int8" else source.openvino
        # What is left between quantised operations is best in bf16 too, where the processor has it.
        half = numbers == "bf16" or (numbers == "int8" and has_bf16(source.device))
        return OpenVinoRunner(model, precision="bf16" if half else "f32", threads=threads, batch=batch)

    return make


def _rounded(model: Any, pixels: Pixels) -> Any:
    nncf = need("nncf", "way openvino-int8")
    given = nncf.Dataset([pixels[i : i + 1] for i in range(len(pixels))])
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars there
        return nncf.quantize(
            model,
            given,
            subset_size=len(pixels),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
        )


_ANY = ("cpu", "cuda")
_ONNX, _OPENVINO = ("onnx", "onnxscript", "onnxruntime"), ("onnx", "onnxscript", "openvino")
WAYS = (
    Way("eager", "float32", (), 0.0, _torch(order="contiguous"), _ANY),
    Way("channels-last", "float32", (), 0.0, _torch(), _ANY),
    Way("bf16", "bf16", (), 0.0, _torch(bf16=True), _ANY),
    Way("inductor", "float32", ("c++",), 0.6, _torch(compiled=True), _ANY),
    Way("inductor-bf16", "bf16", ("c++",), 0.6, _torch(compiled=True, bf16=True), _ANY),
    Way("onnxruntime", "float32", _ONNX, 0.2, _onnxruntime),
    Way("openvino", "float32", _OPENVINO, 0.15, _openvino("float32")),
    Way("openvino-bf16", "bf16", _OPENVINO, 0.15, _openvino("bf16")),
    Way("openvino-int8", "int8", (*_OPENVINO, "nncf"), 1.0, _openvino("int8")),
)


def named(name: str) -> Way:
    """Return the way called `name`. Raises InputError."""
    for way in WAYS:
        if way.name == name:
            return way
    names = [way.name for way in WAYS]
    raise InputError("--way", repr(name), choices(names), nearest(name, names))


def unnamed(spec: Spec) -> Model:
    """Return a model of `spec` that nobody has trained: initial values, numbered classes."""
    size, channels = spec.input[1], spec.input[0]
    colour: Colour = "RGB" if channels == 3 else "L"
    preprocessing = Preprocessing(
        size=size, resize=size, colour=colour, mean=(0.5,) * channels, std=(0.25,) * channels
    )
    classes = tuple(f"class {i}" for i in range(spec.classes))
    net = build(spec).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(net, Header(spec=spec, classes=classes, preprocessing=preprocessing))

"""Predicting speed: deepskip's ways beside torchvision's net and the bare libraries, in one run.

Run with a Python that has torchvision and the export extra:

    PYTHONPATH=src python benchmarks/predict_speed.py [--net resnet50] [--rounds 5]
    PYTHONPATH=src python benchmarks/predict_speed.py --photos FOLDER

Contenders run the same net (untrained: values do not matter to speed, but denormal numbers do not arise
either) on the same 224 × 224 pictures:

- `torchvision`: its net as it is, contiguous float32 in evaluation mode, as its own reference evaluates;
- `bare inductor`, `bare inductor bf16`: torchvision's net, channels last, compiled with freezing on;
- `bare onnxruntime`: torchvision's net by `torch.onnx.export`, in a session with its own defaults;
- `bare openvino`, `bare openvino bf16`, `bare openvino int8`: torchvision's net by `openvino.convert_model`
  (and `nncf.quantize`), with the hint for throughput and an `AsyncInferQueue` where there are several images,
  the hint for latency where there is one;
- `ours …`: `deepskip.deploy.ways`, from uint8 pictures, scaling included.

The bare ones get float32 inputs that are scaled already, which is less work than ours do. Each is in a
process of its own, and they take turns; the medians over rounds and their ratios go to
`results/predict-speed-<cpu>.md`, and a picture beside it.

With `--photos` deepskip predicts a folder of pictures end to end, decoding included, and is compared with its
own runner on pixels in memory, measured right before and after; the lines are added to the same file.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import itertools
import multiprocessing
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import processor
from torch import nn

import deepskip as ds
from deepskip.data.listing import find_pictures
from deepskip.deploy import choosing, stream
from deepskip.deploy.ways import Source, named, unnamed
from deepskip.extras import need
from deepskip.model import Model

SIZE = 224
CALIBRATION = 64
Call = Callable[[], object]
OURS = ("openvino", "openvino-bf16", "openvino-int8")
BARE = {
    "torchvision": "float32",
    "bare inductor": "float32",
    "bare inductor bf16": "bf16",
    "bare onnxruntime": "float32",
    "bare openvino": "float32",
    "bare openvino bf16": "bf16",
    "bare openvino int8": "int8",
}
CONTENDERS = {**BARE, **{f"ours {name}": named(name).numbers for name in OURS}}


def peer(name: str) -> nn.Module:
    """Return torchvision's net, untrained, in evaluation mode."""
    import torchvision

    return getattr(torchvision.models, name)(weights=None).eval()  # type: ignore[no-any-return]


def images(batch: int) -> torch.Tensor:
    """Return scaled images, float32 [batch, 3, 224, 224]."""
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def torch_call(net: nn.Module, batch: int, *, compiled: bool, half: bool) -> Call:
    """Return a call of the net by PyTorch."""
    x, run = images(batch), net
    if compiled:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = torch.compile(net, dynamic=False, options={"freezing": True})  # type: ignore[assignment]

    def call() -> object:
        with torch.inference_mode(not compiled), torch.no_grad(), torch.autocast("cpu", torch.bfloat16, half):
            return run(x).float().numpy()

    return call


def onnx_call(net: nn.Module, batch: int) -> Call:
    """Return a call of the net by ONNX Runtime."""
    onnxruntime = need("onnxruntime", "bare onnxruntime")
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    made: Any = torch.onnx.export(net, (images(2),), dynamo=True, dynamic_shapes=shapes, verbose=False)
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString(), options)
    feed = {session.get_inputs()[0].name: images(batch).numpy()}
    return lambda: session.run(None, feed)


def openvino_call(model: Any, batch: int, *, half: bool) -> Call:
    """Return a call of the net by OpenVINO."""
    openvino = need("openvino", "bare openvino")
    hint = "LATENCY" if batch == 1 else "THROUGHPUT"
    settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "bf16" if half else "f32"}
    one = model.clone()
    one.reshape([1, 3, SIZE, SIZE])
    compiled = openvino.Core().compile_model(one, "CPU", settings)
    x = images(batch).numpy()
    if batch == 1:
        return lambda: compiled(x)
    queue = openvino.AsyncInferQueue(compiled)

    def call() -> object:
        for i in range(batch):
            queue.start_async({0: x[i : i + 1]}, share_inputs=True)
        return queue.wait_all()

    return call


def converted(net: nn.Module, *, int8: bool) -> Any:
    """Return torchvision's net as an OpenVINO model."""
    openvino = need("openvino", "bare openvino")
    model = openvino.convert_model(net, example_input=images(2))
    if int8:
        nncf = need("nncf", "bare openvino int8")
        data = nncf.Dataset([images(CALIBRATION)[i : i + 1].numpy() for i in range(CALIBRATION)])
        model = nncf.quantize(model, data, subset_size=CALIBRATION, preset=nncf.QuantizationPreset.MIXED)
    return model


def contender(name: str, net: str) -> Callable[[int], Call]:
    """Return what makes the contender's call for a batch."""
    half = CONTENDERS[name] != "float32"  # int8: what is left between quantised operations is best in bf16
    if name.startswith("ours "):
        pixels = np.random.default_rng(0).integers(0, 256, (CALIBRATION, SIZE, SIZE, 3), dtype=np.uint8)
        source, way = Source(unnamed(ds.zoo.get(net)), pixels), named(name.removeprefix("ours "))

        def ours(batch: int) -> Call:
            runner = way.make(source, batch=batch)
            return lambda: runner(pixels[:batch])

        return ours
    model = peer(net)
    if "openvino" in name:
        graph = converted(model, int8="int8" in name)
        return lambda batch: openvino_call(graph, batch, half=half)
    if "onnx" in name:
        return lambda batch: onnx_call(model, batch)
    return lambda batch: torch_call(copy.deepcopy(model), batch, compiled="inductor" in name, half=half)


def serve(name: str, net: str, seconds: float, asked: Connection) -> None:
    """Take turns in a process of its own, as it would run: what one sets there is no help to another."""
    warnings.simplefilter("ignore")
    make, calls = contender(name, net), {}
    while (batch := asked.recv()) is not None:
        if batch < 0:
            calls[-batch] = make(-batch)
            calls[-batch]()
            asked.send(None)
            continue
        spent: list[float] = []
        while not spent or sum(spent) < seconds:
            started = time.perf_counter()
            calls[batch]()
            spent.append(time.perf_counter() - started)
        asked.send(spent)


def measure(
    net: str, names: list[str], batches: list[int], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each contender and batch, as `deepskip.deploy.bench.measure`'s."""
    spawning = multiprocessing.get_context("spawn")
    asking = {}
    for name in names:
        asking[name], asked = spawning.Pipe()
        spawning.Process(target=serve, args=(name, net, seconds, asked), daemon=True).start()
    rows = []
    for batch in batches:
        started = time.perf_counter()
        for name in names:
            asking[name].send(-batch)
        for name in names:
            asking[name].recv()
        print(f"batch {batch}: ready after {time.perf_counter() - started:.0f} s", flush=True)
        spent: dict[str, list[list[float]]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names if turn % 2 else reversed(names):
                asking[name].send(batch)
                found = asking[name].recv()
                if turn:  # the first warms up
                    spent[name].append(found)
        rates = {name: [batch * len(one) / sum(one) for one in turns] for name, turns in spent.items()}
        for name in names:
            p50, p95 = np.percentile(list(itertools.chain(*spent[name])), (50, 95)) * 1000
            ratios = [ours / theirs for ours, theirs in zip(rates[name], rates[names[0]], strict=True)]
            row = {"way": name, "numbers": CONTENDERS[name], "batch": batch, "p50_ms": p50, "p95_ms": p95}
            row |= {"images_per_second": statistics.median(rates[name]), "ratio": statistics.median(ratios)}
            rows.append(row | {"slowest": min(rates[name]), "fastest": max(rates[name])})
            print(batch, name, f"{row['images_per_second']:.1f}/s {row['ratio']:.2f}x", flush=True)
    for connection in asking.values():
        connection.send(None)
    return rows


def pictures(model: Model, files: list[Path], batch: int) -> Iterator[stream.Read]:
    """Yield the pictures in `files`, decoded ahead; none of them may be broken."""
    for one in stream.decoded(files, model.preprocessing, batch=batch):
        assert isinstance(one, stream.Read), one
        yield one


def end_to_end(net: str, way: str, folder: Path, batch: int) -> tuple[float, float, int]:
    """Return images/s of predicting a folder and of the runner alone (mean of before and after), and images."""
    model = unnamed(ds.zoo.get(net))
    model = Model(model.net, model.header.replace(preprocessing=model.preprocessing.replace(resize=256)))
    files = list(find_pictures([folder]))
    first = itertools.islice(pictures(model, files, batch), stream.CALIBRATION)
    sample = np.stack([one.picture for one in first])
    runner = named(way).make(Source(model, sample), batch=batch)

    def alone() -> float:
        return max(choosing.measured(runner, sample[:batch]) for _ in range(3))

    def predicted(some: list[Path]) -> Iterator[Any]:
        return stream.computed(model, runner, pictures(model, some, batch), batch=batch)

    list(predicted(files[: 4 * batch]))
    before = alone()
    started = time.perf_counter()
    n = sum(1 for _ in predicted(files))
    rate = n / (time.perf_counter() - started)
    return rate, (before + alone()) / 2, n


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet50")
    parser.add_argument("--batches", default="32,1", help="images a call")
    parser.add_argument("--only", default="", help="contenders whose name has this, beside torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--photos", type=Path, help="a folder of pictures, to be predicted end to end")
    parser.add_argument("--ways", default="openvino,openvino-bf16,openvino-int8", help="ways to predict it")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    path = given.out / f"predict-speed-{processor()}.md"
    if given.photos is not None:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n\n## End to end")[0].splitlines()
        lines += folder_lines(given.net, given.ways.split(","), given.photos)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(path)
        return 0
    names = [name for name in CONTENDERS if name == "torchvision" or given.only in name]
    batches = [int(word) for word in given.batches.split(",")]
    rows = measure(given.net, names, batches, given.rounds, given.seconds)
    path.write_text("\n".join(table(rows, given)) + "\n", encoding="utf-8")
    from deepskip.figures.bench import speed_of_ways
    from deepskip.figures.style import save

    save(speed_of_ways(rows, net=given.net, machine=processor()), path.with_suffix(".svg"), " ".join(sys.argv))
    print(path)
    return 0


def table(rows: list[dict[str, Any]], given: argparse.Namespace) -> list[str]:
    """Return the lines of the table."""
    names = ("torch", "torchvision", "openvino", "nncf", "onnxruntime")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    text = f"""# Predicting speed

{processor()}, {torch.get_num_threads()} threads; {versions}.
Written by `benchmarks/predict_speed.py`, which says what the contenders are: {given.net} at {SIZE} pixels,
{given.rounds} rounds of turns of {given.seconds:g} s. *Ratio* is a contender's rate over torchvision's in the
same round, the median.

| batch | contender | images/s | least to most | ratio | p50 ms | p95 ms |
|--:|---|--:|---|--:|--:|--:|"""
    lines = text.splitlines()
    for row in rows:
        spread = f"{row['slowest']:,.1f} to {row['fastest']:,.1f}"
        speed = f"{row['images_per_second']:,.1f} | {spread} | {row['ratio']:.2f}"
        lines.append(f"| {row['batch']} | {row['way']} | {speed} | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} |")
    return [*lines, "", *verdict(rows)]


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """Return, for each batch, how ours compare with the best of the bare ones in as few bits."""
    bits = {"float32": 3, "bf16": 2, "int8": 1}
    lines = []
    for batch in dict.fromkeys(row["batch"] for row in rows):
        some = [row for row in rows if row["batch"] == batch]
        for ours in (row for row in some if row["way"].startswith("ours ")):
            bare = [row for row in some if row["way"].startswith("bare ")]
            bare = [row for row in bare if bits[row["numbers"]] >= bits[ours["numbers"]]]
            if bare:
                best = max(bare, key=lambda row: row["images_per_second"])
                times = ours["images_per_second"] / best["images_per_second"]
                text = f"{times:.2f} times {best['way']}, the best with no fewer bits."
                lines.append(f"- batch {batch}, {ours['way']}: {text}")
    return lines


def folder_lines(net: str, ways: list[str], folder: Path) -> list[str]:
    """Return the lines about predicting a folder of pictures."""
    lines = [
        "",
        f"## End to end: {net} on a folder of pictures",
        "",
        "| way | pictures | images/s, files to classes | runner alone | share |",
        "|---|--:|--:|--:|--:|",
    ]
    for way in ways:
        rate, alone, n = end_to_end(net, way, folder, 32)
        lines.append(f"| {way} | {n:,} | {rate:.1f} | {alone:.1f} | {rate / alone:.2f} |")
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    sys.exit(main())

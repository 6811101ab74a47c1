"""Parity with torchvision, timm and transformers: the same tensors compute the same function, and gradient.

Run with a Python that has the three peers:

    PYTHONPATH=src python benchmarks/parity.py [--only WORD] [--size 64] [--out results]

For every net: random weights and normaliser statistics in the peer, through our adapter, the same images in
both; the largest difference of logits over the largest logit, in float64 and float32; a key-for-key round trip;
and the peer's own `load_state_dict(strict=True)` of what `to_foreign` makes. Then one training step of ours and
of torchvision's from the same weights. Writes a table to `results/parity-<cpu>.md`; with `--only`, the
other rows stay as they are there. Exit code 1 when a row fails.
"""

from __future__ import annotations

import argparse
import copy
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torchvision
import transformers
from torch import Tensor, nn
from torch.nn import functional

from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.hub.architectures import ResNetConfig, architecture
from deepskip.nets.builder import build
from deepskip.weights.adapters.translate import COUNTER, detect, from_foreign, to_foreign

WITHIN = {torch.float64: 1e-12, torch.float32: 1e-5}
GRADIENTS_WITHIN = 1e-10

TORCHVISION = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
)
TIMM = (
    "resnet18",
    "resnet26",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet200",
    "resnet18d",
    "resnet26d",
    "resnet34d",
    "resnet50d",
    "resnet101d",
    "resnet152d",
    "resnet200d",
    "resnet50c",
    "resnet101c",
    "resnet50_gn",
    "seresnet18",
    "seresnet34",
    "seresnet50",
    "seresnet101",
    "seresnet152",
    "seresnet152d",
    "seresnet200d",
    "resnext50_32x4d",
    "resnext50d_32x4d",
    "resnext101_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "seresnext50_32x4d",
    "seresnext101_32x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnetv2_18",
    "resnetv2_34",
    "resnetv2_50",
    "resnetv2_101",
    "resnetv2_152",
    "resnetv2_18d",
    "resnetv2_34d",
    "resnetv2_50d",
    "resnetv2_101d",
    "resnetv2_152d",
    "resnetv2_50d_gn",
)
_FULL = {"hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"}
_SMALL = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "resnet-18": {**_SMALL, "depths": [2, 2, 2, 2]},
    "resnet-34": {**_SMALL, "depths": [3, 4, 6, 3]},
    "resnet-26": {**_FULL, "depths": [2, 2, 2, 2]},
    "resnet-50": {**_FULL, "depths": [3, 4, 6, 3]},
    "resnet-101": {**_FULL, "depths": [3, 4, 23, 3]},
    "resnet-152": {**_FULL, "depths": [3, 8, 36, 3]},
    "resnet-50, downsample_in_bottleneck": {**_FULL, "depths": [3, 4, 6, 3], "downsample_in_bottleneck": True},
    "resnet-18, downsample_in_first_stage": {
        **_SMALL,
        "depths": [2, 2, 2, 2],
        "downsample_in_first_stage": True,
    },
}


class Pair(NamedTuple):
    """One net, there and here."""

    source: str
    name: str
    spec: Spec
    make: Callable[[], nn.Module]


class Row(NamedTuple):
    """What was measured for a pair."""

    pair: Pair
    params: int
    float64: float
    float32: float
    keys: int
    round_trip: bool
    detected: str

    @property
    def passed(self) -> bool:
        """Whether everything is within its bound."""
        close = self.float64 <= WITHIN[torch.float64] and self.float32 <= WITHIN[torch.float32]
        return close and self.round_trip


def pairs() -> Iterator[Pair]:
    """Yield every net that an adapter covers."""
    for name in TORCHVISION:
        yield Pair("torchvision", name, spec_of(name), lambda name=name: torchvision.models.get_model(name))
    for name in TIMM:
        yield Pair("timm", name, spec_of(name), lambda name=name: timm.create_model(name))
    for name, fields in TRANSFORMERS.items():
        config = transformers.ResNetConfig(num_labels=1000, **fields)
        spec = ResNetConfig.model_validate(config.to_dict() | {"id2label": {}}).spec("resnet_transformers")
        yield Pair(
            "transformers", name, spec, lambda config=config: transformers.ResNetForImageClassification(config)
        )


def spec_of(name: str) -> Spec:
    """Return the zoo's net where it has one of that name, and else what the name means."""
    meant = architecture(name)
    assert meant is not None, name
    entry = next((entry.spec for entry in zoo.ZOO if entry.name == meant.base), None)
    return entry or meant


@torch.no_grad()
def randomise(net: nn.Module, seed: int) -> nn.Module:
    """Give every normaliser of `net` random scales, shifts and statistics; convolutions have theirs."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith(COUNTER):
            tensor.fill_(int(torch.randint(1000, (), generator=generator)))
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.75)
        elif tensor.ndim == 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return net.eval()


@torch.no_grad()
def compare(pair: Pair, size: int) -> Row:
    """Return what the pair's parity is on images of `size` pixels."""
    torch.manual_seed(0)
    peer = randomise(pair.make(), 1)
    theirs = peer.state_dict()
    ours = build(pair.spec).eval()
    state = from_foreign(pair.spec, theirs, pair.source)
    ours.load_state_dict(state)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    single = relative(logits(peer, images), ours(images))
    back = to_foreign(pair.spec, ours.state_dict(), pair.source)
    same = back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in theirs)
    params = sum(tensor.numel() for tensor in ours.parameters())
    keys, detected = len(theirs), detect(theirs)
    double = relative(logits(peer.double(), images.double()), ours.double()(images.double()))
    peer.load_state_dict(to_foreign(pair.spec, ours.state_dict(), pair.source), strict=True)
    return Row(pair, params, double, single, keys, same, detected)


def logits(peer: nn.Module, images: Tensor) -> Tensor:
    """Return a peer's logits; transformers wraps them."""
    out: Any = peer(images)
    return getattr(out, "logits", out)


def relative(theirs: Tensor, ours: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((theirs - ours).abs().max() / theirs.abs().max())


def gradients(name: str, size: int) -> tuple[float, float, float]:
    """Return the differences of loss, gradients and statistics after one training step in float64."""
    torch.manual_seed(0)
    spec, peer = spec_of(name), randomise(torchvision.models.get_model(name), 1).double().train()
    ours = build(spec).double().train()
    ours.load_state_dict(from_foreign(spec, copy.deepcopy(peer.state_dict()), "torchvision"))
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, size, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(1000, (4,), generator=generator)
    losses = []
    for net in (peer, ours):
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        loss = functional.cross_entropy(net(images), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    slopes = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.grad is not None}
    mine = to_foreign(spec, {**ours.state_dict(), **slopes}, "torchvision")
    worst = max(relative(there(p.grad), mine[key]) for key, p in peer.named_parameters())
    after = to_foreign(spec, ours.state_dict(), "torchvision")
    moved = max(
        relative(tensor, after[key]) for key, tensor in peer.state_dict().items() if tensor.is_floating_point()
    )
    return relative(losses[0], losses[1]), worst, moved


def there(gradient: Tensor | None) -> Tensor:
    """Return the gradient, which is there."""
    assert gradient is not None
    return gradient


def processor() -> str:
    """Return this machine's processor, as a part of a file's name."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def kept(path: Path) -> dict[str, str]:
    """Return the rows of the table that is there, by their first two cells."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {_key(line): line for line in lines if re.match(r"\| (torchvision|timm|transformers|step) \|", line)}


def _key(line: str) -> str:
    return "|".join(line.split("|")[1:3])


def line_of(row: Row) -> str:
    """Return a net's line of the table."""
    return (
        f"| {row.pair.source} | {row.pair.name} | {row.pair.spec.name} | {row.params:,} | {row.float64:.1e} | "
        f"{row.float32:.1e} | {row.keys} | {'same' if row.round_trip else 'not the same'} | {row.detected} | "
        f"{'passed' if row.passed else 'FAILED'} |"
    )


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure what this pattern is found in ('timm resnetv2_50')")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the table")
    given = parser.parse_args()
    path = given.out / f"parity-{processor()}.md"
    rows = kept(path) if given.only else {}
    for pair in pairs():
        if re.search(given.only, f"{pair.source} {pair.name}"):
            line = line_of(compare(pair, given.size))
            rows[_key(line)] = line
            print(line, flush=True)
    for name in ("resnet18", "resnet50"):
        if re.search(given.only, f"step {name}"):
            found = gradients(name, given.size)
            verdict = "passed" if max(found) <= GRADIENTS_WITHIN else "FAILED"
            line = f"| step | {name} | " + " | ".join(f"{value:.1e}" for value in found) + f" | {verdict} |"
            rows[_key(line)] = line
            print(line, flush=True)
    given.out.mkdir(exist_ok=True)
    path.write_text(table(rows, given.size), encoding="utf-8")
    failed = sum("FAILED" in line for line in rows.values())
    print(f"{failed} of {len(rows)} rows failed; {path}")
    return int(failed > 0)


def table(rows: dict[str, str], size: int) -> str:
    """Return the whole file."""
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, torchvision, timm, transformers))
    steps = [line for line in rows.values() if line.startswith("| step")]
    order = {f" {pair.source} | {pair.name} ": i for i, pair in enumerate(pairs())}
    nets = sorted((key for key in rows if key in order), key=order.__getitem__)
    lines = [
        "# Parity with torchvision, timm and transformers",
        "",
        f"{versions}; {processor()}; images 2×3×{size}×{size},",
        "random weights and statistics. Differences are of logits, largest over largest; allowed: 1e-12 in",
        "float64, 1e-5 in float32. Written by `benchmarks/parity.py`.",
        "",
        "| source | net there | net here | parameters | float64 | float32 | keys | round trip | detected | |",
        "|---|---|---|--:|--:|--:|--:|---|---|---|",
        *(rows[key] for key in nets),
        "",
        "One training step (SGD, momentum 0.9) from torchvision's weights, float64; allowed: 1e-10.",
        "",
        "| | net | loss | worst gradient | worst tensor after the step | |",
        "|---|---|--:|--:|--:|---|",
        *steps,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

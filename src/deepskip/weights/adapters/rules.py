"""Which nets a foreign library has: what must hold so that the same tensors compute the same function there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deepskip.describe.spec import Block, Conv, Junction, Spec
from deepskip.errors import InputError, choices

_USUAL: dict[str, tuple[object, ...]] = {
    "order": ("post",),
    "norm": ("batch",),
    "shortcut": ("B",),
    "junction": (Junction(),),
    "projection": ("conv",),
    "squeeze": (None,),
    "survival": (1.0,),
}


def check_fields(source: str, spec: Spec, allowed: Mapping[str, tuple[object, ...]] | None = None) -> None:
    """Raise InputError unless each field of `spec` is one the library has; `allowed` widens the usual."""
    for field, values in {**_USUAL, **(allowed or {})}.items():
        got = getattr(spec, field)
        if got not in values:
            raise InputError(f"{spec.name}: {field}", got, f"{choices(values)} in {source}")


def check_stem(source: str, spec: Spec, stems: Sequence[tuple[tuple[int, int], ...]], *, pool: bool) -> None:
    """Raise InputError unless the stem's (kernel, stride) are one of `stems`, pooled or not as `pool` says."""
    pooled = {True: " then a max-pool", False: ""}
    texts = [_text([Conv(channels=1, kernel=k, stride=s) for k, s in stem]) + pooled[pool] for stem in stems]
    got = _text(spec.stem.convs) + pooled[spec.stem.pool]
    if got not in texts:
        raise InputError(f"{spec.name}: stem", got, f"{' or '.join(texts)} in {source}")


def check_blocks(
    source: str,
    spec: Spec,
    *,
    stages: int,
    kinds: Sequence[str] = ("basic", "bottleneck"),
    strides: Sequence[int] = (2,),
    first_stride: Sequence[int] = (1,),
    groups: bool = True,
) -> None:
    """Raise InputError unless every block is basic, or every one a bottleneck.

    `strides` are the convolutions of a bottleneck (from 1) that may carry the stride: 2 in most libraries, 1 in
    the paper. `first_stride`: what the first stage may step by; the others step by 2. `groups`:
    whether the 3×3 convolutions of bottlenecks may be split into groups.
    """
    if len(spec.stages) != stages:
        raise InputError(f"{spec.name}: stages", len(spec.stages), f"{stages} in {source}")
    kind = "basic" if len(spec.stages[0].blocks[0].convs) == 2 else "bottleneck"
    if kind not in kinds:
        raise InputError(f"{spec.name}: blocks", kind, f"{' or '.join(kinds)} in {source}")
    ways = [1] if kind == "basic" else list(strides)
    first = spec.stages[0].blocks[0].stride
    for i, stage in enumerate(spec.stages):
        for j, block in enumerate(stage.blocks):
            step = 1 if j else (2 if i else first)
            # The same way in all blocks: a library's nets have their strides all in one place.
            ways = [at for at in ways if _is(kind, block, step, at)]
            split = any(conv.groups > 1 for conv in block.convs)
            if not ways or first not in first_stride or (split and not groups):
                where = f"{spec.name}: stages.{stage.id}.{block.id}"
                raise InputError(where, _text(block.convs), f"{_allowed(kind, strides)} in {source}")


def check_widths(source: str, spec: Spec, stem: int, widths: Sequence[int]) -> None:
    """Raise InputError unless stem and stages have these channels; four times `widths` in bottlenecks."""
    times = 1 if len(spec.stages[0].blocks[0].convs) == 2 else 4
    wanted = [stem, *(width * times for width in widths)]
    got = [spec.stem.convs[-1].channels, *(stage.blocks[-1].channels for stage in spec.stages)]
    if got != wanted or any(block.channels != stage.blocks[0].channels for stage, block in spec.blocks()):
        raise InputError(f"{spec.name}: channels", choices(got), f"{choices(wanted)} in {source}")


def _is(kind: str, block: Block, step: int, at: int) -> bool:
    kernels = (3, 3) if kind == "basic" else (1, 3, 1)
    wanted = tuple(step if i == at else 1 for i in range(1, len(kernels) + 1))
    grouped = [i for i, conv in enumerate(block.convs, 1) if conv.groups > 1]
    return (
        tuple(conv.kernel for conv in block.convs) == kernels
        and tuple(conv.stride for conv in block.convs) == wanted
        and (kind == "bottleneck" or not grouped)
        and set(grouped) <= {2}
    )


def _allowed(kind: str, ways: Sequence[int]) -> str:
    if kind == "basic":
        return "every block basic: 3×3, 3×3, the stage's stride on the first"
    on = " or ".join({1: "first", 2: "3×3"}[at] for at in ways)
    return f"every block a bottleneck: 1×1, 3×3, 1×1, the stage's stride on the {on} convolution"


def _text(convs: Sequence[Conv]) -> str:
    return ", ".join(
        f"{conv.kernel}×{conv.kernel}"
        + (f"/{conv.stride}" if conv.stride > 1 else "")
        + (f" in {conv.groups} groups" if conv.groups > 1 else "")
        for conv in convs
    )

"""Any small network: one to five stages, one or two blocks each, one to three layers per skip."""

from __future__ import annotations

from hypothesis import strategies as st

from deepskip.describe.spec import Block, Conv, Junction, Spec, Stage, Stem


@st.composite
def convs(draw: st.DrawFn, in_channels: int, least: int) -> tuple[Conv, ...]:
    """Draw a branch whose output has at least `least` channels."""
    found: list[Conv] = []
    n = draw(st.integers(1, 3))
    for i in range(n):
        floor = least if i == n - 1 else 1
        channels = draw(st.integers(floor, max(6, floor + 2)))
        groups = [g for g in (1, 2, 3) if in_channels % g == 0 and channels % g == 0]
        found.append(
            Conv(
                channels=channels,
                kernel=draw(st.sampled_from((1, 3, 5))),
                stride=draw(st.sampled_from((1, 1, 1, 2, 3))),
                groups=draw(st.sampled_from(groups)),
            )
        )
        in_channels = channels
    return tuple(found)


@st.composite
def junctions(draw: st.DrawFn, silent: bool) -> Junction:
    """Draw any junction; most are plain sums. In nets whose branches begin `silent` fewer can train."""
    some = st.sampled_from((0.5, 1.0, -1.5))
    numbers = some if silent else st.sampled_from((0.0, 0.5, 1.0))
    return draw(
        st.one_of(
            st.just(Junction()),
            st.just(Junction()),
            st.builds(Junction, kind=st.just("scaled"), shortcut_scale=numbers, branch_scale=some),
            st.builds(Junction, kind=st.just("learned"), branch_scale=numbers),
            st.builds(Junction, kind=st.just("exclusive_gate"), gate_bias=st.sampled_from((0.0, -6.0))),
            st.builds(Junction, kind=st.just("shortcut_gate"), gate_bias=st.sampled_from((0.0, -6.0))),
            st.builds(Junction, kind=st.just("dropout"), rate=st.sampled_from((0.2, 0.5))),
        )
    )


@st.composite
def specs(draw: st.DrawFn, coupled: bool = False, **fixed: object) -> Spec:
    """Draw a valid Spec; fields in `fixed` are given. With `coupled` some blocks read a half where they can."""
    shortcut = fixed.pop("shortcut", None) or draw(st.sampled_from(("A", "B", "C", "none")))
    shape = (draw(st.sampled_from((1, 3))), draw(st.integers(3, 13)), draw(st.integers(3, 13)))
    stem = Stem(convs=draw(convs(shape[0], 1)), pool=draw(st.booleans()))
    channels, stages = stem.convs[-1].channels, []
    for i in range(draw(st.integers(1, 5))):
        blocks = []
        for j in range(draw(st.integers(1, 2))):
            same = draw(st.booleans())  # an identity block: dimensions are kept
            branch = draw(convs(channels, channels if shortcut == "A" or same else 1))
            if same:
                last = branch[-1].replace(channels=channels, groups=1)
                branch = tuple(conv.replace(stride=1) for conv in (*branch[:-1], last))
            channels = branch[-1].channels
            blocks.append(Block(id=f"b{j + 1}", convs=branch))
        stages.append(Stage(id=f"s{i + 1}", blocks=tuple(blocks)))
    order = draw(st.sampled_from(("post", "post", "pre", "pre", "norm_after", "relu_before", "relu_only")))
    norm = draw(st.sampled_from(("batch", "batch", "group", "layer", "none", "fixup", "folded")))
    norm = "none" if order == "relu_before" and norm == "fixup" else norm
    zero_last = draw(st.booleans()) and order != "relu_before"
    least = min(block.channels for stage in stages for block in stage.blocks)
    squeeze = draw(st.sampled_from((None, None, 1, 2))) if least > 1 else None
    fields: dict[str, object] = {
        "base": draw(st.sampled_from(("resnet_any", "some_net"))),
        "input": shape,
        "classes": draw(st.integers(1, 5)),
        "stem": stem,
        "stages": tuple(stages),
        "shortcut": shortcut,
        "order": order,
        "first": draw(st.sampled_from(("shared", "own"))) if order in ("pre", "relu_only") else "shared",
        "norm": norm,
        "norm_groups": draw(st.sampled_from((2, 32))),
        "initial": "fixup"
        if norm == "fixup"
        else draw(st.sampled_from(("he_fan_out", "he_fan_in", "delta_orthogonal", "pytorch"))),
        "junction": draw(junctions(silent=zero_last or norm == "fixup")),
        "projection": draw(st.sampled_from(("conv", "pool"))),
        "squeeze": squeeze,
        "squeeze_multiple": draw(st.sampled_from((1, 1, 3))) if squeeze else 1,
        "survival": draw(st.sampled_from((1.0, 1.0, 0.5))),
        "zero_last": zero_last,
    }
    if fixed.get("squeeze", squeeze) is None:
        fields["squeeze_multiple"] = 1
    spec = Spec(**{**fields, **fixed})
    if coupled and order == "pre" and shortcut != "none":
        spec = spec.replace(junction=Junction(), survival=1.0)
        spec = spec.replace(stages=draw(halved(spec)))
    return spec


@st.composite
def halved(draw: st.DrawFn, spec: Spec) -> tuple[Stage, ...]:
    """Draw stages of `spec` in which blocks with an even number of channels in and out read one half."""
    channels, stages = spec.stem.convs[-1].channels, []
    for stage in spec.stages:
        blocks = []
        for block in stage.blocks:
            half = block.channels // 2
            even = not (channels % 2 or block.channels % 2) and half >= (spec.squeeze or 1)
            if even and draw(st.booleans()):
                convs = tuple(conv.replace(groups=1) for conv in block.convs)
                convs = (*convs[:-1], convs[-1].replace(channels=half))
                blocks.append(block.replace(convs=convs, reads=draw(st.sampled_from(("first", "second")))))
            else:
                blocks.append(block)
            channels = block.channels
        stages.append(stage.replace(blocks=tuple(blocks)))
    return tuple(stages)


def scrambled(net, seed: int = 0):  # type: ignore[no-untyped-def]
    """Give every tensor of `net` values as after training: statistics and scales that are not 0 and 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(noise + 0.5 if "running_var" in name else noise - 0.5)
    return net

"""`deepskip nets` and `deepskip describe`: networks as values; nothing is built."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from deepskip.cli.show import Output, Whole, check_new, columns, count, size
from deepskip.errors import InputError, choices, nearest

if TYPE_CHECKING:
    from rich.table import Table

    from deepskip.describe import ledger
    from deepskip.describe.spec import Spec


def nets(pattern: str = "*", /, *, output: Output = Output()) -> None:
    """List the zoo: every network that a paper reports, with its size and its source.

    Any other depth comes from a family: `--net resnet_cifar --depth 38`.

    Examples:

    - `deepskip nets`
    - `deepskip nets cifar`
    - `deepskip nets 'resnet1*'`

    Parameters
    ----------
    pattern
        A part of the name, or a pattern with `*`, `?` or `[…]`.
    """
    from deepskip.describe import ledger, zoo

    found = zoo.entries(pattern)
    if not found:
        names = [entry.name for entry in zoo.ZOO]
        raise InputError("PATTERN", repr(pattern), choices(names), nearest(pattern, names))
    costs = [ledger.count(entry.spec) for entry in found]
    if output.json:
        return output.result(
            [
                {
                    "name": entry.name,
                    "layers": cost.layers,
                    "params": cost.params,
                    "macs": cost.macs,
                    "input": entry.spec.input,
                    "citation": entry.citation,
                    "published_error": entry.error,
                    "published_params": entry.params,
                }
                for entry, cost in zip(found, costs, strict=True)
            ]
        )
    numbers = ("layers", "params", "MACs")
    table = columns("name", *numbers, "input", "published error", "paper", numbers=numbers)
    for entry, cost in zip(found, costs, strict=True):
        shape = "×".join(map(str, entry.spec.input))
        sizes = str(cost.layers), count(cost.params), count(cost.macs)
        table.add_row(entry.name, *sizes, shape, entry.error, entry.citation)
    output.table(table)
    families = ", ".join(zoo.FAMILIES)
    return output.say(f"\nFamilies (any valid depth, --net FAMILY --depth N): {families}")


def describe(
    net: str,
    /,
    *,
    depth: Whole | None = None,
    plain: bool = False,
    batch: Whole = 128,
    draw: Path | None = None,
    view: str | None = None,
    force: bool = False,
    output: Output = Output(),
) -> None:
    """Show a network's blocks as a table, with its totals and its memory at a batch size; draw it if asked.

    Examples:

    - `deepskip describe resnet56_cifar`
    - `deepskip describe resnet --depth 34 --plain`
    - `deepskip describe runs/r56`
    - `deepskip describe torchvision://resnet50`
    - `deepskip describe resnet34 --draw resnet34.svg --view twin`

    Parameters
    ----------
    net
        A zoo name, a family, a run folder, a `model.safetensors` or an address.
    depth
        Number of layers, with a family's name.
    plain
        Describe the plain twin.
    batch
        Images a step, for the memory that training needs.
    draw
        Draw the network into this file, an .svg or a .png.
    view
        What to draw: `net` (the default), `twin`, `skip`, `identity`, `convolution` or `paths`.
    force
        Overwrite the drawing when it is there already.
    """
    from deepskip.describe import ledger

    spec = _spec(net, depth)
    spec = spec.plain() if plain else spec
    cost = ledger.count(spec)
    if batch < 1:
        raise InputError("--batch", batch, "a whole number from 1", 1)
    drawn = _draw(spec, draw, view, force, _command(net, depth, plain))
    memory = cost.activation_bytes(batch)
    if output.json:
        return output.result(
            {
                "name": spec.name,
                "layers": cost.layers,
                "params": cost.params,
                "macs": cost.macs,
                "input": list(spec.input),
                "classes": spec.classes,
                "blocks": cost.blocks,
                "receptive_field": cost.receptive_field,
                "activation_bytes": memory,
                "batch": batch,
                **({"drawing": str(drawn)} if drawn else {}),
            }
        )
    output.say(f"{spec}\n")
    output.table(_blocks(spec, cost))
    output.say(
        f"\n{cost.layers} layers · {cost.params:,} parameters · {cost.macs:,} MACs an image\n"
        f"{cost.blocks} blocks · {_paths(cost)} · receptive field {cost.receptive_field} px\n"
        f"training at batch {batch}: {size(memory)} of float32 activations, "
        f"{size(12 * cost.params)} of weights, gradients and momentum"
    )
    if drawn:
        output.say(f"drawn: {drawn}")
    return None


def _draw(spec: Spec, path: Path | None, view: str | None, force: bool, command: str) -> Path | None:
    if path is None:
        if view is not None:
            raise InputError("--view", f"{view} without --draw", "--draw FILE.svg --view VIEW")
        return None
    from deepskip.figures.drawings import draw
    from deepskip.figures.style import suffix_of, write

    suffix_of(path)
    check_new("--draw", path, force=force)
    view = view or "net"
    return write(draw(spec, view), path, f"{command} --draw {shlex.quote(path.name)} --view {view}")


def _command(net: str, depth: int | None, plain: bool) -> str:
    """Return the command that describes this network, for the drawing's metadata."""
    words = [
        "deepskip",
        "describe",
        net,
        *(("--depth", str(depth)) if depth else ()),
        *(("--plain",) if plain else ()),
    ]
    return shlex.join(words)


def _spec(net: str, depth: int | None) -> Spec:
    from deepskip.describe import zoo

    address = not Path(net).exists() and "://" in net
    if depth is not None and (address or Path(net).exists()):
        raise InputError("--depth", f"{depth} with the model {net}", "a depth with a family's name alone")
    if address:
        from deepskip.model import load

        return load(net).net.spec
    if Path(net).exists():
        from deepskip.weights.store import read_header

        return read_header(net).spec
    if net.endswith(".safetensors") or "/" in net:
        from deepskip.weights.store import near

        allowed = "a zoo name, a run folder, a model.safetensors or an address"
        raise InputError(net, "no such file or folder", allowed, near(Path(net)))
    return zoo.get(net, depth=depth)


def _paths(cost: ledger.Ledger) -> str:
    return f"2^{cost.blocks} paths" if cost.shortcuts else "one path"


def _blocks(spec: Spec, cost: ledger.Ledger) -> Table:
    """Return a row for each run of blocks that are alike."""
    table = columns("part", "convolutions", "shortcut", "output", "params", "MACs", numbers=("params", "MACs"))
    kinds = {site.name: site for site in spec.sites()}

    def key(line: ledger.Line) -> tuple[object, ...]:
        site = kinds.get(line.name)
        stage = line.name.split(".")[1] if site else line.name
        return stage, site and site.block.convs, site and site.shortcut, line.outputs, line.params

    for _, group in itertools.groupby(cost.lines, key):
        lines = list(group)
        first, last = lines[0], lines[-1]
        name = first.name if first is last else f"{first.name} … {last.name.split('.')[-1]}  × {len(lines)}"
        site = kinds.get(first.name)
        convs = site.block.convs if site else (spec.stem.convs if first.name == "stem" else ())
        drawn = " ".join(
            f"{conv.kernel}×{conv.kernel},{conv.channels}"
            + (f"/{conv.stride}" if conv.stride > 1 else "")
            + (f" g{conv.groups}" if conv.groups > 1 else "")
            for conv in convs
        )
        if first.name == "stem" and spec.stem.pool:
            drawn += " max-pool/2"
        if first.name == "head":
            drawn = "average, linear"
        table.add_row(
            name,
            drawn,
            site.shortcut if site else "",
            str(first.outputs) if first.name != "head" else str(spec.classes),
            count(sum(line.params for line in lines)),
            count(sum(line.macs for line in lines)),
        )
    return table

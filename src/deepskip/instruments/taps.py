"""Read and alter named places of a network while it computes, and leave it as it was, whatever happens.

Every part of every block is a module with a name, so a place is a name: `stages.s1.b2.branch`. After
TransformerLens (Nanda and Bloom 2022), which does it for transformers.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn

from deepskip.errors import InputError, nearest
from deepskip.nets.block import ResidualBlock
from deepskip.nets.network import Network
from deepskip.nets.parts import Half, PadShortcut

Statistics = Literal["running", "batch"]
"""What a batch normaliser divides by: what it remembers of the training, or what each batch has."""
Keep: TypeAlias = Callable[[Tensor], Any] | Literal["rms", "mean"] | None
"""What is kept of a tensor: all of it (None), a number, or what a function makes of it."""
Change: TypeAlias = float | Tensor | Callable[[Tensor], Tensor] | str


def places(net: Network, pattern: str | Sequence[str]) -> dict[str, nn.Module]:
    """Return the parts of `net` whose names fit `pattern` (one of several), by name, in the network's order.

    In a pattern `*` and `?` stand for anything within one component of a name and `**` for any number of
    components: `stages.*.*.branch`, `**.norm2`. What only holds others, as `stages`, is no place. Raises
    InputError, with the nearest name or pattern, for a pattern that fits none.
    """
    every = _every(net)
    found = {
        name for one in ([pattern] if isinstance(pattern, str) else pattern) for name in _fitting(every, one)
    }
    return {name: module for name, module in every.items() if name in found}


def _every(net: Network) -> dict[str, nn.Module]:
    containers = (nn.ModuleDict, nn.ModuleList)
    return {name: m for name, m in net.named_modules() if name and not isinstance(m, containers)}


def _fitting(every: Mapping[str, nn.Module], pattern: str) -> list[str]:
    if pattern in every:
        return [pattern]
    fitting = [name for name in every if _fits(name.split("."), pattern.split("."))]
    if not fitting:
        close = nearest(pattern, [*every, *dict.fromkeys(map(_general, every))])
        raise InputError("place", repr(pattern), "the name of a part, or a pattern that fits some", close)
    return fitting


def _fits(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_fits(name[i:], pattern[1:]) for i in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def _general(name: str) -> str:
    """Return the pattern that fits the same part of every block."""
    parts = name.split(".")
    return ".".join(["stages", "*", "*", *parts[3:]] if parts[0] == "stages" else parts)


# --- reading --------------------------------------------------------------------------------------------------


class Seen(dict[str, list[Any]]):
    """What was kept of each place's outputs, by name: an entry for each time that it computed.

    `gradients` has as many entries: what was kept of the gradient by that output in the last backward pass,
    None where none came.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__({name: [] for name in names})
        self.gradients: dict[str, list[Any]] = {name: [] for name in names}


@contextlib.contextmanager
def tap(
    net: Network, pattern: str | Sequence[str], keep: Keep = None, *, gradients: bool = False
) -> Iterator[Seen]:
    """Give what the `places` that fit `pattern` compute while inside, and the gradients by it if asked for.

    A tensor is kept without its history and not copied; `keep` keeps less: "rms" and "mean" a number (over
    all of the tensor, in float64), a function what it returns, so that a net of a thousand layers does not fill
    the memory. Gradients are those of backward passes inside, of parameters frozen or not. Nothing that the
    network computes is changed, and no hook stays. A tap inside `alter` sees what that does. Raises InputError.
    """
    if isinstance(keep, str) and keep not in _KEPT:
        raise InputError("keep", repr(keep), "rms, mean, a function or None", nearest(keep, _KEPT))
    reduce = _KEPT[keep] if isinstance(keep, str) else keep or _whole
    found = places(net, pattern)
    seen = Seen(list(found))
    with ExitStack() as hooks:
        for name, module in found.items():
            hooks.enter_context(module.register_forward_hook(_reader(seen, name, reduce, hooks, gradients)))
        yield seen


def _reader(seen: Seen, name: str, reduce: Callable[[Tensor], Any], hooks: ExitStack, gradients: bool) -> Any:
    def read(module: nn.Module, inputs: Any, out: Tensor) -> Tensor | None:
        with torch.no_grad():
            seen[name].append(reduce(out.detach()))
        if not gradients:
            return None
        kept, i = seen.gradients[name], len(seen[name]) - 1
        kept.append(None)
        if not torch.is_grad_enabled():
            return None

        def arrived(gradient: Tensor) -> None:
            with torch.no_grad():
                kept[i] = reduce(gradient.detach())

        # An identity returns its input itself, whose gradient is more than what comes through here; and of what
        # depends on no parameter that is trained there would be none.
        own = out.view_as(out) if out.requires_grad else out.detach().requires_grad_()
        hooks.enter_context(own.register_hook(arrived))  # type: ignore[no-untyped-call]
        return own

    return read


def _whole(x: Tensor) -> Tensor:
    return x


def _rms(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) / math.sqrt(x.numel())


def _mean(x: Tensor) -> float:
    return float(x.mean(dtype=torch.float64))


_KEPT: dict[str, Callable[[Tensor], Any]] = {"rms": _rms, "mean": _mean}


# --- altering -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alter(net: Network, changes: Mapping[str, Change]) -> Iterator[None]:
    """Have `net` compute something else while inside; `changes` says what, by `places` or patterns for them:

    - a number scales the output (0 leaves zeros, whatever it was);
    - a tensor stands in its place: of its shape, or one that can be expanded to it, as [c, 1, 1];
    - a function is given the output and returns the new one, of the same shape;
    - the name of a place computes here instead, with its own weights: two of them swap two blocks.

    Afterwards the network computes what it did before. Raises InputError for what cannot be altered so, on
    entry or, where only the tensors tell, when the network computes.
    """
    modules = _every(net)
    wanted: dict[str, Change] = {}
    for pattern, change in changes.items():
        for name in _fitting(modules, pattern):
            if name in wanted:
                raise InputError(f"place {name!r}", "two changes", "one each")
            wanted[name] = change
    others = {name: source for name, source in wanted.items() if isinstance(source, str)}
    for name, source in others.items():
        _check_other(modules, name, source, others)
    forwards = {name: modules[source].forward for name, source in others.items()}
    with ExitStack() as hooks:
        for name, change in wanted.items():
            if isinstance(change, str):
                hooks.enter_context(computing(modules[name], forwards[name]))
            else:
                hooks.enter_context(modules[name].register_forward_hook(_changer(name, change)))
        yield


def _changer(name: str, change: float | Tensor | Callable[[Tensor], Tensor]) -> Any:
    where = f"place {name!r}"
    if isinstance(change, Tensor):
        make = _replacement(where, change)
    elif callable(change):
        make = change
    elif isinstance(change, bool) or not isinstance(change, int | float) or not math.isfinite(change):
        raise InputError(where, repr(change), "a finite number, a tensor, a function, or the name of a place")
    else:
        make = _scaled(change)

    def changed(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        new = make(out)
        if not isinstance(new, Tensor) or new.shape != out.shape:
            got = _shape(new) if isinstance(new, Tensor) else type(new).__name__
            raise InputError(where, got, _shape(out))
        return new

    return changed


def _scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda out: out * factor if factor else torch.zeros_like(out)


def _replacement(where: str, new: Tensor) -> Callable[[Tensor], Tensor]:
    def make(out: Tensor) -> Tensor:
        try:
            return new.to(out).expand_as(out)
        except RuntimeError:
            raise InputError(where, _shape(new), f"{_shape(out)}, or what expands to it") from None

    return make


def _shape(x: Tensor) -> str:
    return f"[{', '.join(map(str, x.shape))}]"


def _check_other(modules: Mapping[str, nn.Module], name: str, source: str, others: Mapping[str, str]) -> None:
    """Raise InputError unless the place `source` can compute at `name`."""
    where = f"place {name!r}"
    if source not in modules:
        raise InputError(where, repr(source), "the name of a part", nearest(source, modules))
    inside = next((one for one in others if one.startswith(f"{source}.")), None)
    if inside:  # it would compute itself within itself, without end
        raise InputError(where, f"{source!r}, which holds the altered {inside!r}", "a place that holds none")
    sizes = _sizes(modules[name])
    if _sizes(modules[source]) != sizes:
        fitting = [one for one, module in modules.items() if one != name and _sizes(module) == sizes]
        raise InputError(where, f"{source!r}, of other sizes", "a place of the same", nearest(source, fitting))


def _sizes(module: nn.Module) -> Counter[str]:
    """Return all that the shape of the output depends on, for inputs of one shape."""
    shaping = (
        nn.Conv2d,
        nn.Linear,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool2d,
        nn.Flatten,
        PadShortcut,
        Half,
    )
    return Counter(str(one) for one in module.modules() if isinstance(one, shaping))


@contextlib.contextmanager
def computing(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Have `module` compute `forward` while inside; its hooks stay."""
    own = vars(module)
    before = own.get("forward")  # of another change of this place, around this one
    own["forward"] = forward
    try:
        yield
    finally:
        del own["forward"]
        if before is not None:
            own["forward"] = before


# --- blocks ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def at_rest(net: Network, statistics: Statistics = "running") -> Iterator[None]:
    """Put `net` into evaluation mode while inside, as scores do; it is left as it was, whatever is done there.

    With "batch" `statistics` its batch normalisers take those of each batch and remember none. Inside no
    parameter has a gradient yet. Afterwards every module has its mode, every parameter its `grad` and
    `requires_grad`. On a GPU convolutions are of float32, not rounded to TF32. Raises InputError.
    """
    if statistics not in get_args(Statistics):
        raise InputError("statistics", repr(statistics), "running or batch", "running")
    modes = [(module, module.training) for module in net.modules()]
    norms = [(norm, norm.track_running_stats) for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]
    trained = [(parameter, parameter.requires_grad, parameter.grad) for parameter in net.parameters()]
    cudnn = torch.backends.cudnn
    try:
        net.eval()
        for norm, _ in norms if statistics == "batch" else ():
            norm.training, norm.track_running_stats = True, False
        for parameter, _, _ in trained:
            parameter.grad = None
        with cudnn.flags(enabled=cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for norm, tracks in norms:
            norm.track_running_stats = tracks
        for parameter, requires, gradient in trained:
            parameter.requires_grad_(requires)
            parameter.grad = gradient


class Watcher(Protocol):
    """What is told of every block that computes, by its place among the blocks."""

    def joined(self, i: int, shortcut: Tensor, out: Tensor) -> None:
        """Take what came to the junction of block `i` by its shortcut, and what left the junction."""

    def passed(self, i: int, x: Tensor, y: Tensor) -> None:
        """Take the input and the output of block `i`."""


@contextlib.contextmanager
def watched(net: Network, watcher: Watcher, statistics: Statistics = "running") -> Iterator[None]:
    """Tell `watcher` of every block of `net`, which is `at_rest` while inside and has no gradients.

    Raises InputError.
    """
    with at_rest(net, statistics), torch.no_grad(), ExitStack() as hooks:
        for i, block in enumerate(net.blocks()):
            _watch(i, cast("ResidualBlock", block), watcher, hooks)
        yield


def _watch(i: int, block: ResidualBlock, watcher: Watcher, hooks: ExitStack) -> None:
    def joined(module: nn.Module, inputs: tuple[Tensor, Tensor], out: Tensor) -> None:
        watcher.joined(i, inputs[0], out)

    def passed(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        watcher.passed(i, inputs[0], out)

    hooks.enter_context(block.junction.register_forward_hook(joined))
    hooks.enter_context(block.register_forward_hook(passed))


def names(net: Network) -> list[dict[str, Any]]:
    """Return, for each block, what names it in a row: `block`, `stage`, `index` (from 1), `shortcut`."""
    return [
        {
            "block": site.name.removeprefix("stages."),
            "stage": site.name.split(".")[1],
            "index": i,
            "shortcut": site.shortcut,
        }
        for i, site in enumerate(net.spec.sites(), 1)
    ]

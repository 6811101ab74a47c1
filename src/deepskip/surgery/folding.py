"""Put batch normalisers into the convolutions before them: fewer layers, the same function in evaluation.

With running statistics a batch normaliser is a scale and a shift of each channel, and the convolution before it
can do both: w ← w · γ / √(σ² + ε) and b = β - μ · γ / √(σ² + ε) (Ioffe and Szegedy 2015, arXiv:1502.03167).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from deepskip.describe.spec import Spec
from deepskip.nets.builder import assemble
from deepskip.nets.network import Network
from deepskip.surgery.growing import is_channels_last


@torch.no_grad()
def fold(net: Network) -> Network:
    """Return a new network whose batch normalisers are part of the convolutions right before them.

    In evaluation its outputs [n, classes] are those of `net` but for rounding; training it is another thing, as
    no batch is normalised any more. A normaliser that follows a junction, as in pre-activation nets, stays. The
    new Spec says so (norm "folded"); a net without batch normalisers comes back as a copy, with its Spec.
    Device, precision, memory order and mode stay; `net` is left as it is.
    """
    weight = next(net.parameters())
    folds = net.spec.norm == "batch"
    spec = folded(net.spec) if folds else net.spec
    made = assemble(spec, dtype=weight.dtype, device=weight.device)
    state = net.state_dict()
    if folds:
        for conv, norm in _pairs(net.spec):
            module = net.get_submodule(norm)
            assert isinstance(module, nn.BatchNorm2d)
            scale, shift = _affine(module)
            kernel = state[f"{conv}.weight"]
            state[f"{conv}.weight"] = (kernel.double() * scale.reshape(-1, 1, 1, 1)).to(kernel)
            state[f"{conv}.bias"] = shift.to(kernel)
            for name in module.state_dict():
                del state[f"{norm}.{name}"]
    made.load_state_dict(state)
    if is_channels_last(net):
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    if folds:  # the new bias is the normaliser's shift
        trained |= {f"{conv}.bias": trained[f"{norm}.bias"] for conv, norm in _pairs(net.spec)}
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(trained[name])
    return made.train(net.training)


def folded(spec: Spec) -> Spec:
    """Return the Spec of `fold`'s network, for a net with batch normalisers."""
    return spec.replace(base=f"{spec.base[:57]}_folded", norm="folded")


def _pairs(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield each convolution that a batch normaliser stands right behind, and that one, by their names."""
    after, sites = spec.replace(norm="folded"), list(spec.sites())
    for i, order in enumerate(after.orders(), 1):
        if "b" in order:
            own = "cn" in spec.orders()[i - 1]
            yield f"stem.conv{i}", f"stem.norm{i}" if own else f"{sites[0].name}.before.norm"
    for site in sites:
        before = spec.orders(site)
        for i, order in enumerate(after.orders(site), 1):
            if "b" in order:
                own = "cn" in before[i - 1]
                yield f"{site.name}.branch.conv{i}", f"{site.name}.branch.norm{i if own else i + 1}"
        if site.shortcut == "projection" and after.projects_with_bias:
            yield f"{site.name}.shortcut.conv", f"{site.name}.shortcut.norm"


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return what `norm` multiplies each channel by in evaluation and then adds, in float64."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - mean.double() * scale

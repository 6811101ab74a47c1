"""Captum, an independent implementation, finds the same Grad-CAM and the same integrated gradients."""

from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam

from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.instruments import saliency
from deepskip.nets.builder import build
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)
NETS = [
    zoo.cifar(8, input=SMALL),
    zoo.cifar(8, input=SMALL, plain=True),
    zoo.cifar(8, input=SMALL, order="pre", shortcut="B"),
    zoo.cifar(8, input=SMALL).replace(norm="group", squeeze=4),
]


@pytest.mark.parametrize("spec", NETS, ids=lambda spec: f"{spec.name}-{spec.order}-{spec.norm}")
def test_captum_finds_the_same(spec: Spec) -> None:
    net, classes = scrambled(build(spec, dtype=torch.float64)).eval(), [2, 7, 0]
    x = torch.randn(3, *SMALL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    black = torch.full(SMALL, -1.5, dtype=torch.float64)
    for at in ("stem", "stages.s1.b1", "stages.s2.b1.branch", "stages.s3.b1.after"):
        found = saliency.grad_cam(net, x, classes, at)
        peer = LayerGradCam(net, net.get_submodule(at)).attribute(
            x, torch.tensor(classes), relu_attributions=True
        )
        assert found.numpy() == pytest.approx(peer[:, 0].detach().numpy(), rel=1e-9), at
    ours = saliency.integrated_gradients(net, x, classes, black, 20)
    peer, error = IntegratedGradients(net).attribute(
        x, black[None], torch.tensor(classes), n_steps=20, return_convergence_delta=True
    )
    # Captum's weights of the rule are float32.
    within = {"rel": 1e-6, "abs": 1e-6 * float(ours.abs().max())}
    assert ours.numpy() == pytest.approx(peer.detach().numpy(), **within)
    with torch.no_grad():
        risen = (net(x) - net(black[None])).gather(1, torch.tensor(classes)[:, None])[:, 0]
    assert (ours.flatten(1).sum(1) - risen).numpy() == pytest.approx(error.detach().numpy(), **within)

"""One picture seen from inside: what the network says with some blocks cut, where it looks, what blocks add."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from deepskip.data.batches import normalise
from deepskip.data.dataset import Pixels
from deepskip.data.decode import from_pixels
from deepskip.describe.ledger import count
from deepskip.errors import InputError, nearest
from deepskip.instruments import lesion, saliency, taps
from deepskip.instruments.trials import rounded
from deepskip.model import Model

PARTS = ("stages.*.*.branch", "stages.*.*.shortcut")


def about(model: Model) -> dict[str, Any]:
    """Return what there is to know of a model before it sees a picture: the net, its classes, its blocks."""
    spec, prepared = model.net.spec, model.preprocessing
    ledger = count(spec)
    blocks = [
        {**name, "can_be_cut": lesion.can_go(site), "shape": list(site.outputs)}
        for name, site in zip(taps.names(model.net), spec.sites(), strict=True)
    ]
    return {
        "name": spec.name,
        "layers": ledger.layers,
        "params": ledger.params,
        "input": [prepared.channels, prepared.size, prepared.size],
        "residual": not spec.is_plain,
        "last": saliency.place(model.net).removeprefix("stages."),
        "classes": list(model.classes),
        "blocks": blocks,
    }


def look(
    model: Model,
    pixels: Pixels,
    *,
    cut: Sequence[str] = (),
    at: str | None = None,
    target: str | None = None,
    top: int = 5,
) -> dict[str, Any]:
    """Return what happens to one picture, uint8 [size, size, c], in the network without the blocks `cut`.

    - `class`, `probability` and `top`: the answer without these blocks, in which each of the `top` most
      probable classes, and of those with all blocks, has its `probability` and `intact`, that with all of them;
    - `at`: the place where Grad-CAM looks, a block as `s2.b3`, by default the last feature map; `explained`:
      the class it explains, by default the answer; `map`: a list for each line, as in `saliency.measure`;
    - `blocks`: for each, the root mean square of what its branch adds and of what its shortcut brings
      (`branch_rms`, null where it is cut, and `shortcut_rms`);
    - `seen`: the network's own view of the picture, as the address of a PNG that holds it.

    The network is left as it was. Raises InputError for what is no block or no class of this model.
    """
    if target is not None and target not in model.classes:
        raise InputError("class", repr(target), "one of the model's classes", nearest(target, model.classes))
    net = model.net
    weight = next(net.parameters())
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(weight.device)
    x = normalise(images, model.preprocessing, weight.dtype)
    place = saliency.place(net, at)
    with ExitStack() as inside, torch.no_grad():
        inside.enter_context(taps.at_rest(net))
        intact = net(x)[0].double().softmax(0).cpu()
        inside.enter_context(lesion.cut(net, cut))
        with taps.tap(net, PARTS, "rms") as seen:
            now = net(x)[0].double().softmax(0).cpu()
        if not bool(intact.isfinite().all() and now.isfinite().all()):
            raise InputError("cut", f"{len(cut)} blocks, without which outputs are not finite", "fewer blocks")
        best = now.sort(descending=True, stable=True).indices[:top].tolist()
        others = intact.sort(descending=True, stable=True).indices[:top].tolist()
        explained = best[0] if target is None else model.classes.index(target)
        cam = saliency.grad_cam(net, x, [explained], place)[0]
    listed = [*best, *(i for i in others if i not in best)]
    return {
        "class": model.classes[best[0]],
        "probability": float(now[best[0]]),
        "top": [
            {"class": model.classes[i], "probability": float(now[i]), "intact": float(intact[i])}
            for i in listed
        ],
        "cut": list(dict.fromkeys(cut)),
        "at": place.removeprefix("stages."),
        "explained": model.classes[explained],
        "map": saliency.lines(cam),
        "blocks": [
            {
                "block": name["block"],
                "branch_rms": _rms(seen, f"stages.{name['block']}.branch"),
                "shortcut_rms": _rms(seen, f"stages.{name['block']}.shortcut"),
            }
            for name in taps.names(net)
        ],
        "seen": _png(pixels),
    }


def _rms(seen: taps.Seen, place: str) -> float | None:
    return rounded(seen[place][0]) if seen[place] else None


def _png(pixels: Pixels) -> str:
    file = io.BytesIO()
    from_pixels(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"

"""Look inside a checkpoint: what its header says, what each block holds, and what it does to one picture.

    python examples/inside_a_checkpoint.py runs/example picture.jpg

The checkpoint is a run folder, a `model.safetensors`, or an address such as `hf://timm/resnet18.a1_in1k`.
"""

from __future__ import annotations

import sys

import torch

import deepskip as ds


def main(checkpoint: str, picture: str) -> None:
    """Print a line about the model, and a line a block."""
    model = ds.load(checkpoint)
    spec, cost = model.net.spec, ds.count(model.net.spec)
    print(spec)
    print(f"{cost.params:,} parameters, {cost.macs:,} multiply–adds, classes: {', '.join(model.classes[:10])}")
    for name, value in model.header.metrics.items():
        print(f"  {name} {value}")

    # Every part has a name, so what passes there can be read while the net computes. Nothing stays hooked.
    pixels = torch.from_numpy(ds.data.preprocess_file(picture, model.preprocessing))
    images = ds.data.normalise(pixels.permute(2, 0, 1)[None], model.preprocessing)
    with torch.no_grad(), ds.tap(model.net, ["stages.*.*.shortcut", "stages.*.*.branch"], "rms") as seen:
        logits = model.net(images)

    print(f"\n{'block':14}{'parameters':>12}{'shortcut':>10}{'branch':>10}   root mean square, of this picture")
    for line in cost.lines[1:-1]:
        shortcut, branch = (seen[f"{line.name}.{part}"][0] for part in ("shortcut", "branch"))
        print(f"{line.name:14}{line.params:12,}{shortcut:10.3f}{branch:10.3f}")

    best = logits.softmax(1)[0].topk(min(3, len(model.classes)))
    named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    print("\n" + ", ".join(f"{model.classes[i]} {probability:.0%}" for i, probability in named))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

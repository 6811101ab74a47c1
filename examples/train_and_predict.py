"""Train on a folder of pictures, then name new ones.

    python examples/train_and_predict.py photos/ new/*.jpg

`photos/` has a folder for each class: `photos/<class>/*`, or `photos/train/<class>/*` and `photos/val/…`.
"""

from __future__ import annotations

import sys

import deepskip as ds

EPOCHS = 5


def main(folder: str, *pictures: str) -> None:
    """Train for a few epochs, keep the run in `runs/example`, and print a class for each picture."""
    data = ds.data.open(folder)
    for line in data.broken:
        print("left out:", line)
    small = data.preprocessing.size <= 32
    spec = ds.zoo.get("resnet20_cifar" if small else "resnet18", input=data.input, classes=len(data.classes))
    print(spec)

    net = ds.build(spec, seed=0)
    # The loop is yours: an event a line, and `break` stops between two steps with all that resuming needs.
    for event in ds.fit(net, data, ds.Recipe(epochs=EPOCHS), out="runs/example", resume=True):
        print(event)

    model = ds.load("runs/example")  # network, classes and preprocessing, from one file
    for found in model.predict(pictures):
        print(f"{found.file}: {found.label} ({found.probability:.0%})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])

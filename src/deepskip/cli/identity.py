"""`deepskip study identity`: what do identity blocks do to trained nets, and how near are blocks to it?"""

from __future__ import annotations

from deepskip.cli.show import Output, Whole
from deepskip.cli.study import Place, Training, run_study, whole_numbers

DEPTHS = "8,20,56"


def identity(
    data: str,
    /,
    *,
    depths: str = DEPTHS,
    seeds: Whole = 3,
    net: str = "resnet_cifar",
    grow: Whole | None = None,
    blocks: Whole = 18,
    training: Training = Training(),
    place: Place = Place(),
    output: Output = Output(),
) -> None:
    """Put identity blocks into trained residual and plain nets, train them on, and say whether that does harm.

    Residual nets of several depths are trained as well: how far is each of their blocks from the identity,
    before and after training? Every training is kept; the same command again does only what is missing.

    Examples:

    - `deepskip study identity digits`
    - `deepskip study identity photos/ --net resnet --depths 18,34 --blocks 8 --seeds 1`

    Parameters
    ----------
    data
        `digits`, `fashion-mnist`, `cifar10`, `cifar100`, or a folder of images.
    depths
        Numbers of layers of the residual nets, separated by commas.
    seeds
        How many seeds each net is trained with, from 0 on.
    net
        The family that the nets come from: `resnet_cifar` or `resnet`.
    grow
        Layers of the net, and of its plain twin, that new blocks are put into; the middle of the depths by
        default.
    blocks
        How many new blocks are put in, spread evenly.
    """
    from deepskip.studies.identity import IdentityStudy

    wanted = whole_numbers("--depths", depths, DEPTHS)
    options = {"depths": wanted, "seeds": seeds, "family": net, "grow": grow, "blocks": blocks}
    run_study(IdentityStudy, data, options, training, place, output)

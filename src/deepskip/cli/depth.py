"""`deepskip study depth`: does depth pay on this data?"""

from __future__ import annotations

from deepskip.cli.show import Output, Whole
from deepskip.cli.study import Place, Training, run_study, whole_numbers

DEPTHS = "8,20,32,56,110"


def depth(
    data: str,
    /,
    *,
    depths: str = DEPTHS,
    seeds: Whole = 3,
    net: str = "resnet_cifar",
    training: Training = Training(),
    place: Place = Place(),
    output: Output = Output(),
) -> None:
    """Train plain and residual nets at several depths and seeds, and say what depth does on this data.

    Every training is kept; the same command again does only what is missing.

    Examples:

    - `deepskip study depth digits`
    - `deepskip study depth photos/ --net resnet --depths 18,34,50 --seeds 1`
    - `deepskip study depth cifar10 --out /shared/depth --dask tcp://10.0.0.1:8786`

    Parameters
    ----------
    data
        `digits`, `fashion-mnist`, `cifar10`, `cifar100`, or a folder of images.
    depths
        Numbers of layers, separated by commas.
    seeds
        How many seeds each net is trained with, from 0 on.
    net
        The family that the nets come from: `resnet_cifar` or `resnet`.
    """
    from deepskip.studies.depth import DepthStudy

    wanted = whole_numbers("--depths", depths, DEPTHS)
    options = {"depths": wanted, "seeds": seeds, "family": net}
    run_study(DepthStudy, data, options, training, place, output)

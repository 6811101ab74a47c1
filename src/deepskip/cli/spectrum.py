"""`deepskip study spectrum`: which ingredient first trains how deep a net?"""

from __future__ import annotations

from deepskip.cli.show import Output, Whole
from deepskip.cli.study import Place, Training, run_study, whole_numbers

DEPTHS = "5,8,14,20,32,56,110,218,434"


def spectrum(
    data: str,
    /,
    *,
    depths: str = DEPTHS,
    seeds: Whole = 1,
    net: str = "resnet_cifar",
    training: Training = Training(),
    place: Place = Place(),
    output: Output = Output(),
) -> None:
    """Train nets of many depths with more and more of what makes depth work, and say how deep each reaches.

    Plain nets as PyTorch begins them; with good initial values; with batch normalisation; with skip
    connections; with identity skip connections. Gradients and activations at the first and the last block are
    measured before and after. Every training is kept; the same command again does only what is missing.

    Examples:

    - `deepskip study spectrum digits`
    - `deepskip study spectrum cifar10 --depths 8,20,56,110 --seeds 3 --epochs 5`

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
    from deepskip.studies.spectrum import SpectrumStudy

    wanted = whole_numbers("--depths", depths, DEPTHS)
    options = {"depths": wanted, "seeds": seeds, "family": net}
    run_study(SpectrumStudy, data, options, training, place, output)

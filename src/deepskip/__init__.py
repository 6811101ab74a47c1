"""deepskip: deep residual networks on PyTorch.

A network is a value (`ds.zoo.get("resnet56_cifar")`): count it, build it, take its plain twin, train it, save
it, use it. Names are loaded when they are first used, so importing this costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepskip import data as data
    from deepskip import figures as figures
    from deepskip import instruments as instruments
    from deepskip import reports as reports
    from deepskip import studies as studies
    from deepskip import surgery as surgery
    from deepskip import weights as weights
    from deepskip._version import __version__ as __version__
    from deepskip.describe import zoo as zoo
    from deepskip.describe.ledger import Ledger as Ledger
    from deepskip.describe.ledger import count as count
    from deepskip.describe.preprocessing import Preprocessing as Preprocessing
    from deepskip.describe.spec import Block as Block
    from deepskip.describe.spec import Conv as Conv
    from deepskip.describe.spec import Junction as Junction
    from deepskip.describe.spec import Spec as Spec
    from deepskip.describe.spec import Stage as Stage
    from deepskip.describe.spec import Stem as Stem
    from deepskip.errors import DeepskipError as DeepskipError
    from deepskip.errors import DivergedError as DivergedError
    from deepskip.errors import InputError as InputError
    from deepskip.errors import WorkError as WorkError
    from deepskip.instruments.taps import alter as alter
    from deepskip.instruments.taps import tap as tap
    from deepskip.model import Model as Model
    from deepskip.model import Prediction as Prediction
    from deepskip.model import load as load
    from deepskip.nets.builder import build as build
    from deepskip.nets.network import Network as Network
    from deepskip.pages import publish as publish
    from deepskip.scoring import Score as Score
    from deepskip.scoring import score as score
    from deepskip.training.engine import fit as fit
    from deepskip.training.recipe import Recipe as Recipe

_HOMES = {
    "Block": "deepskip.describe.spec",
    "Conv": "deepskip.describe.spec",
    "DeepskipError": "deepskip.errors",
    "DivergedError": "deepskip.errors",
    "InputError": "deepskip.errors",
    "Junction": "deepskip.describe.spec",
    "Ledger": "deepskip.describe.ledger",
    "Model": "deepskip.model",
    "Network": "deepskip.nets.network",
    "Prediction": "deepskip.model",
    "Preprocessing": "deepskip.describe.preprocessing",
    "Recipe": "deepskip.training.recipe",
    "Score": "deepskip.scoring",
    "Spec": "deepskip.describe.spec",
    "Stage": "deepskip.describe.spec",
    "Stem": "deepskip.describe.spec",
    "WorkError": "deepskip.errors",
    "__version__": "deepskip._version",
    "alter": "deepskip.instruments.taps",
    "build": "deepskip.nets.builder",
    "count": "deepskip.describe.ledger",
    "fit": "deepskip.training.engine",
    "load": "deepskip.model",
    "publish": "deepskip.pages",
    "score": "deepskip.scoring",
    "tap": "deepskip.instruments.taps",
}
_MODULES = {
    "data": "deepskip.data",
    "figures": "deepskip.figures",
    "instruments": "deepskip.instruments",
    "reports": "deepskip.reports",
    "studies": "deepskip.studies",
    "surgery": "deepskip.surgery",
    "weights": "deepskip.weights",
    "zoo": "deepskip.describe.zoo",
}
__all__ = sorted([*_HOMES, *_MODULES])  # noqa: PLE0605 - one list of names, not two


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'deepskip' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

"""Rows in, pictures out: one visual language, one file per kind of picture. Nothing is measured here."""

from __future__ import annotations

from deepskip.figures.confusion import confusion
from deepskip.figures.curves import run_curves, training_curves
from deepskip.figures.depth import error_against_depth
from deepskip.figures.style import Picture, save, to_svg

__all__ = [
    "Picture",
    "confusion",
    "error_against_depth",
    "run_curves",
    "save",
    "to_svg",
    "training_curves",
]

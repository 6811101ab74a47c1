"""Rows or a Spec in, pictures out: one visual language, a file per kind of picture. Nothing is measured."""

from __future__ import annotations

from deepskip.figures.bench import speed_of_ways
from deepskip.figures.calibration import reliability_diagram
from deepskip.figures.confusion import confusion
from deepskip.figures.contact import Offence, Shown, contact
from deepskip.figures.curves import run_curves, training_curves
from deepskip.figures.depth import error_against_depth
from deepskip.figures.drawings import VIEWS, draw
from deepskip.figures.flow import flow_maps
from deepskip.figures.gradient import gradient_by_block
from deepskip.figures.identity import error_at_insertion, ratio_by_place
from deepskip.figures.landscape import loss_landscape
from deepskip.figures.lengths import gradient_by_length
from deepskip.figures.lens import error_after_block
from deepskip.figures.lesion import error_of_lesions, error_without_block
from deepskip.figures.ratio import ratio_by_block
from deepskip.figures.saliency import saliency_grid
from deepskip.figures.signal import response_by_layer, rms_by_block
from deepskip.figures.spectrum import signal_against_depth, spectrum_of_depth
from deepskip.figures.style import Picture, save, to_svg, write

__all__ = [
    "VIEWS",
    "Offence",
    "Picture",
    "Shown",
    "confusion",
    "contact",
    "draw",
    "error_after_block",
    "error_against_depth",
    "error_at_insertion",
    "error_of_lesions",
    "error_without_block",
    "flow_maps",
    "gradient_by_block",
    "gradient_by_length",
    "loss_landscape",
    "ratio_by_block",
    "ratio_by_place",
    "reliability_diagram",
    "response_by_layer",
    "rms_by_block",
    "run_curves",
    "saliency_grid",
    "save",
    "signal_against_depth",
    "spectrum_of_depth",
    "speed_of_ways",
    "to_svg",
    "training_curves",
    "write",
]

"""Rows and figures in, one self-contained HTML file out: it asks for nothing and runs nothing."""

from __future__ import annotations

from deepskip.reports.depth import depth_report
from deepskip.reports.identity import identity_report
from deepskip.reports.run import run_report
from deepskip.reports.spectrum import spectrum_report

__all__ = ["depth_report", "identity_report", "run_report", "spectrum_report"]

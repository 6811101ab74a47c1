"""A Spec drawn: which views there are of it, and the picture of each."""

from __future__ import annotations

from collections.abc import Callable

from deepskip.describe.spec import Site, Spec
from deepskip.errors import InputError, choices, nearest
from deepskip.figures import blocks, twin, whole
from deepskip.figures import paths as unravelled
from deepskip.figures.style import Picture

VIEWS: dict[str, str] = {
    "net": "the whole net, alike blocks stacked, with shapes and parameters",
    "twin": "the net beside its plain twin, layer by layer (He et al. 2015, figure 3)",
    "skip": "the idea of a skip connection (He et al. 2015, figure 2)",
    "identity": "the identity block: dimensions are kept",
    "convolution": "the convolution block: dimensions change, and so must the shortcut",
    "paths": "the paths the net consists of (Veit et al. 2016, figures 1 and 6a)",
}
"""Every view, and what it shows."""


def draw(spec: Spec, view: str = "net") -> Picture:
    """Return the `view` of `spec`: one of `VIEWS`, drawn from the Spec itself.

    Raises InputError for a view there is not, and for one that this net does not have: a plain net has no skip.
    """
    if view not in VIEWS:
        raise InputError("view", repr(view), choices(VIEWS), nearest(view, VIEWS))
    whole_net: dict[str, Callable[[Spec], Picture]] = {
        "net": whole.whole,
        "twin": twin.twin,
        "paths": unravelled.paths,
    }
    there = views(spec)
    if view in whole_net and view in there:
        return whole_net[view](spec)
    site = None if view in whole_net else _site(spec, view)
    if site is None:
        raise InputError(
            f"view {view} of {spec.name}", _missing(spec, view), choices(there), _instead(view, there)
        )
    return blocks.skip_connection(spec, site) if view == "skip" else blocks.block(spec, site)


def views(spec: Spec) -> tuple[str, ...]:
    """Return the views that there are of `spec`."""
    whole = ("net", "paths") if spec.is_coupled else ("net", "twin", "paths")
    of_blocks = (
        view for view in VIEWS if view not in ("net", "twin", "paths") and _site(spec, view) is not None
    )
    there = {*whole, *of_blocks}
    return tuple(view for view in VIEWS if view in there)


def _site(spec: Spec, view: str) -> Site | None:
    """Return the block that the view shows, the first of its kind (of the strided ones), or None.

    A first block whose activation is shared is like no other, so it is shown only where there is no other.
    """
    sites = [site for site in spec.sites() if site.shortcut != "none"]
    same = sorted((site for site in sites if site.shortcut == "identity"), key=lambda site: bool(site.shared))
    changed = sorted((site for site in sites if site.changes), key=lambda site: site.block.stride == 1)
    other = [site for site in sites if site.shortcut != "identity"]
    wanted = {"skip": [*same, *sites], "identity": same, "convolution": [*changed, *other]}[view]
    return wanted[0] if wanted else None


def _missing(spec: Spec, view: str) -> str:
    if view == "twin":
        return "blocks that read half of the channels, so no plain twin"
    if spec.is_plain:
        return "a plain net, in which nothing is skipped"
    if view == "identity" and spec.shortcut == "C":
        return "a projection in every block (option C), so no identity block"
    return f"no {view} block in this net"


def _instead(view: str, there: tuple[str, ...]) -> str:
    near = {"skip": "paths", "identity": "convolution", "convolution": "identity", "twin": "net"}[view]
    return near if near in there else "net"

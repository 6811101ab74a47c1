"""A page as its reader sees it: opened in headless Chromium, on a phone and on a desktop, by day and by night.

with launched() as browser, visit(browser, path.as_uri()) as seen:
    seen.page.click("text=Predict")   # for a page that does something; Playwright's page
    assert faults(seen) == []
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's; Playwright would download one of its own."""
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
"""CSS pixels."""
SCHEMES = ("light", "dark")
LEAST = 9.0
"""The smallest type anybody has to read, in CSS pixels."""
CONTRAST = 3.0
"""Of a text's lightest pixel and its darkest, at least: WCAG 2.2's number for what is large or drawn. Smoothed
edges keep small type from the 4.5 that its colours have."""


class Visit(NamedTuple):
    """A page that is open, and what went wrong since it was opened."""

    page: Page
    said: list[str]
    """Errors and warnings of the console, and uncaught exceptions."""
    asked: list[str]
    """Addresses outside of the page's own origin that it asked for."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # No sandbox: continuous integration is root in a container, and the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Open `address`, a file's or of a server on this machine, and wait until it has loaded."""
    context = browser.new_context()
    try:
        page, own = context.new_page(), urlsplit(address)
        seen = Visit(page, [], [])

        def console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                seen.said.append(message.text)

        def request(asked: Request) -> None:
            to = urlsplit(asked.url)
            inside = to.scheme in ("data", "blob", "about")
            if not inside and (to.scheme, to.netloc) != (own.scheme, own.netloc):
                seen.asked.append(asked.url)

        page.on("console", console)
        page.on("pageerror", lambda error: seen.said.append(str(error)))
        page.on("request", request)
        page.goto(address, wait_until="load")
        yield seen
    finally:
        context.close()


def show(seen: Visit, size: str, scheme: str) -> Page:
    """Show the page at that size and in that scheme, with everything unfolded; return it."""
    width, height = SIZES[size]
    seen.page.set_viewport_size({"width": width, "height": height})
    seen.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    return seen.page


def faults(seen: Visit) -> list[str]:
    """Return what is wrong with the page as it stands: at every size and in both schemes, a line each."""
    found = []
    for size in SIZES:
        for scheme in SCHEMES:
            page = show(seen, size, scheme)
            wrong = page.evaluate(_MEASURE, LEAST)
            if size == "desktop":  # where nothing has to be scrolled to be in a picture of the page
                wrong += _faint(page.screenshot(full_page=True), page.evaluate(_TEXTS))
            found += [f"{size}, {scheme}: {line}" for line in wrong]
    return found + [f"said: {line}" for line in seen.said] + [f"asked for {line}" for line in seen.asked]


def opened(browser: Browser, file: Path) -> list[str]:
    """Open a file that does nothing by itself; return its faults."""
    with visit(browser, file.as_uri()) as seen:
        return faults(seen)


def _faint(png: bytes, texts: list[tuple[str, list[list[float]]]]) -> list[str]:
    """Return the texts whose pixels, where they are clearest, hardly differ from what is behind them."""
    levels, pixels = (
        np.array([_linear(value / 255) for value in range(256)]),
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB")),
    )
    found = []
    for text, boxes in texts:
        contrasts = [0.0]
        for box in boxes:
            left, top, right, bottom = (max(round(side), 0) for side in box)
            luminance = levels[pixels[top:bottom, left:right]] @ [0.2126, 0.7152, 0.0722]
            if luminance.size:
                contrasts.append((float(luminance.max()) + 0.05) / (float(luminance.min()) + 0.05))
        if boxes and max(contrasts) < CONTRAST:
            found.append(f"faint ({max(contrasts):.1f} to 1): {text!r}")
    return found


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


_COMMON = """
const quoted = text => JSON.stringify((text || '').trim().replace(/\\s+/g, ' ').slice(0, 60));
const shown = one => one.checkVisibility({visibilityProperty: true}) && !one.closest('.unseen');
const named = one => one.tagName.toLowerCase() + ' ' + quoted(one.textContent);
const written = one => [...one.childNodes].filter(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
const boxes = one => written(one).flatMap(node => {  // of the words themselves, not of the element they are in
  const range = document.createRange();
  range.selectNodeContents(node);
  return [...range.getClientRects()].filter(box => box.width > 1 && box.height > 1);
});
const scroller = one => one.closest('.scroll, pre');
const leaves = () => [...document.body.querySelectorAll('*')].filter(one => shown(one) &&
  !['SCRIPT', 'STYLE', 'TITLE', 'svg'].includes(one.tagName) && written(one).length);
"""

_MEASURE = (
    "(least) => {"
    + _COMMON
    + """
const found = [], root = document.documentElement, wide = root.clientWidth;
if (root.scrollWidth > wide) {
  found.push(`the page is ${root.scrollWidth} px wide, the window ${wide}`);
  for (const one of document.body.querySelectorAll('*'))
    if (shown(one) && !scroller(one) && !one.closest('svg *') && one.getBoundingClientRect().right > wide + 1)
      found.push(`sticks out: ${named(one)}`);
}
for (const one of document.body.querySelectorAll('*')) {
  if (!shown(one) || one.closest('svg *')) continue;
  const style = getComputedStyle(one);
  const cuts = way => ['hidden', 'clip'].includes(way);
  if (cuts(style.overflowX) && one.scrollWidth > one.clientWidth + 1 && !one.closest('svg'))
    found.push(`cut at the side: ${named(one)}`);
  if (cuts(style.overflowY) && one.scrollHeight > one.clientHeight + 1 && !one.closest('svg'))
    found.push(`cut below: ${named(one)}`);
  if (one.tagName === 'IMG' && !(one.getAttribute('alt') || '').trim())
    found.push(`a picture without words: ${one.src.slice(0, 60)}`);
  if (one.tagName === 'IMG' && !one.naturalWidth) found.push(`no picture: ${one.src.slice(0, 60)}`);
  if (one.tagName === 'svg' && !one.closest('[aria-hidden=true]') &&
      !(one.getAttribute('role') === 'img' && (one.getAttribute('aria-label') || '').trim()))
    found.push('a drawing without words');
}
for (const one of leaves()) {
  const svg = one.closest('svg');
  const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
  const size = parseFloat(getComputedStyle(one).fontSize) * scale;
  if (size < least - .05) found.push(`type of ${size.toFixed(1)} px: ${named(one)}`);
}
for (const svg of document.querySelectorAll('svg')) {
  if (!shown(svg)) continue;
  const frame = svg.getBoundingClientRect();
  // Where the ink of small letters is: a box has room above and below for accents that are not there.
  const words = [...svg.querySelectorAll('text')].filter(shown).flatMap(one => {
    const box = one.getBoundingClientRect(), text = one.textContent.trim();
    if (!text) return [];
    if (box.left < frame.left - 1 || box.right > frame.right + 1 ||
        box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
      found.push(`outside of its figure: ${named(one)}`);
    const lying = box.height > 1.5 * parseFloat(getComputedStyle(one).fontSize) *
      frame.width / svg.viewBox.baseVal.width;
    const [x, y] = lying ? [box.width * .25, 0] : [0, box.height * .25];
    return [{text, x0: box.left + x, x1: box.right - x, y0: box.top + y, y1: box.bottom - y}];
  });
  words.forEach((one, i) => words.slice(i + 1).forEach(other => {
    const across = Math.min(one.x1, other.x1) - Math.max(one.x0, other.x0);
    const down = Math.min(one.y1, other.y1) - Math.max(one.y0, other.y0);
    if (across > 1 && down > 1 && one.text !== other.text)
      found.push(`one over the other: ${quoted(one.text)} and ${quoted(other.text)}`);
  }));
}
return found;
}"""
)
"""The page's faults that can be measured, in words."""

_TEXTS = (
    "() => {"
    + _COMMON
    + """
return leaves().map(one => {
  const frame = scroller(one) && scroller(one).getBoundingClientRect();
  const all = one.closest('svg') ? [one.getBoundingClientRect()] : boxes(one);
  const inside = all.filter(box => !frame || (box.left >= frame.left && box.right <= frame.right));
  return [one.textContent.trim().replace(/\\s+/g, ' ').slice(0, 60), inside.map(box =>
    [box.left + scrollX, box.top + scrollY, box.right + scrollX, box.bottom + scrollY])];
});
}"""
)
"""Every text that a picture of the page shows, and where, in CSS pixels from the page's corner."""

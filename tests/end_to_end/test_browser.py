"""What the browser sees: each fault a page can have is found, and a page without one has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.end_to_end.browser import opened


def _drawing(words: str) -> str:
    return f"<svg role='img' aria-label='words' viewBox='0 0 90 40' width='90'>{words}</svg>"


BROKEN: dict[str, tuple[str, str]] = {
    "wide": ("<p style='width: 1400px'>all</p>", "the page is 14"),
    "cut": ("<p style='width: 20px; overflow: hidden'>Everything</p>", "cut at the side"),
    "small": ("<p style='font-size: 8px'>see the notes</p>", "type of 8.0 px"),
    "faint": ("<p style='color: #8888; font-size: 20px; opacity: .3'>whatever</p>", "faint"),
    "speechless": ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", "a picture without words"),
    "outside": (_drawing("<text x='80' y='20'>far</text>"), "outside of its figure"),
    "over": (_drawing("<text y='20'>one</text><text y='22'>two</text>"), "one over the other"),
    "loud": ("<script>throw new Error('no')</script>", "said: "),
    "curious": ("<script>fetch('http://192.0.2.1/x').catch(() => 0)</script>", "asked for http://192.0.2.1/x"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_seen(name: str, browser: Browser, tmp_path: Path) -> None:
    body, fault = BROKEN[name]
    page: Callable[[str], str] = "<!doctype html><html lang=en><title>x</title><body>{}</body></html>".format
    path = tmp_path / "page.html"
    for words, found in (("<p>Fine.</p>", False), (body, True)):
        path.write_text(page(words))
        assert any(fault in line for line in opened(browser, path)) is found

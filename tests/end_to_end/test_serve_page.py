"""The page in Chromium: a picture dropped, its class read, blocks cut; at two widths, by mouse and keyboard."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from deepskip.model import Model
from tests.end_to_end.browser import SIZES, Visit, faults, launched, visit
from tests.end_to_end.hostile import encoded
from tests.end_to_end.serving import Program, ask, program, saved, small
from tests.unit.pictures import noise

PICTURE = encoded(noise(3, 90, 60), "JPEG")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Model:
    return small()


@pytest.fixture(scope="module")
def running(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with program(saved(model, tmp_path_factory.mktemp("model") / "model.safetensors")) as found:
        yield found


@pytest.fixture(params=SIZES)
def seen(browser: Browser, running: Program, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Show the page at a phone's and at a desktop's width."""
    with visit(browser, running.url) as found:
        width, height = SIZES[request.param]
        found.page.set_viewport_size({"width": width, "height": height})
        found.page.wait_for_selector("#blocks button")
        yield found


def drop(page: Page, content: bytes, kind: str = "image/jpeg") -> None:
    """Drop a file onto the page, as from a folder's window."""
    page.evaluate(
        """([content, type]) => {
            const bytes = Uint8Array.from(atob(content), one => one.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], 'dropped', {type}));
            for (const kind of ['dragover', 'drop'])
              document.body.dispatchEvent(new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true}));
        }""",
        [base64.b64encode(content).decode(), kind],
    )
    page.wait_for_function("() => !document.querySelector('.busy')")


def press(page: Page, block: str) -> None:
    """Click a block, and wait for the answer."""
    page.get_by_role("button", name=block).click()
    page.wait_for_function("() => !document.querySelector('.busy')")


def test_drop_a_picture_read_the_class_cut_a_block_see_the_change(seen: Visit, running: Program) -> None:
    page = seen.page
    whole = ask(running.url, "/look", PICTURE).json
    cut = ask(running.url, "/look?cut=s2.b2", PICTURE).json
    assert faults(seen) == []
    drop(page, PICTURE)
    assert page.inner_text("#name") == whole["class"]
    assert page.inner_text("#verdict") == f"{round(100 * whole['probability'])} % sure."
    assert page.locator("#classes li").count() == 5
    assert page.locator("#where").inner_text() == "after s3.b2"
    assert _brightness(page) > 0
    assert faults(seen) == []

    press(page, "s2.b2")
    said = page.inner_text("#verdict")
    assert f"{round(100 * cut['probability'])} % with 1 of 6 blocks cut" in said
    assert page.inner_text("#name") == cut["class"]
    assert page.get_by_role("button", name="s2.b2").get_attribute("aria-pressed") == "true"
    shown = dict(_bars(page))
    for one in cut["top"]:
        assert shown[one["class"]] == pytest.approx(100 * one["probability"], abs=0.5)
    assert faults(seen) == []

    page.get_by_role("button", name="Put all back").click()
    page.wait_for_function("() => document.querySelector('#verdict').textContent.endsWith('sure.')")
    assert page.inner_text("#name") == whole["class"]
    assert page.locator("[aria-pressed=true]").count() == 0


def test_where_it_looks_changes_with_depth_and_can_be_put_out(seen: Visit) -> None:
    page = seen.page
    drop(page, PICTURE)
    lit = _brightness(page)
    page.locator("#depth").focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.querySelector('#blocks .eye').textContent.startsWith('s1.b1')")
    assert page.inner_text("#where").endswith("after s1.b1")
    assert _brightness(page) != lit
    page.get_by_label("Light up where it looks").uncheck()
    plain = _brightness(page)
    assert plain > max(lit, 0)
    assert seen.said == []


def test_by_keyboard_alone(seen: Visit) -> None:
    page = seen.page
    drop(page, PICTURE)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.closest('#blocks') !== null"):
            break
    assert page.evaluate("() => document.activeElement.textContent").startswith("s1.b1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('#verdict').textContent.includes('1 of 6 blocks cut')")
    assert page.locator("[aria-pressed=true]").inner_text().startswith("s1.b2")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#verdict').textContent.includes('2 of 6 blocks cut')")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('#verdict').textContent.endsWith('sure.')")
    assert seen.said == []


def test_what_is_no_picture_is_said_and_the_page_goes_on(seen: Visit) -> None:
    page = seen.page
    drop(page, b"no pixels at all", "text/plain")
    assert page.get_by_role("alert").inner_text().startswith("picture: got not a picture; allowed:")
    drop(page, PICTURE)
    assert page.locator("#trouble").is_hidden()
    assert page.inner_text("#name") != ""


def test_a_picture_that_comes_before_the_model_is_not_lost(browser: Browser, running: Program) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        held: list[Route] = []
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))

        def hold(route: Route) -> None:
            held.append(route)

        page.route("**/model", hold)
        with page.expect_request("**/model"):
            page.goto(running.url)
        drop(page, PICTURE)
        assert page.inner_text("#name") == ""
        (route,) = held
        route.continue_()
        page.wait_for_function("() => document.querySelector('#name').textContent !== ''")
        assert page.locator("#trouble").is_hidden()
        assert wrong == []


def test_a_name_is_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    """Class names come from folders, and pictures from anywhere."""
    evil = tuple(f"<img src=x onerror=alert({i})>{'long' * 12 if i else ''}" for i in range(5))
    model = small()
    named = Model(model.net, model.header.replace(classes=evil))
    path = saved(named, tmp_path / "m.safetensors")
    with program(path) as running, visit(browser, running.url) as seen:
        seen.page.wait_for_selector("#blocks button")
        drop(seen.page, PICTURE)
        assert seen.page.inner_text("#name") in evil
        assert faults(seen) == []
        assert seen.page.locator("img").count() == 0


def test_a_plain_net_and_a_token(browser: Browser, tmp_path: Path) -> None:
    path = saved(small(plain=True), tmp_path / "m.safetensors")
    with program(path, DEEPSKIP_TOKEN="sesame") as running, visit(browser, running.url) as seen:
        page = seen.page
        for word in ("wrong", "sesame"):
            page.wait_for_function("() => document.querySelector('dialog').open")
            page.fill("#token", word)
            page.keyboard.press("Enter")
        page.wait_for_selector("#blocks button")
        assert page.get_by_role("button", name="s2.b1").is_disabled()
        drop(page, PICTURE)
        press(page, "s2.b2")
        assert "1 of 6 blocks cut" in page.inner_text("#verdict")
        assert page.inner_text("#stream") == "The blocks"
        seen.said[:] = [line for line in seen.said if "401" not in line]
        assert faults(seen) == []


def _bars(page: Page) -> list[tuple[str, float]]:
    """Return each class and how long its bar is, in percent, once it has stopped growing."""
    page.wait_for_function("() => document.getAnimations().length === 0")
    found = page.evaluate(
        """() => [...document.querySelectorAll('#classes li')].map(line => [line.querySelector('b').textContent,
            100 * line.querySelector('.now').getBoundingClientRect().width /
              line.querySelector('.track').getBoundingClientRect().width])"""
    )
    return [(name, width) for name, width in found]


def _brightness(page: Page) -> float:
    return float(
        page.evaluate(
            """() => {
            const canvas = document.querySelector('#canvas'), copy = document.createElement('canvas');
            [copy.width, copy.height] = [canvas.width, canvas.height];
            const pen = copy.getContext('2d', {willReadFrequently: true});
            pen.drawImage(canvas, 0, 0);
            const {data} = pen.getImageData(0, 0, copy.width, copy.height);
            return data.reduce((sum, value, i) => i % 4 === 3 ? sum : sum + value, 0) / data.length;
        }"""
        )
    )

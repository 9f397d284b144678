"""The search page in a browser: choose, click, see matches, filter, judge, share, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import hostile
from tests.flows.serving.conftest import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1400, 900, "light"), (390, 844, "dark")
DROP = """([bytes, name, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, {type: kind}));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
PASTE = """([bytes, name, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, {type: kind}));
  document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
}"""


@pytest.fixture
def page(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The start page, with nothing loaded from elsewhere and no message on the console."""
    width, height, scheme = getattr(request, "param", DESKTOP)
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(10_000)
    messages: list[str] = []
    addresses: list[str] = []
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda asked: addresses.append(asked.url))
    page.goto(site.url)
    page.wait_for_selector(".examples img")
    yield page
    assert messages == []
    assert {url for url in addresses if not url.startswith((f"{site.url}/", "data:", "blob:"))} == set()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def check(page: Page, axe: str) -> None:
    """No violation that axe finds."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []
    assert len(found["passes"]) > 10


def rows(page: Page) -> list[str]:
    """Addresses of the crops of all matches, in order."""
    page.wait_for_selector("#found:not([hidden])")
    page.wait_for_selector("body:not([aria-busy])")
    shown = page.locator("#matches .crop img").evaluate_all("images => images.map(image => image.src)")
    return [str(address) for address in shown]


@pytest.mark.parametrize("page", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)
def test_choose_click_filter_judge_and_share(page: Page, site: Site, built: Path, axe: str) -> None:
    check(page, axe)
    page.set_input_files("#file", built.parent / "scenes" / "entrance" / "20240501_120000.png")
    page.wait_for_selector("#picture .outline")
    assert page.locator("#picture .outline").count() == 4
    check(page, axe)
    page.get_by_role("button", name="Person 2", exact=True).press("Enter")
    first = rows(page)
    assert len(first) == 24
    token = page.url.partition("picture=")[2].partition("&")[0]
    expected = site.client.get("/api/search", params={"picture": token, "person": 2}).json()["matches"]
    assert [f"people/{each['row']}/" in src for each, src in zip(expected, first, strict=True)] == [True] * 24
    assert page.locator("#timeline circle").count() == 24
    check(page, axe)

    page.get_by_label("Include the query's own image").check()
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**own_image=true**")
    assert rows(page)[0] not in first and page.get_by_label("Include the query's own image").is_checked()
    page.go_back()
    page.wait_for_url(lambda url: "own_image" not in url)
    assert rows(page) == first and not page.get_by_label("Include the query's own image").is_checked()

    page.select_option("#camera", "hall")
    page.fill("#after", "2024-05-01T12:02:00")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**camera=hall**")
    filtered = rows(page)
    assert 0 < len(filtered) < 24 and set(page.locator("#timeline text").all_text_contents()) == {"hall"}
    other = page.context.new_page()
    other.goto(page.url)
    assert rows(other) == filtered
    other.close()
    page.go_back()
    page.wait_for_url(lambda url: "hall" not in url)
    assert rows(page) == first

    page.locator("#matches li").nth(0).get_by_role("button", name="Confirm").click()
    assert "Name the person first" in page.locator("#problem").inner_text()
    page.fill("#name", "Ann")
    page.keyboard.press("Enter")
    page.wait_for_url("**name=Ann**")
    rows(page)
    page.locator("#matches li").nth(0).get_by_role("button", name="Confirm").click()
    page.wait_for_selector("#matches li.confirmed")
    second = rows(page)[1]
    page.locator("#matches li").nth(1).get_by_role("button", name="Reject").click()
    page.get_by_text("1 rejected for Ann").click()
    assert second not in rows(page)
    check(page, axe)
    for _ in range(2):
        page.locator("#judged details:first-of-type:not([open]) summary").evaluate_all(
            "all => all.map(e => e.click())"
        )
        page.locator("#judged li button").first.click()
        page.wait_for_selector("body:not([aria-busy])")
    assert site.client.get("/api/index").json()["names"] == []


@pytest.mark.parametrize("page", [PHONE], ids=["phone"], indirect=True)
def test_start_from_a_scene_and_go_on_from_a_match(page: Page, axe: str) -> None:
    page.locator(".examples a").first.click()
    page.wait_for_selector("#picture .outline")
    assert not page.get_by_role("button", name="Use the whole picture").is_visible()
    page.get_by_role("button", name="Person 1", exact=True).click()
    before = rows(page)
    page.locator("#matches .crop").nth(2).click()
    page.wait_for_selector("#scene .outline.marked")
    check(page, axe)
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="Match 4").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#scene").is_visible()
    page.locator("#matches .crop").nth(2).click()
    page.locator("#scene .outline.marked").click()
    page.wait_for_selector("#scene", state="hidden")
    assert rows(page) != before


@pytest.mark.parametrize("how", [DROP, PASTE], ids=["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page: Page, picture: bytes, how: str) -> None:
    page.evaluate(how, [list(picture), "a.png", "image/png"])
    page.wait_for_selector("#picture .outline")
    page.get_by_role("button", name="Use the whole picture").click()
    assert len(rows(page)) == 24


def test_what_goes_wrong_is_said(page: Page, site: Site, axe: str, tmp_path: Path) -> None:
    problem = page.locator("#problem .error")
    files: list[tuple[str, bytes, str]] = [
        ("a.jpg", b"a text with the name of a picture", "not a picture"),
        ("huge.png", hostile.png(9_000, 9_000), "pixels"),
    ]
    for name, content, said in files:
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", tmp_path / name)
        problem.filter(has_text=said).wait_for()
    page.evaluate(DROP, [list(b"text"), "a.txt", "text/plain"])
    problem.filter(has_text="not a picture").wait_for()
    check(page, axe)
    for address, said in (
        ("?picture=gone", "not in memory any more"),
        ("?row=999999", "the index has no row"),
        ("?row=1&version=000000000000", "has been updated"),
    ):
        page.goto(f"{site.url}/{address}")
        problem.filter(has_text=said.capitalize() if said.startswith("there") else said).wait_for()
    page.goto(f"{site.url}/?row=1&after=2030-01-01T00:00")
    page.locator("#status", has_text="No match").wait_for()
    check(page, axe)

    def fail(route: Any) -> None:
        route.abort()

    page.route("**/api/search*", fail)
    page.get_by_role("button", name="Filter").click()
    problem.filter(has_text="The server does not answer").wait_for()

"""The pages as a browser shows them: at two sizes, light and dark, and to a screen reader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data_catalog.snapshot import Snapshot
from data_catalog.statistics import statistics
from flows.pages.page import render_page
from flows.plan.catalog import StoreSnapshots
from flows.report.statistics_page import render_statistics
from flows.report.study_page import render_study
from tests.flows.report.invented import HOSTILE, ReportStore
from tests.flows.report.invented_diff import invented_diff
from tests.flows.report.invented_study import invented_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

PAGES = ("report", "statistics", "study", "diff", "components")
SIZES = ((1400, 1000), (390, 844))

LABELS = """() => [...document.querySelectorAll('.scene .label')].map(label => {
  const box = label.getBoundingClientRect(), frame = label.parentElement.getBoundingClientRect();
  return {scene: [...document.querySelectorAll('.scene')].indexOf(label.closest('.scene')),
    size: parseFloat(getComputedStyle(label).fontSize), box: [box.left, box.top, box.right, box.bottom],
    inside: box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1
      && box.bottom <= frame.bottom + 1};
})"""
HINTS = """() => [...document.querySelectorAll('.scroll')].map(each => [
  each.scrollWidth > each.clientWidth + 1,
  getComputedStyle(each.querySelector('.hint')).display !== 'none'])"""
UNNAMED = """() => [...document.querySelectorAll('svg[role=img]')].filter(
  svg => !svg.querySelector(':scope > title')?.textContent && !svg.getAttribute('aria-label')).length"""


COMPONENTS = """{% extends "base.html.j2" %}
{% import "components.html.j2" as ui %}
{% block nav %}{{ ui.nav([("inputs", "Inputs"), ("words", "Words")]) }}{% endblock %}
{% block main %}
<section id="inputs">
<h2>Inputs</h2>
<form class="filters">
<div class="field"><label for="camera">Camera</label><select id="camera"><option>all</option></select></div>
<div class="field"><label for="score">Minimum score</label><input id="score" type="range"></div>
<div class="field"><label for="picture">Picture</label><input id="picture" type="text" value="a.jpg"></div>
<label class="key found"><input type="checkbox" checked> found</label>
<button>Search</button> <button class="quiet">Reset</button> <a class="button quiet" href="#words">Words</a>
</form>
</section>
<section id="words">
<h2>Words</h2>
{{ ui.warning(hostile) }} {{ ui.empty("Nothing was found.", "Lower the minimum score.") }}
{{ ui.error("The picture cannot be read.", "Choose another.") }}
{{ ui.facts([("root", "/data" * 40)]) }} {{ ui.terms([("mAP", "mean average precision")]) }}
{% call ui.strip("Query 1") %}{{ ui.tile(pixel, 1, 1, "a person", "1", "wrong", "background") }}{% endcall %}
{% call ui.scroll("Wide") %}
<table><tr>{% for _ in range(30) %}<td>12,345</td>{% endfor %}</tr></table>
{% endcall %}
<svg class="plot" role="img"><title>A plot</title></svg>
</section>
{% endblock %}
"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAC"


@pytest.fixture(scope="module")
def pages(report_store: ReportStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report, statistics of a dataset, a study, and a page with the components that these do not use."""
    folder = tmp_path_factory.mktemp("pages")
    report_store.make_report(folder)
    snapshots = StoreSnapshots(report_store.store)
    artifact = snapshots.artifact(HOSTILE)
    page = render_statistics(statistics(Snapshot(artifact.path)), artifact, snapshots.root(HOSTILE))
    (folder / "statistics.html").write_text(page, encoding="utf-8")
    (folder / "study.html").write_text(render_study(invented_study(folder)), encoding="utf-8")
    (folder / "diff.html").write_text(invented_diff(report_store, folder / "diff"), encoding="utf-8")
    (folder / "sampler.html.j2").write_text(COMPONENTS, encoding="utf-8")
    words = {"title": "Components", "lead": "All of them.", "hostile": HOSTILE, "pixel": PIXEL}
    page = render_page(folder, "sampler.html.j2", **words)
    (folder / "components.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_readable(
    pages: dict[str, Path], browser: Browser, axe: str, name: str, size: tuple[int, int], scheme: Any
) -> None:
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[name].as_uri())
    if name in ("study", "diff"):
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(UNNAMED) == 0 < page.locator("svg[role=img]").count()
    assert all(scrolls == says for scrolls, says in page.evaluate(HINTS))
    labels = page.evaluate(LABELS)
    assert bool(labels) == (name in ("report", "statistics"))
    _check_labels(labels)
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    context.close()
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []
    assert len(found["passes"]) > 10


def test_the_keys_of_the_scenes_hide_what_they_name(pages: dict[str, Path], browser: Browser) -> None:
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    for style in ("found", "false", "missed"):
        boxes = page.locator(f".scene rect.{style}")
        assert boxes.count() and boxes.first.is_visible()
        page.locator(f".show-{style}").uncheck()
        assert not boxes.first.is_visible()
    assert not page.locator(".scene .label").first.is_visible()
    page.close()


def _check_labels(labels: list[dict[str, Any]]) -> None:
    for at, label in enumerate(labels):
        assert label["inside"] and label["size"] >= 11
        for other in labels[:at]:
            if other["scene"] == label["scene"]:
                (x1, y1, x2, y2), (u1, v1, u2, v2) = label["box"], other["box"]
                assert x2 <= u1 + 0.5 or u2 <= x1 + 0.5 or y2 <= v1 + 0.5 or v2 <= y1 + 0.5

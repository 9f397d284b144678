"""The report stage, from artifacts to the page that a browser makes of it."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_catalog.synthetic.prw import write_prw
from flows.config.sections import DatasetSource, TrainingEntry, ViewRef
from flows.errors import StageError
from flows.pages.page import moment
from flows.report.gathering import gather
from flows.report.page import render
from flows.report.results import EvaluationFiles
from flows.stages import evaluation, report
from storage.errors import StorageError
from storage.local import LocalStore
from storage.manifest import FILE_NAME
from tests.flows.report.invented import HOSTILE, SCENES, ReportStore

PROJECT = Path(__file__).resolve().parents[3]


@dataclass
class Page(HTMLParser):
    """The page's elements with their attributes, and the text between them."""

    html: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of_class(self, tag: str, name: str) -> list[dict[str, str | None]]:
        return [attrs for found, attrs in self.elements if found == tag and attrs.get("class") == name]


@pytest.fixture(scope="module")
def html(report_store: ReportStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_store.make_report(tmp_path_factory.mktemp("page"))[0]


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_reading_has_a_row_with_its_code(page: Page) -> None:
    assert "Every reading" in page.text
    for name in ("seqnet", "coat-multi-view", "alignps", "zheng2017", "gt-boxes"):
        assert name in page.text
    assert "LukeJaffe/GFN" in page.text


@pytest.fixture(scope="module")
def metrics(report_store: ReportStore) -> dict[str, Any]:
    artifact = report_store.plan()["evaluation"].artifact
    assert artifact is not None
    return artifact.manifest.metrics


@pytest.fixture
def copied(report_store: ReportStore, tmp_path: Path) -> ReportStore:
    """A copy of the store, to be damaged."""
    shutil.copytree(report_store.store.root, tmp_path / "store")
    return ReportStore(report_store.config, LocalStore(tmp_path / "store"))


def test_shows_the_numbers_of_every_setting(page: Page, metrics: dict[str, Any]) -> None:
    for name in ("detection_ap50", "mAP", "rank1", "rank5", "rank10", "mAP_untrained"):
        assert f"{100 * metrics[name]:.1f}" in page.text
    for setting in ("prw, 2 boxes per image", "prw, 4 boxes per image", "prw, ground-truth boxes"):
        assert setting in page.text
    assert f"Here that is {metrics['best_boxes_per_image']:g}, with an mAP of" in page.text
    assert "It is chosen on the test set itself" in page.text


def test_says_first_what_was_trained_and_tested_on_what(page: Page) -> None:
    assert (
        f"How well people are found again in the images of {HOSTILE}/test by a RetinaNet detector "
        f"(ResNet-50) trained on {HOSTILE}/train, and a re-ID branch (J3, which shares layers C1 to C3 with "
        f"the detector) trained on {HOSTILE}/train; evaluated on "
    ) in page.text


def test_says_first_when_and_from_which_config(report_store: ReportStore, tmp_path: Path) -> None:
    context = report_store.context("report", tmp_path / "page")
    options = context.options.model_copy(update={"config": "prw.yaml --set reid.seed=1"})
    content = gather(replace(context, options=options))
    assert content.origin is not None
    (lead,) = re.findall('<p class="lead">(.*?)</p>', render(content))
    assert lead.endswith(
        f"; evaluated on {moment(content.origin.evaluated)} from the config prw.yaml --set reid.seed=1."
    )
    (lasting,) = re.findall('<p class="lead">(.*?)</p>', render(content, with_origin=False))
    assert "evaluated" not in lasting and lasting.endswith("/train.")


def test_rank_1_has_an_interval_like_map(page: Page, report_store: ReportStore) -> None:
    artifact = report_store.plan()["evaluation"].artifact
    assert artifact is not None
    low, high = EvaluationFiles.of(artifact).rank1_intervals["prw"]
    assert low <= artifact.manifest.metrics["rank1"] <= high and low < high
    assert f"({100 * low:.1f} to {100 * high:.1f})" in page.text


def test_detection_has_a_section_of_its_own(page: Page) -> None:
    for title in (
        "Precision and recall of the detector",
        "People found, by size",
        "false positives per image",
    ):
        assert title in page.text


def test_says_when_the_figures_mean_little(page: Page, metrics: dict[str, Any]) -> None:
    assert f"the test has {metrics['queries']} queries and {metrics['images']} images" in page.text


def test_frames_right_and_wrong_matches_beside_their_query(page: Page) -> None:
    right, wrong = page.of_class("div", "tile right"), page.of_class("div", "tile wrong")
    assert len(page.of_class("div", "tile query")) == 4  # the two hardest, and two of the rest
    assert right and wrong
    assert len(right) + len(wrong) == 4 * 5
    headings = re.findall(r"Query (\S+) in image (\S+) ·", page.text)
    assert len(headings) == 4 and all(image.endswith(".jpg") for _, image in headings)
    hardest_first = [float(ap) for ap in re.findall(r"AP ([\d.]+) %", page.text)]
    assert hardest_first == sorted(hardest_first)


def test_tells_what_became_of_the_people_that_no_match_shows(page: Page) -> None:
    outcomes = re.findall(
        r"(\d+) to find: (\d+) among the matches shown, (\d+) ranked lower, (\d+) not detected", page.text
    )
    assert outcomes and all(int(n) == int(a) + int(b) + int(c) for n, a, b, c in outcomes)
    assert any(int(missed) for *_, missed in outcomes)
    assert "not detected" in page.text and "another person" in page.text and "background" in page.text


def test_draws_detections_and_ground_truth_on_scenes(page: Page) -> None:
    assert len(page.of_class("figure", "scene")) == 3
    for style in ("found", "false", "missed"):
        boxes = page.of_class("rect", style)
        assert boxes, style
        assert all(float(box["width"] or 0) > 0 and float(box["height"] or 0) > 0 for box in boxes)


def test_pictures_are_small_jpegs(page: Page) -> None:
    sources = [attrs["src"] for tag, attrs in page.elements if tag == "img"]
    assert len(sources) == 4 * 6 + len(page.of_class("div", "tile none"))
    for source in sources:
        kind, _, data = str(source).partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            assert picture.width <= 96 and picture.height <= 192
    assert len(page.html) < 1_000_000


def test_shows_curves_features_data_time_and_origin(page: Page, report_store: ReportStore) -> None:
    for title in (
        "Loss",
        "Validation",
        "Distances within a batch",
        "Norms",
        "Cumulative matching characteristic (CMC)",
    ):
        assert title in page.text
    assert "1 of 6" in page.text  # dead channels
    snapshot = report_store.plan()[f"ingest:{HOSTILE}"].artifact
    assert snapshot is not None
    assert str(snapshot.manifest.metrics["counts"]["test.boxes"]) in page.text
    for planned in report_store.plan().values():
        if planned.artifact is not None:
            assert planned.artifact.key in page.text
    assert "training.lr" in page.text  # what is not the default
    assert "training.momentum" not in page.text
    assert len(page.of_class("td", "bar")) == 7  # stages on the waterfall


def test_names_are_escaped_and_nothing_comes_from_elsewhere(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "foreignobject"}
    assert f"A title {HOSTILE}" in page.text
    assert f"{HOSTILE}, test" in page.text
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert not re.findall(r"url\((?!#)|@import", page.html)


def test_equal_results_give_an_equal_digest_whenever_they_were_made(
    report_store: ReportStore, copied: ReportStore, tmp_path: Path
) -> None:
    first = report_store.make_report(tmp_path / "first")[1].content_digest
    gallery = copied.plan()["gallery"].artifact
    assert gallery is not None
    later = gallery.manifest.model_copy(update={"created": "2031-01-01T00:00:00+00:00", "seconds": 4711.0})
    (gallery.path / FILE_NAME).write_text(later.to_json())
    page, made = copied.make_report(tmp_path / "later")
    assert "1 h 18 min" in page
    assert made.content_digest == first


def test_other_results_give_another_digest(report_store: ReportStore, tmp_path: Path) -> None:
    context = report_store.context("report", tmp_path / "first")
    digest = report.make(context).content_digest
    other = replace(context, recipe=context.recipe.model_copy(update={"title": "Another"}), work=tmp_path)
    assert report.make(other).content_digest != digest


def test_an_image_that_is_gone_is_named(report_store: ReportStore, tmp_path: Path) -> None:
    context = report_store.context("report", tmp_path)
    test = {"": replace(context.inputs.test[""], root=tmp_path / "elsewhere")}
    elsewhere = replace(context, inputs=context.inputs.model_copy(update={"test": test}))
    with pytest.raises(StageError, match=r"the test image .*elsewhere.*\.jpg is missing"):
        report.make(elsewhere)


def test_an_artifact_that_is_gone_is_named(copied: ReportStore, tmp_path: Path) -> None:
    context = copied.context("report", tmp_path)
    detections = context.inputs.gallery[""].manifest.sources["detections"]
    shutil.rmtree(copied.store.root / detections)
    report.make(context)
    assert f"No longer in the store: {detections}." in Page((tmp_path / report.PAGE).read_text()).text


def test_a_damaged_manifest_is_an_error(copied: ReportStore, tmp_path: Path) -> None:
    context = copied.context("report", tmp_path)
    detections = context.inputs.gallery[""].manifest.sources["detections"]
    manifest = copied.store.root / detections / FILE_NAME
    manifest.write_text(manifest.read_text().replace('"seconds"', '"minutes"'))
    with pytest.raises(StorageError, match="is damaged"):
        report.make(context)


def test_nothing_detected_is_said(report_store: ReportStore, tmp_path: Path) -> None:
    """All detections lie under the threshold: no strips, and the page says why."""
    config = report_store.config
    strict = config.evaluation[0].model_copy(update={"score_threshold": 1.0, "boxes_per_image": ()})
    store = LocalStore(tmp_path / "store")
    shutil.copytree(report_store.store.root, store.root)
    nothing = ReportStore(config.model_copy(update={"evaluation": (strict,)}), store)
    nothing.commit("evaluation", evaluation.make)
    page = Page(nothing.make_report(tmp_path / "page")[0])
    assert "No detection has a score of at least 1" in page.text
    assert not page.of_class("div", "tile query")


def test_several_tests_and_training_sets_are_told_apart(copied: ReportStore, tmp_path: Path) -> None:
    write_prw(tmp_path / "abroad", SCENES, seed=1)
    home = copied.config.evaluation[0]
    abroad = home.model_copy(update={"test": ViewRef(dataset="abroad", split="test"), "boxes_per_image": ()})
    source = DatasetSource(adapter="prw", root=tmp_path / "abroad")
    trained = tuple(TrainingEntry(dataset=name, split="train") for name in ("abroad", HOSTILE))
    copied.config = copied.config.model_copy(
        update={
            "datasets": {**copied.config.datasets, "abroad": source},
            "evaluation": (home, abroad),
            "reid": copied.config.reid_section.model_copy(update={"train": trained}),
        }
    )
    copied.ingest("abroad")
    copied.train_branch("features:abroad", f"features:{HOSTILE}")
    copied.search("abroad", ":abroad")
    copied.search(HOSTILE, f":{HOSTILE}")
    page = Page(copied.make_report(tmp_path / "page")[0])
    assert f"{HOSTILE}, test" in page.text and "abroad, test" in page.text
    assert len(page.of_class("div", "tile query")) == 2 * 4
    assert f"on abroad/train and {HOSTILE}/train" in page.text
    assert page.text.count("shape of a row") == 2
    for stage in ("features", "detections", "gallery", "evaluation"):
        assert f"{stage}:abroad" in page.text and f"{stage}:{HOSTILE}" in page.text


def test_loads_no_torch_and_plots_only_to_make() -> None:
    program = (
        "import sys; import flows.stages.report; assert 'matplotlib' not in sys.modules; "
        "import flows.report.gathering, flows.report.page; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True)

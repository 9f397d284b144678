"""A store with all that a report is made from: drawn scenes, real tables and results, invented models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.synthetic.prw import PrwSpec, write_prw
from data_catalog.views import View
from flows.config.models import Config
from flows.plan.states import Planned, make_plan
from flows.plan.views import SnapshotView, ViewSpec
from flows.stages import detected_blocks, detections, evaluation, gallery, ingest, report
from flows.stages.base import Made, StageContext, load_maker
from flows.stages.building import build_stages
from storage.feature_store import create_features, finish_features, write_index
from storage.local import LocalStore
from storage.store import Artifact

HOSTILE = "\"><script>alert('x')</script>$x^$&amp;"
"""A dataset's name in a config may be any text."""

SCENES = PrwSpec(train_images=4, test_images=10, train_identities=6, test_identities=6)

_BOX = ["image_id", "x1", "y1", "x2", "y2"]

Fill = Callable[[StageContext[Any, Any, Any]], Made]


class Silent:
    """A reporter that discards progress."""

    def progress(self, done: int, total: int, **metrics: float) -> None:
        pass

    def should_stop(self) -> bool:
        return False


@dataclass
class ReportStore:
    """A store in which all but the report of a config is made.

    `mark` is appended to the content digests of what it makes, so that it counts as other content.
    """

    config: Config
    store: LocalStore
    mark: str = ""

    def plan(self) -> dict[str, Planned]:
        return {planned.stage.name: planned for planned in make_plan(build_stages(self.config), self.store)}

    def context(self, name: str, work: Path) -> StageContext[Any, Any, Any]:
        plan = self.plan()
        stage = plan[name].stage
        inputs: dict[str, Artifact | SnapshotView] = {}
        for key, ref in stage.inputs.items():
            made = _made(plan[ref.stage])
            inputs[key] = (
                made if ref.view is None or ref.root is None else SnapshotView(made, ref.view, ref.root)
            )
        work.mkdir(parents=True, exist_ok=True)
        return load_maker(stage.maker).context(
            stage.recipe, inputs, stage.options, work=work, reporter=Silent(), store=self.store
        )

    def commit(self, name: str, fill: Fill) -> Artifact:
        planned = self.plan()[name]
        assert planned.identity is not None
        with self.store.making(planned.identity) as work:
            context = self.context(name, work.path)
            made = fill(context)
            sources = {key: f"{found.kind}/{found.key}" for key, found in context.inputs.artifacts().items()}
            made_by = {"source": "0" * 16, "libraries": {"numpy": np.__version__}, "threads": 1}
            digest = made.content_digest + self.mark
            return work.commit(digest, metrics=made.metrics, sources=sources, made_by=made_by)

    def make_report(self, work: Path) -> tuple[str, Made]:
        """The page's text, and what the stage returns."""
        made = report.make(self.context("report", work))
        return (work / report.PAGE).read_text(), made

    def ingest(self, dataset: str) -> None:
        self.commit(f"ingest:{dataset}", ingest.make)

    def train_detector(self) -> None:
        self.commit("detector", _invent_detector)

    def train_branch(self, *features: str) -> None:
        """Features by the names of their stages, and the branch."""
        for name in features:
            self.commit(name, _invent_features)
        self.commit("reid", _invent_reid)

    def search(self, dataset: str, suffix: str = "") -> None:
        """Detections, gallery and evaluation of a dataset's test split."""
        snapshot = _made(self.plan()[f"ingest:{dataset}"])
        view = ViewSpec(dataset, "test", "test").of(snapshot.path)
        self.commit(f"detections{suffix}", lambda _: Made(f"detections of {snapshot.content_digest}", {}))
        self.commit(f"gallery{suffix}", lambda context: _invent_gallery(context.work, view))
        self.commit(f"evaluation{suffix}", evaluation.make)


def make_store(folder: Path) -> ReportStore:
    """Everything but the report, under `folder`."""
    write_prw(folder / "prw", SCENES)
    made = ReportStore(_config(folder), LocalStore(folder / "store"))
    made.ingest(HOSTILE)
    made.train_detector()
    made.train_branch("features")
    made.search(HOSTILE)
    return made


def _config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "store": str(folder / "store"),
            "datasets": {HOSTILE: {"adapter": "prw", "root": folder / "prw"}},
            "detector": {"train": [{"dataset": HOSTILE, "split": "train"}], "training": {"lr": 0.01}},
            "reid": {"train": {"dataset": HOSTILE, "split": "train"}},
            "evaluation": {
                "test": {"dataset": HOSTILE, "split": "test"},
                "boxes_per_image": [2, 4],
                "ground_truth_boxes": True,
                "bootstrap_samples": 200,
                "readings": "all",
            },
            "report": {"title": f"A title {HOSTILE}", "scenes": 3, "queries": 2, "ranks": 5},
        }
    )


def _made(planned: Planned) -> Artifact:
    assert planned.artifact is not None, planned.stage.name
    return planned.artifact


def _invent_detector(context: StageContext[Any, Any, Any]) -> Made:
    steps = np.arange(400)
    loss = 1 / (1 + steps / 40) + np.random.default_rng(0).random(400) * 0.1
    validation = [0.5 if step % 100 == 99 else None for step in steps]
    _write_history(context.work, {"loss": loss, "rate": loss, "validation/ap": validation})
    return Made("detector", {})


def _invent_reid(context: StageContext[Any, Any, Any]) -> Made:
    phase = np.repeat([0.0, 1.0], 10)
    semi_hard = [*np.linspace(1, 0.2, 10), *[None] * 10]
    batch_hard = [*[None] * 10, *np.linspace(0.7, 0.1, 10)]
    columns = {
        "loss": np.linspace(1, 0.1, 20),
        "loss/semi_hard_triplet": semi_hard,
        "loss/batch_hard_triplet": batch_hard,
        "positive_distance": np.linspace(5, 1, 20),
        "negative_distance": np.linspace(5, 9, 20),
        "gradient_norm": np.geomspace(100, 1, 20),
        "phase": phase,
    }
    _write_history(context.work, columns)
    return Made("reid", {})


def _invent_features(context: StageContext[Any, Any, Any]) -> Made:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(4), 3)
    rows = (rng.normal(size=(4, 6, 2, 2))[people] + 0.1 * rng.normal(size=(12, 6, 2, 2))).astype(np.float16)
    rows[:, 5] = 0
    with create_features(context.work, len(rows), rows.shape[1:], "float16") as writer:
        writer.write(0, rows)
    index = {"row": range(12), "person_id": [str(person) for person in people], "dataset": [HOSTILE] * 12}
    write_index(context.work, pa.table({name: list(values) for name, values in index.items()}))
    return Made(finish_features(context.work), {})


def _invent_gallery(work: Path, view: View) -> Made:
    """Six of seven people are detected, a little off the truth, and a corner of every image is taken for one;
    embeddings are the people's, with noise.
    """
    rng = np.random.default_rng(0)
    truth = view.boxes
    queries = view.query_boxes
    detected = truth.take(np.flatnonzero(np.arange(len(truth)) % 7))
    detected = detected.select(_BOX)
    detected = pa.concat_tables([detected, _corners_of(view.images).cast(detected.schema)])
    person_of = dict(zip(_keys(truth), truth["person_id"].to_pylist(), strict=True))
    parts, people = [], []
    for role, boxes, shift in (
        (detected_blocks.DETECTION, detected, 1.0),
        (detected_blocks.QUERY, queries, 0.0),
        (detected_blocks.TRUTH, truth, 0.0),
    ):
        count = len(boxes)
        score = 0.5 + 0.5 * rng.random(count) if role == detected_blocks.DETECTION else [None] * count
        columns = {name: boxes[name].to_numpy() + np.float32(shift) for name in ("x1", "y1", "x2", "y2")}
        columns |= {"row": np.arange(count) + len(people), "role": [role] * count, "score": score}
        columns |= {"image_id": boxes["image_id"], "box_id": pa.nulls(count, pa.string())}
        if role == detected_blocks.TRUTH:
            columns["box_id"] = boxes["box_id"]
        parts.append(pa.Table.from_pydict(columns, schema=detected_blocks.ROWS_SCHEMA))
        people += [person_of.get(key) for key in _keys(boxes)]
    names = sorted({person or "" for person in people})
    means = rng.normal(size=(len(names), 8))[[names.index(person or "") for person in people]]
    pq.write_table(pa.concat_tables(parts).unify_dictionaries(), work / detections.ROWS)
    np.save(work / gallery.EMBEDDINGS, _unit(means + 0.7 * rng.normal(size=means.shape)))
    np.save(work / gallery.UNTRAINED_EMBEDDINGS, _unit(rng.normal(size=means.shape)))
    return Made("gallery", {})


def _corners_of(images: pa.Table) -> pa.Table:
    """A box in the upper left of each image."""
    sides = {"x1": 0.0, "y1": 0.0, "x2": 8.0, "y2": 16.0}
    columns = {name: pa.array([side] * len(images), pa.float32()) for name, side in sides.items()}
    return pa.table({"image_id": images["image_id"], **columns})


def _keys(boxes: pa.Table) -> list[tuple[object, ...]]:
    return list(zip(*(boxes[name].to_pylist() for name in ("image_id", "x1", "y1")), strict=True))


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)


def _write_history(work: Path, columns: Mapping[str, Any]) -> None:
    length = len(columns["loss"])
    pq.write_table(pa.table({"step": np.arange(length), **columns}), work / "history.parquet")

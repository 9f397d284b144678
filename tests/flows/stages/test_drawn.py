"""Rules in a config: their place in the key, what they are made from, and how drawn queries are scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchmarks.searches import search_prw
from data_catalog.adapters import Layout, Unit
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.rows import Rows
from data_catalog.rules import QueryRule, Rules, SplitRule
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import Mot17Spec, write_mot17
from data_catalog.views import protocol_view
from flows.cli.datasets import app
from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.plan.views import ViewSpec
from flows.stages import ingest as ingest_stage
from flows.stages.detected_blocks import DETECTION, QUERY
from flows.stages.detections import ROWS
from flows.stages.gallery import EMBEDDINGS
from flows.stages.test_set import TestSet
from personsearch_core.evaluation.front import evaluate
from personsearch_core.evaluation.records import Detections, GroundTruth, Queries
from personsearch_core.recipes import EvaluationRecipe

RULES = Rules(queries=QueryRule(at_least_images=2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small synthetic MOT17 with a training split alone."""
    spec = Mot17Spec(sequences=2, frames=6, width=96, height=72, people=(2, 3))
    write_mot17(tmp_path / "mot", spec, seed=1)
    return tmp_path / "mot"


def _ingest(root: Path, store: Path, *arguments: str) -> Any:
    command = ["ingest", str(root), "--adapter", "mot17", "--store", str(store), *arguments]
    return CliRunner().invoke(app, command)


def test_rules_are_in_the_key_only_where_they_are_given(root: Path, tmp_path: Path) -> None:
    def recipe(rules: Rules) -> dict[str, Any]:
        return ingest_stage.root_stage("m", "mot17", root, options={}, rules=rules, store=tmp_path).recipe

    plain = recipe(Rules())
    assert set(plain) == {"adapter", "adapter_version", "dataset", "options"}
    assert set(recipe(RULES)) == {*plain, "queries"}
    splits = Rules(splits=SplitRule(by="sequence"))
    assert set(recipe(splits)) == {*plain, "splits"}


def test_a_rule_is_applied_to_rows_as_they_were_read(root: Path, tmp_path: Path) -> None:
    """A snapshot without rules spares the reading; one with rules never does: its rows are others."""
    store = tmp_path / "store"
    splits = ("--splits", "{by: time, gap: 0, of: [train]}")
    other = ("--splits", "{by: time, gap: 0, of: [train], parts: {train: 0.5, test: 0.5}}")
    alone = tmp_path / "alone"
    for arguments in ((), splits, other):
        assert _ingest(root, store, *arguments).exit_code == 0
    assert _ingest(root, alone, *other).exit_code == 0

    def digests(folder: Path) -> dict[str, str]:
        manifests = [stage for stage in (folder / "ingest").iterdir() if (stage / "rules.json").is_file()]
        return {
            (each / "rules.json").read_text(): Snapshot(each).table("images").to_pandas().to_csv()
            + Snapshot(each).table("boxes").to_pandas().to_csv()
            for each in manifests
        }

    both, one = digests(store), digests(alone)
    assert len(both) == 2 and len(one) == 1
    assert one.items() <= both.items()


def test_the_command_says_that_queries_are_drawn(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made = _ingest(root, store, "--queries", "{at_least_images: 2, split: train}")
    assert made.exit_code == 0, made.output
    assert "are drawn by a rule (seed 0), not published" in made.output
    stats = CliRunner().invoke(app, ["stats", "mot17", "--store", str(store)])
    assert "not published" in stats.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--queries", "{per_identty: 2}"), "--queries.per_identty.*did you mean 'per_identity'"),
        (("--queries", "2"), "--queries 2: write a mapping"),
        (("--queries", "{a"), "--queries {a: this is not valid YAML"),
        (("--splits", "{by: colour}"), "--splits.by"),
        (("--splits", "{by: time, parts: {train: 0.5, test: 0.4}}"), "sum to 0.9, not to 1"),
    ],
)
def test_a_rule_that_makes_no_sense(
    arguments: tuple[str, str], message: str, root: Path, tmp_path: Path
) -> None:
    done = _ingest(root, tmp_path / "store", *arguments)
    assert isinstance(done.exception, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise done.exception


def test_a_config_with_rules(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = (
        "extends: {}\ndatasets:\n  scenes:\n    queries: {{per_identity: 3}}\n    splits: {{by: time, {}}}\n"
    )
    demo = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"
    path.write_text(text.format(demo, "gap: 7"))
    source = load_config(path).datasets["scenes"]
    assert source.queries == QueryRule(per_identity=3)
    assert source.splits == SplitRule(by="time", gap=7)
    path.write_text(text.format(demo, "gaps: 7"))
    with pytest.raises(ConfigError, match=r"datasets\.scenes\.splits\.gaps: .*did you mean 'gap'"):
        load_config(path)


class Tracks:
    """Two sequences of five frames with three people each, known in their sequence or throughout."""

    name, version, options = "tracks", 1, {}
    scope = "sequence"

    def discover(self, root: Path, options: Any) -> Layout:
        return Layout((Unit("boxes.csv", "test"),))

    def read(self, root: Path, unit: Unit, options: Any) -> Iterator[Rows]:
        rows = Rows(unit.source)
        images = [f"{place}/{n}" for place in "xy" for n in range(5)]
        rows.images(images, images, "test", sequence_id=[name[0] for name in images], camera_id=1)
        seen = [(image, number) for image in images for number in range(3)]
        left = np.array([50.0 * number for _, number in seen])
        xyxy = np.stack([left, 0 * left, left + 40, 0 * left + 100], axis=1)
        people = [
            f"{image[0]}/{number}" if self.scope == "sequence" else str(number) for image, number in seen
        ]
        rows.boxes(
            [image for image, _ in seen],
            xyxy,
            "test",
            range(1, 31),
            person_id=people,
            person_scope=self.scope,
        )
        yield rows


def _test_set(tmp_path: Path, scope: str) -> TestSet:
    """A gallery whose detections are the annotated boxes, described at random."""
    (tmp_path / "boxes.csv").write_text("")
    adapter = Tracks()
    adapter.scope = scope
    snapshot, gallery = tmp_path / f"snapshot-{scope}", tmp_path / f"gallery-{scope}"
    snapshot.mkdir()
    gallery.mkdir()
    ingest_root(tmp_path, adapter, snapshot, rules=RULES, read_images=False)
    columns = ["image_id", "x1", "y1", "x2", "y2"]
    spec = ViewSpec("tracks", "test", "truth", protocols=("drawn",))
    boxes, queries = Snapshot(snapshot).table("boxes", columns), spec.of(snapshot).query_boxes
    rows = pa.concat_tables([boxes, queries])
    roles = [DETECTION] * len(boxes) + [QUERY] * len(queries)
    rows = rows.append_column("role", pa.array(roles)).append_column(
        "score", pa.array([0.9] * len(rows), pa.float32())
    )
    rows = rows.append_column("row", pa.array(range(len(rows)), pa.int64()))
    pq.write_table(rows, gallery / ROWS)
    described = np.random.default_rng(5).normal(size=(len(rows), 4)).astype(np.float32)
    np.save(gallery / EMBEDDINGS, described / np.linalg.norm(described, axis=1, keepdims=True))
    return TestSet(gallery, snapshot, spec)


def test_people_of_a_sequence_are_searched_in_it_alone(tmp_path: Path) -> None:
    """The same as PRW's protocol on each sequence by itself."""
    test, recipe = _test_set(tmp_path, "sequence"), EvaluationRecipe(protocol="drawn")
    results = evaluate(recipe, test.inputs(recipe), keep_best=10)
    (scored,) = results.searches
    queries, found, truth = test.search_protocol("drawn").queries, test.detections, test.truth
    expected = np.empty(len(queries))
    for images in (np.arange(5), np.arange(5, 10)):
        rows, asked, people = (np.isin(each.image, images) for each in (found, queries, truth))
        alone = search_prw(
            Detections(
                found.image[rows] - images[0],
                *(getattr(found, c)[rows] for c in ("boxes", "scores", "embeddings")),
            ),
            Queries(
                queries.image[asked] - images[0],
                queries.boxes[asked],
                queries.embeddings[asked],
                queries.person_ids()[asked],
            ),
            GroundTruth(truth.image[people] - images[0], truth.boxes[people], truth.person_id[people]),
            np.zeros(5, int),
        )
        expected[asked] = alone.ap
        assert (alone.n_gallery == 12).all()
    assert scored.result.ap == pytest.approx(expected)
    assert (scored.setting.protocol, scored.setting.name) == ("drawn", "drawn queries")
    assert results.matches is not None and len(results.matches.query)
    own = queries.image[results.matches.query]
    assert (results.matches.image // 5 == own // 5).all() and (results.matches.image != own).all()


def test_people_of_the_dataset_are_searched_in_all_of_it(tmp_path: Path) -> None:
    test, recipe = _test_set(tmp_path, "dataset"), EvaluationRecipe(protocol="drawn")
    (scored,) = evaluate(recipe, test.inputs(recipe)).searches
    asked = test.search_protocol("drawn")
    assert asked.lists is None
    expected = search_prw(test.detections, asked.queries, test.truth, test.cameras)
    assert scored.result.ap == pytest.approx(expected.ap)
    assert (expected.n_gallery == 27).all()


def test_a_protocol_that_no_rule_made_says_how(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("")
    work = tmp_path / "work"
    work.mkdir()
    ingest_root(tmp_path, Tracks(), work, read_images=False)
    with pytest.raises(CatalogError, match=r"no protocol 'drawn'; the dataset's `queries` rule makes it"):
        protocol_view(Snapshot(work), "drawn")

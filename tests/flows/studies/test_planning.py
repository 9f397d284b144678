"""What a study needs, what it costs, and what fits a budget; Table 1 needs no more than its issue says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.study import parse_duration
from flows.config import yaml_text
from flows.stages import ingest
from flows.studies.cost import Cost, Estimator
from flows.studies.loading import Loader
from flows.studies.members import Study
from flows.studies.nodes import Nodes
from flows.studies.planning import StudyPlan, plan_study, within_budget
from personsearch_core.speed import PAPER_MS_PER_PERSON
from storage.local import LocalStore
from tests.flows.studies.files import STUDY, study_of, write_study

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TABLE1 = CONFIGS / "paper" / "table1.yaml"


def plan_of(study: Study, tmp_path: Path, gpu: bool = False) -> StudyPlan:
    loader = Loader(str(tmp_path / "empty"), absent={})
    return plan_study(
        study, Nodes.of(study.members.values(), loader), Estimator(LocalStore(tmp_path), study.drawn, gpu)
    )


@pytest.mark.parametrize("path", [TABLE1, CONFIGS / "table1_drawn.yaml"], ids=lambda path: path.stem)
def test_table_1_shares_what_can_be_shared(path: Path, tmp_path: Path) -> None:
    plan = plan_of(study_of(path), tmp_path)
    assert plan.kinds["detector"] == 4
    assert plan.kinds["features"] == 17
    # Each re-ID training is evaluated once per test set; J3's of part (c) on two.
    assert (plan.kinds["reid"], plan.kinds["evaluation"], plan.kinds["detections"]) == (29, 31, 19)
    assert (plan.kinds["ingest"], plan.kinds["speed"]) == (4, 1)
    assert len(plan.absent) == (0 if path.stem == "table1_drawn" else 4)


def test_trainings_on_one_dataset_and_on_two_share_its_features(tmp_path: Path) -> None:
    plan = plan_of(study_of(CONFIGS / "several_drawn.yaml"), tmp_path)
    assert (plan.kinds["reid"], plan.kinds["features"], plan.kinds["detector"]) == (3 * 3, 2 * 3, 3)


def test_a_plan_reads_each_file_and_each_dataset_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: Counter[str] = Counter()
    ingested: list[str] = []
    parse, stage = yaml_text.yaml_text.parse_yaml, ingest.stage

    def counting(text: str, where: str) -> Any:
        parsed[where] += 1
        return parse(text, where)

    def looking(config: Any, dataset: str) -> Any:
        ingested.append(dataset)
        return stage(config, dataset)

    yaml_text._parsed.cache_clear()
    monkeypatch.setattr(yaml_text.yaml_text, "parse_yaml", counting)
    monkeypatch.setattr(ingest, "stage", looking)
    study = study_of(TABLE1, seeds=range(7))
    assert len(study.members) == 210
    plan_of(study, tmp_path)
    assert max(parsed.values()) == 1
    assert sorted(ingested) == ["cuhk_sysu", "mot17det", "prw", "wider"]


def test_published_values_are_the_papers(shared: Path) -> None:
    file = shared / "paper_tables.yaml"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    paper = yaml.safe_load(file.read_text())
    tables = {table.name: table for table in study_of(TABLE1).tables}

    def values(row: dict[str, Any], suffix: str = "") -> dict[str, float]:
        found = {}
        for name in ("mAP", "rank1"):
            for size, value in zip(("100", "4000"), row[f"{name}{suffix}"], strict=True):
                found[f"{name}_{size}{suffix}"] = value
        return found

    def of_a(row: dict[str, Any]) -> dict[str, float]:
        found = {name: row[name] for name in ("prw_mAP", "prw_rank1") if name in row}
        for name in ("cuhk_mAP", "cuhk_rank1"):
            for size, value in zip(("100", "4000"), row[name], strict=True):
                found |= {f"{name}_{size}": value} if value is not None else {}
        return found

    ran = {row.title: {c: cell.published for c, cell in row.cells.items()} for row in tables["a"].rows[:4]}
    assert ran == {name: of_a(paper["a"][name]) for name in ("Disj", "J2", "J3", "J4")}
    assert all(row.ours for row in tables["a"].rows[4:])
    published = {name: dict(row.published) for name, row in tables["a"].published_rows.items()}
    assert published == {name: of_a(row) for name, row in paper["a"].items() if name not in ran}
    for row in tables["b"].rows:
        for case, cell in row.cells.items():
            images, people = (int(number) for number in case.partition("_")[2].split("x"))
            own, disj = paper["b"][row.title][people][images], paper["b"]["Disj"][people][images]
            assert PAPER_MS_PER_PERSON[row.name][images, people] == own
            assert cell.published == (own if case.startswith("ms") else round(disj / own, 2))
    for row in tables["c"].rows:
        expected = values(paper["c"][row.title.replace(", ", "_")])
        assert {column: cell.published for column, cell in row.cells.items()} == expected
    for row in tables["d"].rows:
        given = paper["d"][row.title.replace(", all", "").replace(", c", "_c")]
        expected = values(given) | values(given, "_gt")
        assert {column: cell.published for column, cell in row.cells.items()} == expected
    ap = {
        f"Jx_{row.title.removeprefix('detector ')}": {c: cell.published for c, cell in row.cells.items()}
        for row in tables["detection"].rows
    }
    assert ap == paper["detection_AP"]


def test_a_plan_names_what_stages_wait_for_and_where_their_cost_is_from(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    result = CliRunner().invoke(app, ["study", "plan", str(path), "--json", str(tmp_path / "plan.json")])
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "plan.json").read_text())
    stages = {each["number"]: each for each in plan["stages"]}
    detector = next(each for each in stages.values() if each["kind"] == "detector")
    assert [stages[number]["stage"] for number in detector["waits_for"]] == ["ingest:scenes", "ingest:tracks"]
    assert len(detector["members"]) == 3 and detector["state"] == "runs"
    assert detector["basis"].startswith('"Detector loops') and detector["gpu_seconds"] > 0
    features = [each for each in stages.values() if each["kind"] == "features"]
    assert len(features) == 2 and all(each["disk_bytes"] > 0 for each in features)
    assert "does not exist" in plan["absent"][0] and "not here" in result.output


class Priced(Estimator):
    """Costs by kind, so that choices can be told."""

    def cost(self, node: Any) -> Cost:
        seconds = {"detector": 100.0, "reid": 10.0}.get(node.stage.kind, 0.0)
        return Cost(seconds, seconds, None, None, "made up")


def chosen(study: Study, tmp_path: Path, seconds: float) -> list[str]:
    loader = Loader(str(tmp_path / "empty"), absent={})
    nodes = Nodes.of(study.members.values(), loader)
    return within_budget(plan_study(study, nodes, Priced(LocalStore(tmp_path))), seconds, gpu=False)


def test_a_budget_takes_what_fills_most_cells_per_hour(tmp_path: Path) -> None:
    # Two members with two cells each share a detector; the third, with one cell, has one of its own.
    text = STUDY.replace("{roi.margin: 0.0}", "{detector.training.steps: 3}")
    study = study_of(write_study(tmp_path, text))
    assert chosen(study, tmp_path, 90) == []
    assert chosen(study, tmp_path, 110) == ["j3 on scenes"]
    assert chosen(study, tmp_path, 120) == ["j3 on scenes", "j4 on scenes"]
    assert chosen(study, tmp_path, 229) == ["j3 on scenes", "j4 on scenes"]
    assert chosen(study, tmp_path, 230) == list(study.members)


def test_a_shared_stage_is_worth_its_price_for_all_who_need_it(tmp_path: Path) -> None:
    # Alone, each member of the costly detector loses against the cheap one; together they win.
    variants = (
        "{grid: {reid.seed: [1, 2, 3, 4, 5, 6]}, set: {detector.training.steps: 3}, name: '{reid.seed}'}"
    )
    text = STUDY.replace("{set: {roi.margin: 0.0}}", variants)
    text = text.replace("{no margin: {ours: true}}", "{'1': {}, '2': {}, '3': {}, '4': {}, '5': {}, '6': {}}")
    study = study_of(write_study(tmp_path, text))
    assert chosen(study, tmp_path, 160) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86400), ("1.5 h", 5400), ("90min", 5400), ("2d", 172800), ("30s", 30)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 90min, 24h or 2d"):
        parse_duration(text)

"""configs/prw_mot17_sample.yaml on the real frames of PRW and MOT17, with next to no training."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flows.plan.catalog import open_catalog
from tests.end_to_end.commands import PROJECT, Outcome, here
from tests.end_to_end.tiny import STAGES

pytestmark = pytest.mark.slow

LITTLE = (
    "detector.training.steps=3",
    "detector.training.schedule.warmup_steps=1",
    "detector.model.image_width=128",
    "detector.model.image_height=128",
    "reid.phases=[{epochs: 1, objectives: [{kind: batch_hard_triplet}]}]",
    "evaluation.score_threshold=0.0",
    "run.device=cpu",
    "run.threads=1",
)


@pytest.fixture(scope="module")
def real_run(shared: Path, prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PERSONSEARCH_SAMPLES", str(shared / "data"))
        words = [word for change in LITTLE for word in ("--set", change)]
        config = PROJECT / "configs" / "prw_mot17_sample.yaml"
        outcome = here("run", config, "--store", folder, *words, json_to=folder / "outcome.json")
    assert outcome.status == 0, outcome.stderr
    return outcome


def test_every_stage_is_made_and_the_report_says_what_the_figures_are_worth(real_run: Outcome) -> None:
    kinds = {stage.partition(":")[0] for stage in STAGES}
    assert {stage.partition(":")[0] for stage in real_run.states} == kinds
    assert set(real_run.states.values()) == {"made"}
    assert all(0 <= value <= 1 for value in real_run.data["results"].values())
    page = Path(real_run.data["report"]).read_text()
    assert "These figures mean little: the test has 26 queries and 6 images." in page


def test_the_catalog_has_what_the_samples_are_said_to_hold(real_run: Outcome, shared: Path) -> None:
    said = (shared / "data" / "PROVENANCE.md").read_text()
    catalog = open_catalog(real_run.path("ingest:prw").parents[1])

    frames, *of_prw = numbers(
        r"(\d+) frames, cameras 1 and 3; (\d+) \+ (\d+) boxes; (\d+) train ids, (\d+) test ids", said
    )
    prw = catalog["prw"]
    boxes = [prw.boxes(split=split) for split in ("train", "test")]
    assert len(prw.images()) == frames and set(prw.images()["camera_id"].to_pylist()) == {1, 3}
    assert [*map(len, boxes), *map(identities, boxes)] == of_prw
    assert [len(prw.images(split=split)) for split in ("train", "test")] == numbers(
        r"(\d+) train / (\d+) test and", said
    )

    images, people, ids = (
        sum(numbers(pattern, said))
        for pattern in (
            r"2 sequences, (\d+) \+ (\d+) frames with images",
            r"rows of class 1 with flag 1: (\d+) \+ (\d+)",
            r"their track ids (\d+) \+ (\d+)",
        )
    )
    mot17 = catalog["mot17"]
    boxes_of_people = mot17.boxes().filter(pc.invert(mot17.boxes()["ignore"]))
    assert (len(mot17.images()), len(boxes_of_people), identities(boxes_of_people)) == (images, people, ids)


def numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    assert found, f"PROVENANCE.md says nothing like {pattern!r}"
    return [int(group) for group in found.groups()]


def identities(boxes: pa.Table) -> int:
    return len(pc.unique(boxes["person_id"].drop_null()))

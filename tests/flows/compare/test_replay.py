"""What has to be built between two results, and what is refused before anything is built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.compare.attribution import Replays, replays_between
from flows.compare.history import History
from flows.compare.sides import find_side
from flows.config.models import Config
from flows.errors import ConfigError, StageError
from storage.store import Artifact
from tests.flows.report.invented import HOSTILE, ReportStore, make_store
from tests.flows.report.invented_diff import TwoResults, two_results


def changed(config: Config, **sections: dict[str, object]) -> Config:
    """A config with other fields in some sections."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=fields) for name, fields in sections.items()}
    )


def replays(made: ReportStore, before: Artifact, after: Artifact) -> Replays:
    sides = [
        History.of(find_side(made.store, f"evaluation/{each.key}"), made.store) for each in (before, after)
    ]
    return replays_between(*sides, made.store)


def missing(found: Replays) -> dict[str, list[str]]:
    """The stages to build, by the members that they are for."""
    return {each.node.stage.kind: each.node.members for each in found.plan().missing}


def test_recipes_of_one_stage_need_nothing(results: TwoResults) -> None:
    found = replays(results.made, results.before, results.after)
    assert [each.title for each in found.factors] == ["evaluation recipe"]
    assert not missing(found) and not found.model_as_it_is
    with pytest.raises(ConfigError, match="nothing to replay"):
        replays(results.made, results.before, results.before)


def test_images_that_are_needed_are_asked_for_before_anything_is_built(tmp_path: Path) -> None:
    made = make_store(tmp_path)
    before = made.plan()["evaluation"].artifact
    assert before is not None
    config = changed(made.config, detections={"max_per_image": 7}, roi={"roi_height": 6, "roi_width": 4})
    other = ReportStore(config, made.store, mark=" of B")
    other.train_branch("features")
    other.search(HOSTILE)
    after = other.plan()["evaluation"].artifact
    assert after is not None

    found = replays(made, before, after)
    assert [each.title for each in found.factors] == ["features and ROI", "evaluation recipe"]
    assert [each.name for each in found.members.values()] == [
        "A",
        "A with B's features and ROI",
        "A with B's evaluation recipe",
        "B",
    ]
    assert set(missing(found)) == {"detections", "gallery", "evaluation"}
    needed = [each.node for each in found.plan().missing]
    found.loader.require_images(needed)
    for frame in (tmp_path / "prw" / "frames").iterdir():
        frame.write_bytes(frame.read_bytes() + b"other bytes")
    with pytest.raises(StageError, match=r"detections has to be built.* have changed in .*--attribute"):
        found.loader.require_images(needed)
    shutil.rmtree(tmp_path / "prw" / "frames")
    with pytest.raises(StageError, match=r"10 of 10 are not in "):
        found.loader.require_images(needed)


def test_a_model_that_cannot_be_trained_again_is_one_factor(tmp_path: Path) -> None:
    """Here it was trained from a file of weights, whose name its artifact does not tell."""
    made = make_store(tmp_path)
    before = made.plan()["evaluation"].artifact
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    model = made.config.detector.model.model_copy(update={"initial_weights": str(weights)})
    other = ReportStore(changed(made.config, detector={"model": model}), made.store, mark=" of B")
    other.train_detector()
    other.train_branch("features")
    other.search(HOSTILE)
    after = other.plan()["evaluation"].artifact
    assert before is not None and after is not None
    found = replays(made, before, after)
    assert found.model_as_it_is and [each.title for each in found.factors] == ["trained model"]
    assert not missing(found)


def test_gone_artifacts_are_named(tmp_path: Path) -> None:
    results = two_results(make_store(tmp_path))
    detector = results.made.plan()["detector"].artifact
    assert detector is not None
    results.store.remove("detector", detector.key)
    with pytest.raises(StageError, match=f"detector/{detector.key} of A: gone from"):
        replays(results.made, results.before, results.after)
    assert results.difference().before.gone == [f"detector/{detector.key}"]

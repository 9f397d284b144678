"""One command takes native datasets to a report; again, it makes nothing; a change makes what it touches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from tests.end_to_end.commands import PROJECT, Outcome, here
from tests.end_to_end.conftest import TinyRun
from tests.end_to_end.tiny import STAGES

AFTER_REID = {"reid", "gallery", "evaluation", "report"}


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The config of a copy of the finished run, with every file's modification time kept."""
    shutil.copytree(tiny_run.folder, tmp_path / "tiny")
    return tmp_path / "tiny" / "tiny.yaml"


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def made(outcome: Outcome) -> set[str]:
    return {stage for stage, state in outcome.states.items() if state == "made"}


def test_the_whole_method_ends_in_results_and_a_report(tiny_run: TinyRun) -> None:
    outcome = tiny_run.outcome
    assert tuple(outcome.states) == STAGES
    assert made(outcome) == set(STAGES)
    assert all(stage["seconds"] > 0 and Path(stage["path"]).is_dir() for stage in outcome.data["stages"])
    wanted = {"detection_ap50", "mAP", "rank1", "rank5", "rank10", "mAP_untrained"}
    assert outcome.data["results"].keys() == wanted
    assert all(0 <= value <= 1 for value in outcome.data["results"].values())
    page = Path(outcome.data["report"]).read_text()
    assert "<html" in page and 'src="http' not in page and "mAP" in page


def test_again_nothing_is_made_and_neither_torch_nor_prefect_is_loaded(tiny_run: TinyRun) -> None:
    before = times(tiny_run.store / "detector") | times(tiny_run.store / "report")
    script = (
        "import sys; from flows.cli.main import main; sys.argv = ['personsearch', 'run', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "print('LOADED', [name for name in ('torch', 'prefect') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_run.config)], capture_output=True, text=True, cwd=PROJECT
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout
    assert "everything was already there" in done.stdout
    assert times(tiny_run.store / "detector") | times(tiny_run.store / "report") == before


def test_a_plan_says_why(tiny_run: TinyRun, tmp_path: Path) -> None:
    changes = ["--set", "reid.branch.embedding_dim=12"]
    outcome = here("plan", tiny_run.config, *changes, json_to=tmp_path / "plan.json")
    assert outcome.status == 0, outcome.stderr
    assert outcome.states["features"] == outcome.states["detections"] == "cached"
    reasons = {stage["stage"]: stage["reason"] for stage in outcome.data["stages"]}
    assert reasons["reid"] == "new: reid.branch.embedding_dim 16 -> 12"
    assert reasons["gallery"] == "reid must be built first"


def test_a_plan_says_that_a_split_is_not_there_before_anything_is_trained(tiny_run: TinyRun) -> None:
    changes = ["detector.training.steps=13", "evaluation.test.split=nosuch"]
    words = [word for change in changes for word in ("--set", change)]
    refused = here("plan", tiny_run.config, *words)
    assert refused.status == 2
    assert "no images in split 'nosuch'" in refused.stderr


def test_a_plan_says_what_features_will_take_and_refuses_what_the_disk_cannot_hold(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    plan = here("plan", tiny_run.config, "--force", "features", json_to=tmp_path / "plan.json")
    assert plan.status == 0, plan.stderr
    needed = {stage["stage"]: stage["bytes_needed"] for stage in plan.data["stages"]}
    shards = (tiny_run.outcome.path("features") / "features" / "c").rglob("0")
    assert needed["features"] == sum(file.stat().st_size for file in shards if file.is_file())
    assert "will take" in plan.stdout

    copies = "features.views=[{kind: jittered, copies: 1000}]"
    huge = ["--set", "roi.roi_height=1024", "--set", "roi.roi_width=1024", "--set", copies]
    for command in ("plan", "run"):
        refused = here(command, tiny_run.config, *huge)
        assert refused.status == 2
        assert "features needs" in refused.stderr and "free" in refused.stderr


def make_unreadable(folder: Path) -> None:
    """Give all images the same stat but other bytes: whoever opened one would stumble."""
    images = list(folder.rglob("*.jpg"))
    assert images
    for path in images:
        stat = path.stat()
        with path.open("r+b") as file:
            file.write(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_another_learning_rate_opens_no_image_and_leaves_detector_and_features(copy: Path) -> None:
    assert here("plan", copy).status == 0, "the copied images are digested once, under their new path"
    make_unreadable(copy.parent)
    store = copy.parent / "store"
    kept = {kind: times(store / kind) for kind in ("detector", "features", "detections")}
    changed = ["--set", "reid.lr=0.02", "--until", "evaluation"]
    outcome = here("run", copy, *changed, json_to=copy.parent / "again.json")
    assert outcome.status == 0, outcome.stderr
    assert made(outcome) == AFTER_REID - {"report"}
    assert {kind: times(store / kind) for kind in kept} == kept


def test_a_new_test_image_leaves_training_cached(copy: Path) -> None:
    root = copy.parent / "prw"
    names = [str(cell.item().item()) for cell in loadmat(root / "frame_test.mat")["img_index_test"].ravel()]
    new = "c1s1_009999"
    shutil.copy(root / "frames" / f"{names[0]}.jpg", root / "frames" / f"{new}.jpg")
    shutil.copy(root / "annotations" / f"{names[0]}.jpg.mat", root / "annotations" / f"{new}.jpg.mat")
    cells = np.empty((len(names) + 1, 1), dtype=object)
    for row, name in enumerate([*names, new]):
        cells[row, 0] = np.array([[name]], dtype=object)
    savemat(root / "frame_test.mat", {"img_index_test": cells})
    outcome = here("run", copy, json_to=copy.parent / "again.json")
    assert outcome.status == 0, outcome.stderr
    assert made(outcome) == {"ingest:scenes", "detections", "gallery", "evaluation", "report"}


def test_another_protocol_leaves_training_cached(copy: Path) -> None:
    protocol = copy.parent / "prw" / "query_info.txt"
    *queries, _ = protocol.read_text().splitlines(keepends=True)
    protocol.write_text("".join(queries))
    ingested = here("run", copy, "--until", "ingest", json_to=copy.parent / "ingested.json")
    assert ingested.states == {"ingest:scenes": "made", "ingest:tracks": "cached"}
    plan = here("plan", copy, json_to=copy.parent / "plan.json")
    trained = ("detector", "features", "reid")
    assert {plan.states[stage] for stage in trained} == {"cached"}
    assert plan.states["evaluation"] == "runs"


def test_a_renamed_and_moved_dataset_leaves_everything_but_its_ingest(copy: Path) -> None:
    (copy.parent / "prw").rename(copy.parent / "moved")
    text = copy.read_text().replace("./prw", "./moved").replace("scenes:\n", "people:\n")
    copy.write_text(text.replace("dataset: scenes", "dataset: people"))
    outcome = here("run", copy, "--until", "evaluation", json_to=copy.parent / "again.json")
    assert outcome.status == 0, outcome.stderr
    assert made(outcome) == {"ingest:people"}


def test_force_makes_one_stage_and_from_makes_all_after_it(copy: Path) -> None:
    outcome = here("run", copy, "--force", "gallery", json_to=copy.parent / "again.json")
    assert outcome.status == 0, outcome.stderr
    assert made(outcome) == {"gallery"}, "the same embeddings again leave the evaluation cached"
    outcome = here("plan", copy, "--from", "gallery", json_to=copy.parent / "plan.json")
    assert {name for name, state in outcome.states.items() if state == "runs"} == AFTER_REID - {"reid"}


def test_a_damaged_shard_is_named_and_mended_alone(copy: Path, tiny_run: TinyRun) -> None:
    store, key = copy.parent / "store", tiny_run.outcome.path("features").name
    (shard,) = (path for path in (store / "features" / key / "features" / "c").rglob("0") if path.is_file())
    whole, stat = shard.read_bytes(), shard.stat()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    verify = ["features", "verify", key, "--store", store]
    named = here(*verify)
    assert named.status == 2 and "shard 0, rows 0 to" in named.stdout
    assert here("plan", copy, json_to=copy.parent / "p.json").states["features"] == "runs"
    wrong = here(*verify, "--mend", tiny_config_of_another_roi(copy))
    assert wrong.status == 2 and "does not build" in wrong.stderr
    mended = here(*verify, "--mend", copy)
    assert mended.status == 0, mended.stderr
    assert shard.read_bytes() == whole
    again = here("run", copy, json_to=copy.parent / "again.json")
    assert set(again.states.values()) == {"cached"}


def tiny_config_of_another_roi(config: Path) -> Path:
    other = config.with_name("other.yaml")
    other.write_text(config.read_text().replace("roi_height: 8", "roi_height: 16"))
    return other


def test_a_damaged_artifact_is_set_aside_and_made_again(copy: Path, tiny_run: TinyRun) -> None:
    store = copy.parent / "store"
    weights = store / "reid" / tiny_run.outcome.path("reid").name / "branch.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    outcome = here("run", copy, json_to=copy.parent / "again.json")
    assert outcome.status == 0, outcome.stderr
    assert made(outcome) == {"reid"}, "training again leads to the same bytes, so nothing below is touched"
    assert weights.read_bytes() == before
    assert "branch.safetensors does not match its digest" in outcome.stderr

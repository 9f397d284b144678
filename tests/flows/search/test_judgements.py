"""What a person said of matches: kept, found again, and exported."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_catalog.adapters.coco import Coco
from data_catalog.ingest import ingest_root
from data_catalog.snapshot import Snapshot
from flows.errors import ConfigError
from flows.search import build_index, open_index
from flows.search.confirmed import export_confirmed
from flows.search.index import Index
from flows.search.judgements import Judged, Judgements, beside
from flows.search.layout import Settings
from flows.search.model import GivenModel
from tests.flows.search.videos import encode


@pytest.fixture
def index(built: Path) -> Index:
    return open_index(built, "cpu")


@pytest.fixture
def judgements(tmp_path: Path) -> Judgements:
    return Judgements(tmp_path / "deep" / "mine.jsonl")


def test_the_last_verdict_on_a_shot_holds(index: Index, judgements: Judgements) -> None:
    judgements.add(index, "Ann", "confirmed", [3, 9])
    judgements.add(index, " Ann ", "rejected", [9, 5])
    judgements.add(index, "Bob", "confirmed", [5])
    judgements.add(index, "Ann", "withdrawn", [3])
    assert judgements.of(index, "Ann") == Judged((), (9, 5), (5, 9))
    assert judgements.of(index, "Bob") == Judged((5,))
    assert judgements.names() == ("Ann", "Bob") and len(judgements.read()) == 6
    assert beside(Path("/a/people")) == Path("/a/people.judgements.jsonl")


def test_judgements_find_their_shots_in_an_index_that_was_built_again(
    built: Path, index: Index, judgements: Judgements, model: GivenModel, tmp_path: Path
) -> None:
    judgements.add(index, "Ann", "confirmed", [7])
    judgements.add(index, "Ann", "rejected", [0])
    shutil.copytree(built.parent / "scenes" / "entrance", tmp_path / "z" / "entrance")
    shutil.copytree(built.parent / "scenes" / "entrance", tmp_path / "z" / "copies")
    (tmp_path / "z" / "entrance" / "20240501_120000.png").unlink()
    build_index(tmp_path / "again", [tmp_path / "z"], model, settings=index.description.settings)
    again = open_index(tmp_path / "again", "cpu")
    found = judgements.of(again, "Ann")
    assert len(found.confirmed) == 1 and again.box(found.confirmed[0]) == pytest.approx(index.box(7), abs=0.5)
    assert len(found.left_out) == 1 and not found.missing
    assert np.allclose(again.embedding(found.left_out[0]), index.embedding(0), atol=1e-2)
    (tmp_path / "z" / "copies" / "20240501_120000.png").unlink()
    build_index(tmp_path / "again", (), model)
    assert judgements.of(open_index(tmp_path / "again", "cpu"), "Ann").missing == 1


def test_rejecting_a_frame_of_a_video_rejects_its_track(model: GivenModel, tmp_path: Path) -> None:
    pixels = np.full((80, 120, 3), 100, np.uint8)
    pixels[20:60, 40:60] = (250, 40, 20)
    encode(tmp_path / "cam1.mp4", [pixels] * 4)
    settings = Settings(score_threshold=0.0, max_per_image=2, every=1)
    build_index(tmp_path / "index", [tmp_path / "cam1.mp4"], model, settings=settings)
    index, judgements = open_index(tmp_path / "index", "cpu"), Judgements(tmp_path / "j.jsonl")
    track = index.row(0)["track"]
    judgements.add(index, "Ann", "rejected", [0])
    found = judgements.of(index, "Ann")
    of_track = np.flatnonzero(index.table["track"].to_numpy() == track).tolist()
    assert found.rejected == (0,) and list(found.left_out) == of_track and len(of_track) > 1


def test_a_line_that_was_cut_short_is_left_out_and_damage_is_named(
    index: Index, judgements: Judgements
) -> None:
    judgements.add(index, "Ann", "confirmed", [3])
    whole = judgements.file.read_bytes()
    judgements.file.write_bytes(whole + whole[:40])
    assert len(judgements.read()) == 1
    judgements.add(index, "Ann", "confirmed", [4])
    assert judgements.of(index, "Ann").confirmed == (3, 4)
    judgements.file.write_bytes(whole.rstrip(b"\n"))
    judgements.add(index, "Ann", "confirmed", [5])
    assert judgements.of(index, "Ann").confirmed == (3, 5)
    judgements.file.write_bytes(whole + b'{"person": "Ann"}\n' + whole)
    with pytest.raises(ConfigError, match=r"line 2: at: Field required; correct or delete the line"):
        judgements.read()


def test_judgements_of_many_threads_are_all_kept(index: Index, judgements: Judgements) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: judgements.add(index, f"p{row}", "confirmed", [row]), range(24)))
    assert len(judgements.read()) == 24 and len(judgements.names()) == 24


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_a_name_that_cannot_be_one_is_refused(index: Index, judgements: Judgements, name: str) -> None:
    with pytest.raises(ConfigError, match="the name"):
        judgements.add(index, name, "confirmed", [3])
    with pytest.raises(ConfigError, match="the index has no person"):
        judgements.add(index, "Ann", "confirmed", [10**6])
    assert not judgements.read()


def test_confirmed_shots_are_a_dataset_with_identities(
    index: Index, judgements: Judgements, tmp_path: Path
) -> None:
    judgements.add(index, "Ann Ö", "confirmed", [0, 30])
    judgements.add(index, "Bob", "confirmed", [1, 0])
    judgements.add(index, "Bob", "rejected", [8])
    exported = export_confirmed(index, judgements, tmp_path / "out")
    assert (exported.people, exported.shots) == (2, 3) and "confirmed for Ann Ö, too" in exported.left_out[0]
    export_confirmed(index, judgements, tmp_path / "out")

    options = {"person_id": "person_id", "camera_id": "cam_id"}
    ingest_root(tmp_path / "out", Coco(), tmp_path / "snapshot", options=options)
    snapshot = Snapshot(tmp_path / "snapshot")
    boxes = snapshot.table("boxes", ["image_id", "x1", "y1", "x2", "y2", "person_id"]).to_pylist()
    known = {
        box["person_id"]: [box[c] for c in ("x1", "y1", "x2", "y2")] for box in boxes if box["person_id"]
    }
    assert known["Bob"] == pytest.approx(index.box(1), abs=1e-3)
    assert [box["person_id"] for box in boxes].count("Ann Ö") == 2 and len(boxes) == 8
    images = snapshot.table("images", ["rel_path", "camera_id", "width"]).to_pylist()
    assert {image["camera_id"] for image in images} == {1, 2} and len(images) == 2


def test_an_export_writes_frames_and_refuses_what_it_cannot_write(
    index: Index, judgements: Judgements, model: GivenModel, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no match is confirmed"):
        export_confirmed(index, judgements, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="not of an export"):
        export_confirmed(index, judgements, tmp_path / "full")

    pixels = np.full((80, 120, 3), 100, np.uint8)
    encode(tmp_path / "cam1.mp4", [pixels, 255 - pixels])
    settings = Settings(score_threshold=0.0, max_per_image=2, every=1)
    build_index(tmp_path / "video", [tmp_path / "cam1.mp4"], model, settings=settings)
    video = open_index(tmp_path / "video", "cpu")
    last = len(video) - 1
    judgements.add(video, "Ann", "confirmed", [last])
    exported = export_confirmed(video, judgements, tmp_path / "out")
    assert exported.shots == 1
    (frame,) = (tmp_path / "out" / "images").iterdir()
    with Image.open(frame) as image:
        assert image.size == (120, 80) and abs(np.asarray(image).mean() - 155) < 3
    body = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert [each["person_id"] for each in body["annotations"]].count("Ann") == 1
    (tmp_path / "cam1.mp4").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="has changed since it was indexed"):
        export_confirmed(video, judgements, tmp_path / "out")
    assert (tmp_path / "out" / "images" / frame.name).exists()

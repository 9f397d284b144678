"""Published annotations, written again as JDE, VOC and CVAT hold them, give the boxes that they gave."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_catalog.snapshot import Snapshot

BOX = re.compile(r"\(Xmin, Ymin\) - \(Xmax, Ymax\) : \((\d+), (\d+)\) - \((\d+), (\d+)\)")
Key = tuple[str, str | None]


def copy(source: Path, target: Path) -> None:
    """A copy that may be written to, whatever the original allows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def by_frame_and_track(snapshot: Snapshot) -> dict[Key, list[float]]:
    """Boxes of known people by their frame's number and the last part of their identity."""
    frames = {
        i["image_id"]: f"{i['sequence_id']}/{i['frame_index']}" for i in snapshot.table("images").to_pylist()
    }
    boxes = [box for box in snapshot.table("boxes").to_pylist() if box["person_id"] is not None]
    return {
        (frames[box["image_id"]].rpartition("/")[2], box["person_id"].rpartition("/")[2]): [
            box["x1"], box["y1"], box["x2"], box["y2"]
        ]
        for box in boxes
    }  # fmt: skip


@pytest.fixture
def mot(shared: Path, tmp_path: Path) -> tuple[Path, list[list[str]]]:
    """A folder with the frames of MOT17-04, and the rows of its people to find."""
    source = shared / "data" / "MOT17" / "train" / "MOT17-04-FRCNN"
    for image in sorted((source / "img1").glob("*.jpg")):
        copy(image, tmp_path / "root" / "images" / image.name)
    rows = [line.split(",") for line in (source / "gt" / "gt.txt").read_text().split()]
    return tmp_path / "root", [row for row in rows if row[6:8] == ["1", "1"]]


@pytest.fixture
def expected(shared: Path, tmp_path: Path, ingest_into: Any) -> dict[Key, list[float]]:
    """What the adapter of MOT17 reads of that sequence."""
    source = shared / "data" / "MOT17" / "train" / "MOT17-04-FRCNN"
    for path in ("seqinfo.ini", "gt/gt.txt", *(f"img1/{each.name}" for each in (source / "img1").iterdir())):
        copy(source / path, tmp_path / "mot" / "train" / source.name / path)
    return by_frame_and_track(ingest_into(tmp_path / "mot", "mot17"))


def test_pennfudan_as_voc(shared: Path, tmp_path: Path, ingest_into: Any) -> None:
    source = shared / "data" / "PennFudanPed"
    expected = {}
    for path in sorted((source / "Annotation").glob("*.txt")):
        found = BOX.findall(path.read_text())
        expected[f"JPEGImages/{path.stem}.jpg"] = [
            [int(a) - 1, int(b) - 1, int(c), int(d)] for a, b, c, d in found
        ]
        copy(
            source / "JPEGImages" / f"{path.stem}.jpg", tmp_path / "root" / "JPEGImages" / f"{path.stem}.jpg"
        )
        objects = "".join(
            f"<object><name>person</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
            f"<ymax>{d}</ymax></bndbox></object>"
            for a, b, c, d in found
        )
        file = tmp_path / "root" / "Annotations" / f"{path.stem}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<annotation><filename>{path.stem}.png</filename>{objects}</annotation>")
    snapshot = ingest_into(tmp_path / "root", "voc")
    assert len(snapshot.table("images")) == 170
    assert len(snapshot.table("boxes")) == 423
    assert len(snapshot.table("rejects")) == 0
    read: dict[str, list[list[float]]] = {}
    for box in snapshot.table("boxes").to_pylist():
        read.setdefault(box["image_id"], []).append([box["x1"], box["y1"], box["x2"], box["y2"]])
    assert read == expected


def test_mot17_as_cvat_video(
    mot: tuple[Path, list[list[str]]], expected: dict[Key, list[float]], ingest_into: Any
) -> None:
    root, rows = mot
    tracks: dict[str, list[str]] = {}
    for frame, track, x, y, w, h, *_ in rows:
        x1, y1 = float(x) - 1, float(y) - 1
        tracks.setdefault(track, []).append(
            f'<box frame="{int(frame) - 1}" keyframe="1" outside="0" xtl="{x1:.2f}" ytl="{y1:.2f}" '
            f'xbr="{x1 + float(w):.2f}" ybr="{y1 + float(h):.2f}" z_order="0"></box>'
        )
    body = "".join(f'<track id="{t}" label="person">{"".join(boxes)}</track>' for t, boxes in tracks.items())
    count = len(list((root / "images").iterdir()))
    task = f"<size>{count}</size><start_frame>0</start_frame><stop_frame>{count - 1}</stop_frame>"
    (root / "annotations.xml").write_text(
        f"<annotations><meta><task>{task}</task></meta>{body}</annotations>"
    )
    snapshot = ingest_into(root, "cvat")
    assert len(snapshot.table("images")) == count
    found = {(str(int(frame) + 1), t): box for (frame, t), box in by_frame_and_track(snapshot).items()}
    assert found.keys() == expected.keys()
    for key, box in expected.items():
        np.testing.assert_allclose(found[key], box, atol=0.005)


def test_mot17_as_jde(
    mot: tuple[Path, list[list[str]]], expected: dict[Key, list[float]], ingest_into: Any
) -> None:
    root, rows = mot
    (root / "images" / "s1" / "img1").mkdir(parents=True)
    for path in (root / "images").glob("*.jpg"):
        path.rename(root / "images" / "s1" / "img1" / path.name)
    width, height = Image.open(next((root / "images" / "s1" / "img1").iterdir())).size
    for frame, track, *box in rows:
        x, y, w, h = (float(value) for value in box[:4])
        file = root / "labels_with_ids" / "s1" / "img1" / f"{int(frame):06d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        fractions = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
        with file.open("a") as text:  # as JDE's own script: MOT's corners from 1 are taken as they are
            text.write(" ".join(["0", track, *(f"{value:.6f}" for value in fractions)]) + "\n")
    snapshot = ingest_into(root, "jde")
    assert set(snapshot.table("images")["split"].to_pylist()) == {"train"}  # s1 is a sequence
    found = by_frame_and_track(snapshot)
    assert found.keys() == expected.keys()
    for key, box in expected.items():
        np.testing.assert_allclose(np.array(found[key]) - 1, box, atol=0.005)

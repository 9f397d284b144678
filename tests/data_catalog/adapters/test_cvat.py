"""CVAT XML 1.1, for images and for video, as jobs, tasks and projects are exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError

WIDTH, HEIGHT = 64, 48
BOX = '<box label="person" occluded="0" xtl="{}" ytl="5.00" xbr="30.00" ybr="40.00" z_order="0">{}</box>'


def document(body: str, *, meta: str = "", subset: str = "") -> str:
    task = (
        f"<task><id>1</id><name>t</name><size>3</size><mode>interpolation</mode><subset>{subset}</subset>"
        "<start_frame>0</start_frame><stop_frame>2</stop_frame><frame_filter></frame_filter>"
        f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size><labels><label>"
        "<name>person</name><attributes><attribute><name>id</name></attribute></attributes></label></labels>"
        "<segments><segment><id>9</id><start>0</start><stop>2</stop></segment></segments></task>"
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>{meta or task}'
        f"<dumped>2026-01-01</dumped></meta>\n{body}\n</annotations>\n"
    )


def image(name: str, *shapes: str, more: str = "") -> str:
    inner = "\n".join(shapes)
    return f'<image id="0" name="{name}" {more} width="{WIDTH}" height="{HEIGHT}">\n{inner}\n</image>'


def track(number: int, frames: dict[int, str], label: str = "person", more: str = "") -> str:
    boxes = "".join(
        f'<box frame="{frame}" keyframe="1" outside="{state}" xtl="{10 + frame}" ytl="5" xbr="30" '
        'ybr="40" z_order="0"></box>'
        for frame, state in frames.items()
    )
    return f'<track id="{number}" label="{label}" source="manual" {more}>{boxes}</track>'


def put(root: Path, path: str, text: str | None = None) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        Image.new("RGB", (WIDTH, HEIGHT)).save(file)
    else:
        file.write_text(text)


def corners(table: Any) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)


def rejects(snapshot: Any) -> set[tuple[int, str]]:
    return {(r["source_row"], r["code"]) for r in snapshot.table("rejects").to_pylist()}


def test_shapes_of_images(tmp_path: Path, ingest_into: Any) -> None:
    put(tmp_path, "images/a.jpg")
    put(tmp_path, "images/empty.jpg")
    shapes = [
        BOX.format("10.50", '<attribute name="id">7</attribute>'),
        '<polygon label="Pedestrian" points="1.00,2.00;9.00,4.00;5.00,8.00" z_order="0"></polygon>',
        '<mask label="person" rle="1, 2" left="3" top="4" width="5" height="6" z_order="0"></mask>',
        '<ellipse label="person" cx="20.00" cy="20.00" rx="4.00" ry="-6.00" z_order="0"></ellipse>',
        '<box label="person" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.00" z_order="0"></box>',
        '<skeleton label="person" z_order="0"><points label="nose" points="1.0,1.0"></points></skeleton>',
        '<box label="car" xtl="1" ytl="1" xbr="2" ybr="2"></box>',
        '<box label="person" xtl="1" ytl="1" xbr="2"></box>',
        '<polygon label="person" points="1.00,x;2,2"></polygon>',
        '<box label="person" xtl="5" ytl="1" xbr="2" ybr="2"></box>',
        '<box label="crowd" xtl="1" ytl="1" xbr="2" ybr="2"></box>',
    ]
    body = image("a.jpg", *shapes) + image("empty.jpg") + image("gone.jpg", shapes[0])
    put(tmp_path, "annotations.xml", document(body))
    snapshot = ingest_into(tmp_path, "cvat", ignore="Crowd", person_id="attributes.id")
    boxes = snapshot.table("boxes").to_pylist()
    np.testing.assert_allclose(
        corners(snapshot.table("boxes")),
        [[10.5, 5, 30, 40], [1, 2, 9, 8], [3, 4, 8, 10], [16, 14, 24, 26], [15, 5, 25, 25], [1, 1, 2, 2]],
    )
    assert [(b["source_row"], b["ignore"], b["person_id"]) for b in boxes] == [
        (1, False, "7"), (2, False, None), (3, False, None), (4, False, None), (5, False, None),
        (11, True, None),
    ]  # fmt: skip
    assert rejects(snapshot) == {
        (6, "no_area"), (7, "not_a_person"), (8, "row_unreadable"), (9, "row_unreadable"), (10, "box_empty"),
        (11, "image_missing"), (12, "image_rejected"),
    }  # fmt: skip
    assert len(snapshot.table("images")) == 2
    with pytest.raises(CatalogError, match="none of its 6 people has the attribute 'pid'"):
        ingest_into(tmp_path, "cvat", person_id="pid")


def test_tracks_of_a_video(tmp_path: Path, ingest_into: Any) -> None:
    for frame in range(3):
        put(tmp_path, f"images/frame_{frame:06d}.PNG")
    body = track(0, {0: "0", 1: "0", 2: "1"}) + track(1, {1: "0"}) + track(2, {0: "0"}, label="car")
    put(tmp_path, "annotations.xml", document(body + track(3, {7: "0"}), subset="Validation"))
    snapshot = ingest_into(tmp_path, "cvat")
    images = snapshot.table("images").to_pylist()
    assert [(i["frame_index"], i["sequence_id"], i["split"]) for i in images] == [
        (n, "annotations", "val") for n in range(3)
    ]
    boxes = snapshot.table("boxes").to_pylist()
    assert [(b["x1"], b["person_id"], b["person_scope"], b["source_row"]) for b in boxes] == [
        (10, "annotations/0", "sequence", 1),
        (11, "annotations/0", "sequence", 2),
        (11, "annotations/1", "sequence", 4),
    ]
    assert rejects(snapshot) == {(5, "not_a_person"), (6, "image_missing")}


def test_a_video_without_its_images(tmp_path: Path, ingest_into: Any) -> None:
    put(tmp_path, "annotations.xml", document(track(0, {1: "0"})))
    snapshot = ingest_into(tmp_path, "cvat", images=False)
    assert [(i["rel_path"], i["width"]) for i in snapshot.table("images").to_pylist()] == [
        (f"images/frame_{n:06d}.PNG", WIDTH) for n in range(3)
    ]
    with pytest.raises(CatalogError, match="frame_000000"):
        ingest_into(tmp_path, "cvat")


@pytest.mark.parametrize(
    ("names", "of_frame_1"),
    [
        (["000001.jpg", "000002.jpg", "000003.jpg"], "000002.jpg"),  # ffmpeg counts from 1
        (["out_0.jpg", "out_1.jpg", "out_2.jpg"], "out_1.jpg"),
        (["x9.jpg", "x10.jpg", "x11.jpg"], "x10.jpg"),
        (["a.jpg", "b.jpg", "c.jpg"], "b.jpg"),
        (["000000.jpg", "000001.jpg"], "000001.jpg"),  # not as many as frames: the number counts
    ],
)
def test_frames_that_others_named(
    tmp_path: Path, ingest_into: Any, names: list[str], of_frame_1: str
) -> None:
    for name in names:
        put(tmp_path, f"images/{name}")
    put(tmp_path, "annotations.xml", document(track(0, {1: "0"})))
    snapshot = ingest_into(tmp_path, "cvat")
    assert snapshot.table("boxes")["image_id"].to_pylist() == [f"images/{of_frame_1}"]
    put(tmp_path, "images/d.jpg")
    put(tmp_path, "images/e.jpg")
    with pytest.raises(CatalogError, match=r"cannot tell which of \d images is which frame"):
        ingest_into(tmp_path, "cvat")


def test_a_project(tmp_path: Path, ingest_into: Any) -> None:
    meta = (
        "<project><id>5</id><tasks>"
        "<task><id>11</id><size>1</size><subset>Train</subset><start_frame>0</start_frame><stop_frame>0</stop_frame></task>"
        "<task><id>12</id><size>1</size><subset>Test</subset></task></tasks></project>"
    )
    for subset in ("Train", "Test"):
        put(tmp_path, f"images/{subset}/frame_000000.PNG")
    body = track(0, {0: "0"}, more='task_id="11" subset="Train"') + track(
        1, {0: "0"}, more='task_id="12" subset="Test"'
    )
    put(tmp_path, "annotations.xml", document(body, meta=meta))
    boxes = ingest_into(tmp_path, "cvat").table("boxes").to_pylist()
    assert [(b["split"], b["person_id"]) for b in boxes] == [
        ("train", "annotations/task_11/0"),
        ("test", "annotations/task_12/1"),
    ]
    same = document(body.replace('"Test"', '"Train"'), meta=meta.replace("Test", "Train"))
    put(tmp_path, "annotations.xml", same)
    with pytest.raises(CatalogError, match="several tasks of subset 'Train'"):
        ingest_into(tmp_path, "cvat")
    body = "".join(
        image("frame_000000", BOX.format(10, ""), more=f'subset="{s}" task_id="{t}"')
        for s, t in (("Train", 11), ("Test", 12))
    )
    put(tmp_path, "annotations.xml", document(body, meta=meta))
    found = {i["rel_path"]: i["split"] for i in ingest_into(tmp_path, "cvat").table("images").to_pylist()}
    assert found == {"images/Train/frame_000000.PNG": "train", "images/Test/frame_000000.PNG": "test"}


def test_a_folder_per_task(tmp_path: Path, ingest_into: Any) -> None:
    for task in ("cam1", "cam2", "test/cam3"):
        put(tmp_path, f"{task}/images/frame_000000.PNG")
        put(tmp_path, f"{task}/annotations.xml", document(track(0, {0: "0"})))
    boxes = ingest_into(tmp_path, "cvat").table("boxes").to_pylist()
    assert {b["person_id"]: b["split"] for b in boxes} == {
        "cam1/0": "train",
        "cam2/0": "train",
        "test/cam3/0": "test",
    }


def test_refusals_name_the_layouts_and_what_is_near(tmp_path: Path) -> None:
    adapter = load_adapter("cvat")
    put(tmp_path, "voc/a.xml", "<annotation/>")
    with pytest.raises(CatalogError, match=r"annotations\.xml.*adapter voc"):
        adapter.discover(tmp_path / "voc", {})
    put(tmp_path, "zip/task.zip", "PK")
    with pytest.raises(CatalogError, match="unpack it"):
        adapter.discover(tmp_path / "zip", {})
    put(tmp_path, "junk/annotations.xml", "junk")
    with pytest.raises(CatalogError, match="not readable as XML"):
        adapter.discover(tmp_path / "junk", {})


def test_a_file_that_ends_early_is_one_message(tmp_path: Path, ingest_into: Any) -> None:
    put(tmp_path, "annotations.xml", document(track(0, {0: "0"}))[:-30])
    with pytest.raises(CatalogError, match=r"annotations\.xml: not readable as CVAT's XML: line \d+"):
        ingest_into(tmp_path, "cvat", images=False)


def test_many_shapes_come_in_parts(tmp_path: Path) -> None:
    with (tmp_path / "annotations.xml").open("w") as file:
        file.write("<annotations>")
        for number in range(40):
            file.write(f'<track id="{number}" label="person">')
            for frame in range(1_000):
                file.write(
                    f'<box frame="{frame}" outside="0" xtl="1" ytl="1" xbr="{number + 2}" ybr="9"></box>'
                )
            file.write("</track>")
        file.write("</annotations>")
    adapter = load_adapter("cvat")
    (unit,) = adapter.discover(tmp_path, {}).units
    parts = [rows.tables() for rows in adapter.read(tmp_path, unit, {})]
    assert len(parts) > 1
    assert sum(len(part.boxes) for part in parts) == 40_000
    assert sum(len(part.images) for part in parts) == 1_000


coordinate = st.floats(0, 30).map(lambda value: round(value, 2))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=5))
def test_what_is_written_is_read(tmp_path: Path, people: list[tuple[float, float, float, float]]) -> None:
    shapes = [
        f'<box label="person" xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + w + 1:.2f}" ybr="{y + h + 1:.2f}"></box>'
        for x, y, w, h in people
    ]
    put(tmp_path, "annotations.xml", document(image("a.jpg", *shapes)))
    adapter = load_adapter("cvat")
    (rows,) = adapter.read(tmp_path, adapter.discover(tmp_path, {}).units[0], {})
    expected = np.array([[x, y, x + w + 1, y + h + 1] for x, y, w, h in people]).reshape(-1, 4)
    np.testing.assert_allclose(corners(rows.tables().boxes).reshape(-1, 4), expected, atol=0.006)

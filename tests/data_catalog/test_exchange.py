"""Snapshots written for other programs and read back: nothing is lost that a layout can hold, and what it
cannot hold is counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.adapters.coco_catalog import BOX_KEYS
from data_catalog.adapters.protocol import Layout, Options, Unit
from data_catalog.errors import CatalogError
from data_catalog.exchange.coco import export_coco_folder
from data_catalog.exchange.mot import export_mot
from data_catalog.exchange.parts import Exported, ExportPart, parts_of
from data_catalog.exchange.yolo import export_yolo
from data_catalog.ingest import ingest_root
from data_catalog.rows import Rows
from data_catalog.snapshot import Snapshot
from data_catalog.views import View
from tests.memory import folder_in_memory

SIZES = [(40, 30), (64, 48)]
COCO_COLUMNS = ["image_id", "split", "x1", "y1", "x2", "y2", "ignore", *BOX_KEYS.values()]
PROPERTY = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass
class Given:
    """An adapter of rows that are given, with image files of their sizes."""

    images: list[dict[str, Any]]
    boxes: list[dict[str, Any]]
    name = "given"
    version = 1
    options: Mapping[str, str] = field(default_factory=dict)

    def discover(self, root: Path, options: Options) -> Layout:
        splits = dict.fromkeys(image["split"] for image in self.images)
        return Layout(tuple(Unit(f"of-{split}", split, has_file=False) for split in splits))

    def read(self, root: Path, unit: Unit, options: Options) -> Iterator[Rows]:
        rows = Rows(unit.source)
        images = [image for image in self.images if image["split"] == unit.split]
        names = {image["image_id"] for image in images}
        boxes = [box for box in self.boxes if box["image_id"] in names]
        rows.images(**{key: [image[key] for image in images] for key in images[0]})
        if boxes:
            columns = {key: [box[key] for box in boxes] for key in boxes[0]}
            rows.boxes(split=unit.split, source_row=range(1, len(boxes) + 1), **columns)
        yield rows


def snapshot_of(adapter: Given, folder: Path) -> Snapshot:
    for image in adapter.images:
        path = folder / "root" / image["rel_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (image["width"], image["height"])).save(path)
    work = folder / "snapshot"
    work.mkdir(parents=True)
    ingest_root(folder / "root", adapter, work, read_images=False, allow_empty=True)  # type: ignore[arg-type]
    return Snapshot(work)


def parts_in(snapshot: Snapshot, folder: Path) -> list[ExportPart]:
    splits = sorted(snapshot.table("images", ["split"])["split"].unique().to_pylist())
    return parts_of([View(snapshot, split) for split in splits], [folder / "root"] * len(splits))


def read_back(folder: Path, adapter: str, work: Path, **options: str) -> Snapshot:
    work.mkdir()
    ingest_root(folder, load_adapter(adapter), work, options=options, allow_empty=True)
    return Snapshot(work)


def rows(snapshot: Snapshot, table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    found = snapshot.table(table).select(columns).to_pylist()
    return sorted((tuple(map(plain, row.values())) for row in found), key=repr)


def plain(value: Any) -> Any:
    """A billionth of a pixel is not compared: MOT counts pixels from 1."""
    return round(value, 9) + 0.0 if isinstance(value, float) else value


def image_of(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The image's name and split."""
    return row[:2]


def pixel(low: int, high: int) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32, allow_subnormal=False)


names = st.text("abcäö19_- ", min_size=1, max_size=6).map(str.strip).filter(bool)
maybe_names = st.none() | names


@st.composite
def datasets(draw: st.DrawFn, *, sequences: bool = False) -> Given:
    """Images of three splits, with boxes within and beyond them; with `sequences`, as a tracker has them."""
    images, boxes = [], []
    for number in range(draw(st.integers(1, 4))):
        width, height = draw(st.sampled_from(SIZES))
        split = draw(st.sampled_from(["train", "test", "night"]))
        sequence = f"{split}-{draw(st.sampled_from('ab'))}" if sequences else draw(maybe_names)
        image_id = f"{sequence}/{number:06d}" if sequences else f"{number} {draw(names)}"
        folder = draw(st.sampled_from(["", "images/", "deep/er/", "labels/"]))
        images.append(
            {
                "image_id": image_id,
                "rel_path": f"{folder}{number:03d}.png",
                "split": split,
                "width": width,
                "height": height,
                "camera_id": draw(st.none() | st.integers(0, 99)),
                "sequence_id": sequence,
                "frame_index": number if sequences else draw(st.none() | st.integers(0, 10**6)),
            }
        )
        for _ in range(draw(st.integers(0, 3))):
            x1, y1 = draw(pixel(-20, 60)), draw(pixel(-20, 44))
            ignore = draw(st.booleans())
            raw = draw(st.integers(0, 3)) if sequences else draw(names)
            known = not ignore and draw(st.booleans())
            visible = draw(st.none() | st.tuples(*[pixel(0, 30)] * 4))
            boxes.append(
                {
                    "image_id": image_id,
                    "xyxy": [x1, y1, x1 + draw(pixel(1, 30)), y1 + draw(pixel(1, 30))],
                    "category": draw(st.sampled_from(["person", "rider", "static_person", "crowd"])),
                    "category_raw": draw(st.none() | st.integers(0, 9)),
                    "ignore": ignore,
                    "ignore_reason": draw(st.sampled_from([None, "flag_0", "crowd"])) if ignore else None,
                    "person_id": (f"{sequence}/{raw}" if sequences else raw) if known else None,
                    "person_id_raw": str(raw),
                    "person_scope": "sequence" if sequences and known else None,
                    "visibility": draw(st.none() | st.floats(0, 1, width=32)),
                    **{
                        f"visible_{side}": None if visible is None else visible[at]
                        for at, side in enumerate(("x1", "y1", "x2", "y2"))
                    },
                    "hard": draw(st.none() | st.booleans()),
                }
            )
    return Given(images, boxes)


@pytest.mark.parametrize("layout", ["coco", "fiftyone"])
@given(dataset=datasets())
@PROPERTY
def test_coco_holds_every_column_of_images_and_boxes(layout: Any, dataset: Given) -> None:
    with tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
        place = Path(folder)
        snapshot = snapshot_of(dataset, place)
        exported = export_coco_folder(parts_in(snapshot, place), place / "out", "link", layout=layout)
        again = read_back(place / "out", "coco", place / "again", columns="catalog")
        assert not exported.lost and (exported.images, exported.boxes) == (
            len(dataset.images),
            snapshot.count("boxes"),
        )
        images = [
            "image_id",
            "split",
            "width",
            "height",
            "camera_id",
            "sequence_id",
            "frame_index",
            "n_boxes",
        ]
        assert rows(again, "images", images) == rows(snapshot, "images", images)
        assert rows(again, "boxes", COCO_COLUMNS) == rows(snapshot, "boxes", COCO_COLUMNS)
        assert not len(again.table("rejects"))


@given(dataset=datasets())
@PROPERTY
def test_yolo_holds_splits_and_boxes_within_their_images(dataset: Given) -> None:
    with tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
        place = Path(folder)
        snapshot = snapshot_of(dataset, place)
        exported = export_yolo(parts_in(snapshot, place), place / "out", "copy")
        again = read_back(place / "out", "yolo", place / "again")
        kept, cut = [], 0
        images = {image["image_id"]: image for image in dataset.images}
        boxes = snapshot.table("boxes").to_pylist()
        for box in boxes:
            image = images[box["image_id"]]
            given = np.float32([box[side] for side in ("x1", "y1", "x2", "y2")])
            x1, y1, x2, y2 = np.clip(given, 0, np.float32([image["width"], image["height"]] * 2))
            if not box["ignore"]:
                cut += (x1, y1, x2, y2) != tuple(given)
                kept.append((Path(image["rel_path"]).name, image["split"], x1, y1, x2, y2))
        found = again.table("boxes").to_pylist()
        read = [(Path(b["image_id"]).name, b["split"], b["x1"], b["y1"], b["x2"], b["y2"]) for b in found]
        assert len(read) == len(kept) == exported.boxes
        # Boxes of an image keep their order; two that only differ by rounding have no other.
        for one, other in zip(sorted(read, key=image_of), sorted(kept, key=image_of), strict=True):
            assert one[:2] == other[:2] and one[2:] == pytest.approx(other[2:], abs=2e-5)
        sizes = ["split", "width", "height", "n_boxes"]
        assert len(rows(again, "images", sizes)) == len(dataset.images)
        assert sum(box["ignore"] for box in boxes) == exported.lost.get("ignore regions, left out", 0)
        assert exported.lost.get("boxes beyond their image, clipped to it", 0) == cut
        named = sum(box["person_id"] is not None for box in boxes)
        assert exported.lost.get("boxes.person_id", 0) == named
        assert not len(again.table("rejects"))


@given(dataset=datasets(sequences=True))
@PROPERTY
def test_mot_holds_sequences_frames_tracks_boxes_and_ignore_regions(dataset: Given) -> None:
    with tempfile.TemporaryDirectory(dir=folder_in_memory()) as folder:
        place = Path(folder)
        snapshot = snapshot_of(dataset, place)
        exported = export_mot(parts_in(snapshot, place), place / "out", "link")
        again = read_back(place / "out", "mot17", place / "again")
        images = ["image_id", "split", "width", "height", "sequence_id", "frame_index", "n_boxes"]
        assert rows(again, "images", images) == rows(snapshot, "images", images)
        held = ["image_id", "split", "x1", "y1", "x2", "y2", "ignore", "person_id", "person_scope"]
        assert rows(again, "boxes", held) == rows(snapshot, "boxes", held)
        known = {row[:6]: row[6] for row in rows(again, "boxes", [*held[:6], "visibility"])}
        for *box, visibility in rows(snapshot, "boxes", [*held[:6], "visibility"]):
            assert (
                known[tuple(box)] == (1 if visibility is None else visibility) or len(known) < exported.boxes
            )
        unseen = snapshot.table("boxes")["visibility"].null_count
        assert exported.lost.get("visibilities that are not known, which become 1", 0) == unseen
        unknown = [row for row in snapshot.table("boxes").to_pylist() if row["person_id"] is None]
        unnamed = sum(not row["ignore"] and row["person_id_raw"] != "-1" for row in unknown)
        assert exported.lost.get("boxes.person_id_raw", 0) == unnamed
        assert "names of images, which become their sequence's and frame's" not in exported.lost
        assert not len(again.table("rejects"))


def one_image(**columns: Any) -> Given:
    image = {"image_id": "a", "rel_path": "a.png", "split": "train", "width": 40, "height": 30, **columns}
    return Given([image], [])


def test_identities_of_a_whole_dataset_are_numbered_and_told_in_mot(tmp_path: Path) -> None:
    images = [
        {
            **one_image().images[0],
            "image_id": f"{s}{n}",
            "rel_path": f"{s}{n}.png",
            "sequence_id": s,
            "frame_index": n,
        }
        for s in "ab"
        for n in (1, 2)
    ]
    box = {"xyxy": [1, 2, 11, 22], "person_scope": "dataset"}
    boxes = [{**box, "image_id": image["image_id"], "person_id": "Zoë"} for image in images]
    snapshot = snapshot_of(Given(images, boxes), tmp_path)
    exported = export_mot(parts_in(snapshot, tmp_path), tmp_path / "out", "link")
    assert exported.lost["identities of the whole dataset, which hold in each sequence alone"] == 1
    again = read_back(tmp_path / "out", "mot17", tmp_path / "again")
    assert sorted(set(again.table("boxes")["person_id"].to_pylist())) == ["a/1", "b/1"]


def two_parts(folder: Path, first: Given, second: Given, name: str) -> list[ExportPart]:
    """Training images of two datasets, `given` and one of that name."""
    snapshots = [snapshot_of(each, folder / str(at)) for at, each in enumerate((first, second), start=1)]
    renamed = folder / "2" / "snapshot" / "datasets.parquet"
    table = pa.parquet.read_table(renamed)
    pa.parquet.write_table(table.set_column(0, table.schema.field(0), pa.array([name])), renamed)
    views = [View(Snapshot(each.path), "train") for each in snapshots]
    return parts_of(views, [folder / "1" / "root", folder / "2" / "root"])


def test_two_datasets_stay_apart(tmp_path: Path) -> None:
    parts = two_parts(tmp_path, one_image(), one_image(camera_id=7), "other")
    exported: Exported = export_coco_folder(parts, tmp_path / "out", "copy")
    again = read_back(tmp_path / "out", "coco", tmp_path / "again", columns="catalog")
    assert rows(again, "images", ["image_id", "camera_id"]) == [("given/a", None), ("other/a", 7)]
    assert exported.images == 2


@pytest.mark.parametrize("images", ["link", "copy", "none"])
def test_no_dataset_overwrites_another(images: Any, tmp_path: Path) -> None:
    """Both sequences would be the folder given-x-s."""
    frame = {"frame_index": 1}
    ours, others = one_image(sequence_id="x-s", **frame), one_image(sequence_id="s", width=41, **frame)
    parts = two_parts(tmp_path, ours, others, "given-x")
    with pytest.raises(CatalogError, match="would have this name"):
        export_mot(parts, tmp_path / "out", images)


def test_an_image_that_two_rows_name_is_written_once(tmp_path: Path) -> None:
    twice = Given([*one_image().images, {**one_image().images[0], "image_id": "b"}], [])
    for images in ("link", "copy"):
        parts = parts_in(snapshot_of(twice, tmp_path / images), tmp_path / images)
        exported = export_coco_folder(parts, tmp_path / images / "out", images)  # type: ignore[arg-type]
        assert exported.images == 2 and [*(tmp_path / images / "out" / "images").iterdir()]


@pytest.mark.parametrize(
    ("images", "write", "message"),
    [
        (
            [{"rel_path": "a.png"}, {"image_id": "b", "rel_path": "a.jpg"}],
            export_yolo,
            "share the label file",
        ),
        ([{"width": None, "height": None}], export_yolo, "sizes of 1 images are not known"),
        ([{"sequence_id": "MOT17-02-DPM", "frame_index": 1}], export_mot, "cannot be the name of a folder"),
        (
            [
                {"sequence_id": "s", "frame_index": 1},
                {"image_id": "b", "rel_path": "b.png"} | {"sequence_id": "s", "frame_index": 1},
            ],
            export_mot,
            "both frame 1 of s",
        ),
    ],
)
def test_what_cannot_be_written_is_told(
    images: list[dict[str, Any]], write: Any, message: str, tmp_path: Path
) -> None:
    every = [{**one_image().images[0], **image} for image in images]
    work = tmp_path / "snapshot"
    work.mkdir()
    ingest_root(tmp_path, Given(every, []), work, read_images=False, allow_empty=True)  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match=message):
        write(parts_in(Snapshot(work), tmp_path), tmp_path / "out", "none")


def test_a_missing_image_and_a_split_twice_are_told(tmp_path: Path) -> None:
    snapshot = snapshot_of(one_image(), tmp_path)
    (tmp_path / "root" / "a.png").unlink()
    with pytest.raises(CatalogError, match=r"image .*a\.png does not exist"):
        export_mot(parts_in(snapshot, tmp_path), tmp_path / "out", "link")
    with pytest.raises(CatalogError, match="given/train is given twice"):
        parts_of([View(snapshot, "train")] * 2, [None, None])
    with pytest.raises(CatalogError, match="not known on this machine"):
        export_mot(parts_of([View(snapshot, "train")], [None]), tmp_path / "out2", "copy")


def test_the_catalogs_columns_are_read_from_its_own_files_only(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [], "annotations": []}'
    )
    with pytest.raises(CatalogError, match=r"a\.json: option columns=catalog: image_name"):
        read_back(tmp_path, "coco", tmp_path / "again", columns="catalog")
    with pytest.raises(CatalogError, match="columns=catalog and person_id: give one"):
        read_back(tmp_path, "coco", tmp_path / "third", columns="catalog", person_id="pid")

"""MOT as its releases and exporters write it: layouts, splits, numbers of frames, ways to write a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_catalog.adapters import load_adapter
from data_catalog.adapters.motchallenge import TruthRow, read_rows
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from data_catalog.rows import Rows
from data_catalog.snapshot import ingest_findings

INFO = "[Sequence]\nname={name}\nimDir=img1\nseqLength=2\nimWidth=64\nimHeight=48\nimExt=.jpg\n"
TRUTH = "1,1,5,5,9,20,1,1,1\n1,2,25,5,9,20,1,1,1\n2,1,6,5,9,20,1,1,1\n"


def sequence(
    folder: Path,
    *,
    truth: str | None = TRUTH,
    names: tuple[str, ...] = ("000001.jpg", "000002.jpg"),
    info: bool = True,
    labels: str | None = None,
) -> None:
    (folder / "img1").mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (64, 48), (number, number, 9)).save(folder / "img1" / name)
    if info:
        (folder / "seqinfo.ini").write_text(INFO.format(name=folder.name))
    if truth is not None:
        (folder / "gt").mkdir()
        (folder / "gt" / "gt.txt").write_text(truth)
    if labels is not None:
        (folder / "gt" / "labels.txt").write_text(labels)


LAYOUTS = [
    ({"train/MOT20-01": "train", "test/MOT20-04": "test"}, "MOT20"),
    ({"train/dancetrack0001": "train", "val/dancetrack0004": "val"}, "DanceTrack"),
    ({"dataset/train/v_00HRwkvvjtQ_c001": "train", "dataset/val/v_00HRwkvvjtQ_c003": "val"}, "SportsMOT"),
    ({"seq1": "train", "seq2": "train"}, "written like MOT17"),
    ({"train": "train", "val": "val"}, "written like MOT17"),
    ({"holdout/seq1": "holdout"}, "written like MOT17"),
    ({"": "train"}, "written like MOT17"),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "edition"), LAYOUTS)
@pytest.mark.parametrize("info", [True, False], ids=["seqinfo", "no seqinfo"])
def test_layouts(tmp_path: Path, ingest_into: Any, folders: dict[str, str], edition: str, info: bool) -> None:
    for folder in folders:
        sequence(tmp_path / "root" / folder, info=info)
    snapshot = ingest_into(tmp_path / "root", "mot17")
    found = counts_found(snapshot)
    assert {name: found[f"{name}.boxes"] for name in folders.values()} == {
        split: 3 * sum(other == split for other in folders.values()) for split in folders.values()
    }
    assert (found["images"], found["ids"]) == (2 * len(folders), 2 * len(folders))
    assert snapshot.table("datasets", ["edition"])["edition"].to_pylist() == [edition]


@pytest.mark.parametrize("truth", ["", "\n"], ids=["empty", "blank"])
def test_a_sequence_whose_ground_truth_is_empty_is_told(tmp_path: Path, ingest_into: Any, truth: str) -> None:
    """Its images would be trained on as background."""
    sequence(tmp_path / "train" / "seq1")
    sequence(tmp_path / "train" / "seq3", truth=truth)
    (note,) = ingest_findings(ingest_into(tmp_path, "mot17", allow_empty=False))
    assert "such as seq3" in note.message and "images count as images without people" in note.message
    sequence(tmp_path / "val" / "seq4", truth=truth)
    with pytest.raises(CatalogError, match="split 'val' has 2 images and no box of a person"):
        ingest_into(tmp_path, "mot17", allow_empty=False)


def test_sequences_of_one_name_stay_apart(tmp_path: Path, ingest_into: Any) -> None:
    for split in ("train", "val"):
        sequence(tmp_path / "root" / split / "seq1")
    snapshot = ingest_into(tmp_path / "root", "mot17")
    assert snapshot.table("images")["image_id"].to_pylist() == [
        "train/seq1/000001", "train/seq1/000002", "val/seq1/000001", "val/seq1/000002",
    ]  # fmt: skip
    assert set(snapshot.table("boxes")["person_id"].to_pylist()) == {
        "train/seq1/1", "train/seq1/2", "val/seq1/1", "val/seq1/2",
    }  # fmt: skip


def test_a_sequence_without_truth_has_its_images(tmp_path: Path, ingest_into: Any) -> None:
    sequence(tmp_path / "root" / "train" / "a")
    sequence(tmp_path / "root" / "test" / "b", truth=None)
    sequence(tmp_path / "root" / "test" / "c", truth=None, info=False)
    snapshot = ingest_into(tmp_path / "root", "mot17")
    found = counts_found(snapshot)
    assert (found["test.images"], found["test.boxes"]) == (4, 0)
    assert "not_annotated" not in {each.code for each in ingest_findings(snapshot)}
    (tmp_path / "root" / "train" / "a" / "gt" / "gt.txt").unlink()
    told = {each.code: each.message for each in ingest_findings(ingest_into(tmp_path / "root", "mot17"))}
    assert "1 parts of the dataset are not annotated" in told["not_annotated"]


@pytest.mark.parametrize(
    ("names", "frames", "noted"),
    [
        (("000001.jpg", "000002.jpg"), (1, 2), False),
        (("00000001.jpg", "00000002.jpg"), (1, 2), False),
        (("000000.jpg", "000001.jpg"), (0, 1), True),
        (("000000.jpg", "000001.jpg"), (1, 2), True),
        (("000001.jpg", "000002.jpg"), (0, 1), True),
        (("frame_000000.png", "frame_000001.png"), (1, 2), True),
        (("frame_000001.png", "frame_000002.png"), (1, 2), False),
    ],
)
def test_frames_are_found_whatever_counts_from_zero(
    tmp_path: Path, ingest_into: Any, names: tuple[str, str], frames: tuple[int, int], noted: bool
) -> None:
    truth = "".join(f"{frame},1,{5 + at},5,9,20,1,1,1\n" for at, frame in enumerate(frames))
    sequence(tmp_path / "root" / "train" / "a", truth=truth, names=names, info=False)
    snapshot = ingest_into(tmp_path / "root", "mot17")
    paths = dict(
        zip(*(snapshot.table("images")[name].to_pylist() for name in ("image_id", "rel_path")), strict=True)
    )
    found = [paths[name].rpartition("/")[2] for name in snapshot.table("boxes")["image_id"].to_pylist()]
    assert tuple(found) == names
    notes = load_adapter("mot17").discover(tmp_path / "root", {}).notes
    assert notes == (("frames are numbered from 0 in 1 sequence, such as a",) if noted else ())


def test_a_row_of_frame_zero_among_others_is_a_reject(tmp_path: Path, ingest_into: Any) -> None:
    sequence(tmp_path / "root" / "train" / "a", truth=TRUTH + "0,1,5,5,9,20,1,1,1\n")
    snapshot = ingest_into(tmp_path / "root", "mot17")
    (reject,) = snapshot.table("rejects").to_pylist()
    assert (reject["code"], reject["source_row"], len(snapshot.table("boxes"))) == ("image_unknown", 4, 3)


@pytest.mark.parametrize("adapter", ["mot17", "mot15"])
@pytest.mark.parametrize("track", ["-1", "-2", "-1.0", "-1.000e+00"])
def test_negative_tracks_are_unknown(tmp_path: Path, ingest_into: Any, adapter: str, track: str) -> None:
    tail = "1,1,1" if adapter == "mot17" else "1,-1,-1,-1"
    sequence(tmp_path / "root" / "train" / "a", truth=f"1,{track},5,5,9,20,{tail}\n1,0,25,5,9,20,{tail}\n")
    boxes = ingest_into(tmp_path / "root", adapter).table("boxes")
    assert boxes["person_id"].to_pylist() == [None, "a/0"]
    assert boxes["person_scope"].to_pylist() == [None, "sequence"]


WRITTEN = [
    "1,7,5,6,9,20,1,1,0.5",
    "1, 7, 5, 6, 9, 20, 1, 1, 0.5",
    "1,7,5,6,9,20,1,1,0.5,",
    "1,7,5,6,9,20,1,1,0.5,,,",
    "1 7 5 6 9 20 1 1 0.5",
    "1\t7\t5\t6\t9\t20\t1\t1\t0.5",
    "1;7;5;6;9;20;1;1;0.5",
    "1.000e+00,7.000e+00,5.0,6.0,9.0,20.0,1.0,1.0,5.000e-01",
    "\ufeff1,7,5,6,9,20,1,1,0.5\r",
]


@pytest.mark.parametrize("line", WRITTEN)
def test_ways_to_write_a_row(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gt.txt"
    path.write_text(line + "\n")
    assert list(read_rows(path, Rows("gt.txt"), columns=(9,))) == [
        TruthRow(1, 1, 7, (4, 5, 13, 25), (1, 1, 0.5))
    ]


@given(
    st.integers(0, 10_000),
    st.integers(-5, 10_000),
    st.lists(st.integers(-500, 4_000), min_size=4, max_size=4),
    st.sampled_from([",", ", ", " ", "\t", ";"]),
    st.sampled_from(["d", ".1f", ".18e"]),
)
def test_a_row_is_the_same_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, frame: int, track: int, box: list[int], between: str, form: str
) -> None:
    path = tmp_path_factory.mktemp("mot") / "gt.txt"
    values = [frame, track, *box, 1, 1, 1]
    path.write_text(between.join(format(value if form == "d" else float(value), form) for value in values))
    (row,) = read_rows(path, Rows("gt.txt"), columns=(9,))
    x, y, w, h = box
    assert (row.frame, row.track, row.box) == (frame, track, (x - 1, y - 1, x - 1 + w, y - 1 + h))


def test_pixels_that_count_from_zero(tmp_path: Path, ingest_into: Any) -> None:
    sequence(tmp_path / "root", labels="person\n")
    first = ingest_into(tmp_path / "root", "mot17", first_pixel="0").table("boxes").slice(0, 1).to_pylist()[0]
    assert [first[name] for name in ("x1", "y1", "x2", "y2")] == [5, 5, 14, 25]
    with pytest.raises(CatalogError, match="choose 1 or 0"):
        load_adapter("mot17").discover(tmp_path / "root", {"first_pixel": "2"})


def test_labels_name_the_classes(tmp_path: Path, ingest_into: Any) -> None:
    truth = "".join(f"1,{n},{5 + 9 * n},5,9,20,1,{n},1.0,\n" for n in range(1, 6))
    labels = "car\r\npedestrian\r\nStatic person\nnon motorized vehicle\n"
    sequence(tmp_path / "root", truth=truth, labels=labels, info=False)
    snapshot = ingest_into(tmp_path / "root", "mot17")
    boxes = snapshot.table("boxes")
    assert boxes["category"].to_pylist() == ["person", "static_person"]
    assert boxes["ignore"].to_pylist() == [False, True]
    assert boxes["person_id"].to_pylist() == ["sequence/2", None]
    assert snapshot.table("rejects")["detail"].to_pylist() == [
        "class 1: car", "class 4: non_motorised_vehicle", "class 5",
    ]  # fmt: skip


def test_a_tenth_column_beside_labels_means_nothing(tmp_path: Path, ingest_into: Any) -> None:
    sequence(tmp_path / "root", truth="1,1,5,5,9,20,1,1,1,0\n", labels="person\n", info=False)
    assert len(ingest_into(tmp_path / "root", "mot17").table("boxes")) == 1


def test_ten_columns_without_labels_are_mot15(tmp_path: Path) -> None:
    sequence(tmp_path / "train" / "a", truth="1,1,5,5,9,20,1,-1,-1,-1\n")
    with pytest.raises(CatalogError, match="use the adapter mot15"):
        load_adapter("mot17").discover(tmp_path, {})


@pytest.mark.parametrize(
    ("folder", "nearest"),
    [
        ("a/b/c/train/seq1", "Nearest found: a/b/c/train/seq1/gt/gt.txt: give a folder further down"),
        ("", "Nearest found: no files"),
    ],
)
def test_refusals_name_what_was_looked_for(tmp_path: Path, folder: str, nearest: str) -> None:
    if folder:
        sequence(tmp_path / folder)
    with pytest.raises(CatalogError, match="looked for <split>/<sequence>/") as error:
        load_adapter("mot17").discover(tmp_path, {})
    assert nearest in str(error.value)


def test_copies_that_are_not_read_are_no_left_over(mot_root: Path) -> None:
    from fnmatch import fnmatch

    layout = load_adapter("mot17").discover(mot_root, {})
    read = {name for unit in layout.units for name in (unit.source, *unit.also, *unit.images)}
    files = {path.relative_to(mot_root).as_posix() for path in mot_root.rglob("*") if path.is_file()}
    rest = {name for name in files - read if not any(fnmatch(name, pattern) for pattern in layout.other)}
    assert rest == set()
    assert np.all([unit.images for unit in layout.units])

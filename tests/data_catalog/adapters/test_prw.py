"""PRW: names and identities however they are written, and lists that name what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.ingest import counts_found
from data_catalog.synthetic.matlab import cells, write_mat

FRAMES = ("c1s1_000001", "c2s1_000002")


def write(
    root: Path,
    *,
    listed: Any = None,
    boxes: Any = ((3, 1, 2, 30, 40),),
    queries: str = "",
    suffix: str = ".jpg.mat",
) -> Path:
    (root / "annotations").mkdir(parents=True)
    for name in FRAMES:
        savemat(root / "annotations" / f"{name}{suffix}", {"box_new": np.array(boxes, float)})
    if listed is None:
        write_mat(root / "frame_train.mat", "img_index_train", cells([FRAMES[0]]))
    else:
        savemat(root / "frame_train.mat", {"img_index_train": listed})
    write_mat(root / "frame_test.mat", "img_index_test", cells([FRAMES[1]]))
    if queries:
        (root / "query_info.txt").write_text(queries)
    return root


NAMES = [
    "c1s1_000001",
    "c1s1_000001.jpg",
    "c1s1_000001.jpg.mat",
    "frames/c1s1_000001.jpg",
    " c1s1_000001 ",
    ".\\frames\\c1s1_000001.JPG",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_lists(tmp_path: Path, ingest_into: Any, name: str) -> None:
    listed = np.empty((1, 1), object)
    listed[0, 0] = name
    snapshot = ingest_into(write(tmp_path / "prw", listed=listed), "prw", images=False)
    assert snapshot.table("images")["image_id"].to_pylist() == ["c1s1_000001.jpg", "c2s1_000002.jpg"]


def test_a_list_that_is_a_matrix_of_characters(tmp_path: Path, ingest_into: Any) -> None:
    root = write(tmp_path / "prw", listed=np.array(FRAMES))
    write_mat(root / "frame_test.mat", "img_index_test", cells([]))
    assert counts_found(ingest_into(root, "prw", images=False))["train.images"] == 2


@pytest.mark.parametrize("suffix", [".mat", ".png.mat"])
def test_names_of_annotation_files(tmp_path: Path, ingest_into: Any, suffix: str) -> None:
    snapshot = ingest_into(write(tmp_path / "prw", suffix=suffix), "prw", images=False)
    assert len(snapshot.table("boxes")) == 2


def test_identities(tmp_path: Path, ingest_into: Any) -> None:
    boxes = [(identity, 1, 2, 30, 40) for identity in (-1, -2, np.nan, 0, 932, 7.5)]
    snapshot = ingest_into(write(tmp_path / "prw", boxes=boxes), "prw", images=False)
    assert snapshot.table("boxes")["person_id"].to_pylist() == [None, None, None, "0", "932"] * 2
    assert snapshot.table("rejects")["code"].to_pylist() == ["identity_unreadable"] * 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("3 1 2 30 40 c2s1_000002", None),
        ("3.0 1 2 30 40 c2s1_000002.jpg", None),
        ("3.000e+00\t1\t2\t30\t40\tframes/c2s1_000002.jpg", None),
        ("-2 1 2 30 40 c2s1_000002", "query_without_identity"),
        ("3 1 2 30 40 c6s1_999999", "query_image_unknown"),
        ("3 1 2 nan 40 c2s1_000002", "row_unreadable"),
        ("3 1 2 30 40", "row_unreadable"),
    ],
)
def test_queries(tmp_path: Path, ingest_into: Any, line: str, code: str | None) -> None:
    snapshot = ingest_into(write(tmp_path / "prw", queries=line + "\n"), "prw", images=False)
    queries = snapshot.table("queries").to_pylist()
    assert [query["box_id"] for query in queries] == ([] if code else ["c2s1_000002.jpg#1"])
    assert snapshot.table("rejects")["code"].to_pylist() == ([code] if code else [])


def test_listed_frames_without_an_annotation_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "annotations" / f"{FRAMES[1]}.jpg.mat").unlink()
    with pytest.raises(
        CatalogError, match="1 listed frames have no annotation file, such as c2s1_000002: add"
    ):
        load_adapter("prw").discover(root, {})


def test_listed_frames_without_an_image_are_said(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert load_adapter("prw").discover(root, {}).notes == ()  # annotations alone
    (root / "frames").mkdir()
    (root / "frames" / f"{FRAMES[0]}.PNG").write_bytes(b"")
    layout = load_adapter("prw").discover(root, {})
    assert layout.units[0].images == (f"frames/{FRAMES[0]}.PNG",)
    assert layout.notes == (f"1 of 2 listed frames have no image in frames, such as frames/{FRAMES[1]}.jpg",)


def test_an_annotation_that_no_list_names_is_left_over(tmp_path: Path) -> None:
    root = write(tmp_path)
    savemat(root / "annotations" / "c3s1_000009.jpg.mat", {"box_new": np.zeros((0, 5))})
    units = load_adapter("prw").discover(root, {}).units
    assert [unit.source for unit in units] == [f"annotations/{name}.jpg.mat" for name in FRAMES]


def test_refusals_name_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "inside" / "prw")
    with pytest.raises(CatalogError, match=r"looked for frame_train\.mat.*give inside/prw as the root"):
        load_adapter("prw").discover(tmp_path, {})
    with pytest.raises(CatalogError, match=r"annotations without frame_train\.mat, frame_test\.mat"):
        (tmp_path / "annotations").mkdir()
        (tmp_path / "inside" / "prw" / "frame_train.mat").unlink()
        load_adapter("prw").discover(tmp_path, {})

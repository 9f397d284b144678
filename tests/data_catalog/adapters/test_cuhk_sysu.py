"""CUHK-SYSU: no identity vanishes, whichever file names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.synthetic.matlab import cells, structs, write_mat

Box = tuple[int, int, int, int]
FIRST, SECOND, NOWHERE = (1, 2, 30, 60), (50, 5, 20, 40), (9, 9, 9, 9)


def scenes(boxes: Sequence[Box | None]) -> np.ndarray:
    located = [np.empty((1, 0)) if box is None else np.array(box, np.uint8) for box in boxes]
    return structs(("imname", "idlocate"), [{"imname": "s1.jpg", "idlocate": each} for each in located])


def people(entries: Mapping[str, Sequence[Box | None]]) -> list[dict[str, Any]]:
    return [{"idname": name, "nAppear": 1, "scene": scenes(boxes)} for name, boxes in entries.items()]


def write(root: Path, person: Mapping[str, Any], train: Mapping[str, Any]) -> None:
    folder = root / "annotation" / "test" / "train_test"
    folder.mkdir(parents=True)
    boxes = structs(("idlocate",), [{"idlocate": np.array(box, np.uint8)} for box in (FIRST, SECOND)])
    image = {"imname": "s1.jpg", "nAppear": 2, "box": boxes}
    write_mat(root / "annotation" / "Images.mat", "Img", structs(("imname", "nAppear", "box"), [image]))
    write_mat(root / "annotation" / "pool.mat", "pool", cells([]))
    fields = ("idname", "nAppear", "scene")
    if person:
        write_mat(root / "annotation" / "Person.mat", "Person", structs(fields, people(person)))
    write_mat(folder / "Train.mat", "Train", cells([structs(fields, [each]) for each in people(train)]))


def rejects(snapshot: Any) -> list[tuple[str, str, int]]:
    columns = ("code", "source_file", "source_row")
    return [tuple(row[name] for name in columns) for row in snapshot.table("rejects").to_pylist()]


def test_two_identities_in_one_box_are_a_conflict(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, {"p1": [FIRST], "p2": [SECOND, FIRST]}, {"p1": [FIRST], "p3": [SECOND]})
    snapshot = ingest_into(tmp_path, "cuhk-sysu", images=False)
    assert snapshot.table("boxes")["person_id"].to_pylist() == ["p1", "p2"]
    assert rejects(snapshot) == [
        ("identity_conflict", "annotation/Person.mat", 3),
        ("identity_conflict", "annotation/test/train_test/Train.mat", 2),
    ]
    assert (
        "its box is p1's, by annotation/Person.mat, row 1" in snapshot.table("rejects")["detail"][0].as_py()
    )


def test_identities_that_are_lost_are_named_where_they_stand(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, {}, {"p1": [FIRST, None], "p2": [NOWHERE]})
    source = "annotation/test/train_test/Train.mat"
    assert rejects(ingest_into(tmp_path, "cuhk-sysu", images=False)) == [
        ("identity_without_box", source, 2),
        ("identity_without_box", source, 3),
    ]


def test_names_with_blanks_and_folders_are_the_same(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, {"p1": [FIRST]}, {})
    for written in ("s1.jpg ", "./s1.jpg", "Image/SSM/s1.jpg", "Image\\SSM\\s1.jpg"):
        write_mat(tmp_path / "annotation" / "pool.mat", "pool", cells([written]))
        images = ingest_into(tmp_path, "cuhk-sysu", images=False).table("images")
        assert images["split"].to_pylist() == ["test"], written


def test_a_pool_that_names_other_images_is_an_error(tmp_path: Path, ingest_into: Any) -> None:
    write(tmp_path, {}, {})
    write_mat(tmp_path / "annotation" / "pool.mat", "pool", cells(["s1.jpg", "s8.jpg", "s9.jpg"]))
    with pytest.raises(CatalogError, match=r"of 3 images that it lists for test 2 are not in .*'s8\.jpg'"):
        ingest_into(tmp_path, "cuhk-sysu", images=False)


def test_refusals_name_what_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "data", {}, {})
    with pytest.raises(CatalogError, match=r"looked for annotation/Images\.mat.*give data as the root"):
        load_adapter("cuhk-sysu").discover(tmp_path, {})

"""A forgotten person's boxes become ignore regions; a forgotten image was never there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.adapters import load_adapter
from data_catalog.decode_checks import DecodedImages
from data_catalog.forgotten import FORGOTTEN, NO_ONE, Forgetting, Forgotten, hashed
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import DatasetRoot, Ingested, fingerprint, ingest
from data_catalog.rows import Rows
from data_catalog.rules import NO_RULES, QueryRule, Rules, SplitRule
from data_catalog.snapshot import Snapshot
from data_catalog.views import View
from tests.edited_prw import Edited

SALT = "00ff"


def whom(people: Iterable[str] = (), images: Iterable[str] = ()) -> Forgotten:
    return Forgotten(
        SALT,
        frozenset(hashed(SALT, "person", each) for each in people),
        frozenset(hashed(SALT, "image", each) for each in images),
    )


class Ingests:
    """Snapshots of one root, each in a folder of its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.count = 0

    def __call__(
        self,
        forgotten: Forgotten = NO_ONE,
        *,
        adapter: Any = None,
        root: Path | None = None,
        **how: Any,
    ) -> tuple[Snapshot, Ingested]:
        self.count += 1
        work, adapter, root = (
            self.folder / f"work-{self.count}",
            adapter or load_adapter("prw"),
            root or self.root,
        )
        work.mkdir()
        found = fingerprint(DatasetRoot(root, adapter, forgotten=forgotten), HashCache(None))
        made = ingest(DatasetRoot(root, adapter, forgotten=forgotten), work, found, name="scenes", **how)
        return Snapshot(work), made


@pytest.fixture
def ingests(prw_root: Path, tmp_path: Path) -> Ingests:
    return Ingests(prw_root, tmp_path)


def a_person(snapshot: Snapshot) -> str:
    return str(snapshot.table("queries")["person_id"][0].as_py())


RULES = (
    NO_RULES,
    Rules(queries=QueryRule(per_identity=1, at_least_images=2)),
    Rules(splits=SplitRule(by="identity", parts={"train": 0.5, "test": 0.5}, of=("train", "test"))),
)


@pytest.mark.parametrize("rules", RULES, ids=["as it is", "drawn queries", "drawn splits"])
def test_it_is_as_if_the_rows_were_edited(ingests: Ingests, rules: Rules) -> None:
    before, _ = ingests()
    person = a_person(before)
    if rules.queries is not None:
        (ingests.root / "query_info.txt").unlink()
    forgot, made = ingests(whom([person]), rules=rules)
    edited, by_hand = ingests(adapter=Edited([person]), rules=rules)
    assert made.row_digests == by_hand.row_digests
    assert made.row_digests != ingests(rules=rules)[1].row_digests
    for split in edited.table("images")["split"].unique().to_pylist():
        for use in ("boxes", "people", "test"):
            assert View(forgot, split).digests(use) == View(edited, split).digests(use)  # type: ignore[arg-type]


def test_a_forgotten_person_becomes_regions_without_identity(ingests: Ingests) -> None:
    before, _ = ingests()
    person = a_person(before)
    after, _ = ingests(whom([person]))
    was = {box["box_id"]: box for box in before.table("boxes").to_pylist()}
    for box in after.table("boxes").to_pylist():
        mine = was[box["box_id"]]["person_id"] == person
        changed = {"ignore": True, "ignore_reason": FORGOTTEN} if mine else {}
        changed |= dict.fromkeys(("person_id", "person_id_raw", "person_scope")) if mine else {}
        assert box == was[box["box_id"]] | changed
    assert person not in after.table("queries")["person_id"].to_pylist()
    assert len(after.table("queries")) < len(before.table("queries"))


def test_what_an_earlier_snapshot_spares_forgets_too(ingests: Ingests) -> None:
    before, _ = ingests()
    forgotten = whom([a_person(before)], [before.table("images")["image_id"][0].as_py()])
    _, alone = ingests(forgotten)
    _, from_all = ingests(forgotten, previous=before)
    assert from_all.row_digests == alone.row_digests


def test_an_image_leaves_no_name(ingests: Ingests) -> None:
    before, _ = ingests()
    queried = before.table("queries")["image_id"][0].as_py()
    image = before.table("images", filter=pc.field("image_id") == queried).to_pylist()[0]
    after, made = ingests(whom(images=[image["image_id"], image["rel_path"]]))
    assert made.counts["images"] == len(before.table("images")) - 1
    assert queried not in after.table("queries")["image_id"].to_pylist()
    for file in after.path.rglob("*.parquet"):
        said = f"{pq.read_table(file).to_pylist()} {file.read_bytes()!r}"
        assert queried.removesuffix(".jpg") not in said, file.name


def test_the_root_looks_as_if_the_image_were_not_there(ingests: Ingests) -> None:
    before, _ = ingests()
    image = before.table("images").to_pylist()[0]
    adapter, forgotten = load_adapter("prw"), whom(images=[image["rel_path"]])
    whole = fingerprint(DatasetRoot(ingests.root, adapter), HashCache(None))
    found = fingerprint(DatasetRoot(ingests.root, adapter, forgotten=forgotten), HashCache(None))
    assert found.digest != whole.digest
    assert found.forgotten == {image["rel_path"], image["source_unit"]}
    assert image["rel_path"] not in found.images and image["source_unit"] not in found.annotations
    (ingests.root / image["rel_path"]).unlink()
    again = fingerprint(DatasetRoot(ingests.root, adapter, forgotten=forgotten), HashCache(None))
    assert again.digest == found.digest


def rows_of(**more: Any) -> Rows:
    rows = Rows("labels.csv")
    rows.images(["7_a.jpg", "b.jpg"], ["7_a.jpg", "b.jpg"], "test", width=40, height=100)
    boxes = [[0, 0, 40, 98], [5, 5, 20, 60], [20, 5, 30, 60]]
    ids = ["7", "7", "8"]
    rows.boxes(
        ["7_a.jpg", "b.jpg", "b.jpg"], boxes, "test", [1, 2, 3], person_id=ids, person_id_raw=ids, **more
    )
    return rows


def test_a_picture_of_hardly_anything_else_goes_wholly() -> None:
    forgetting = Forgetting(whom(["7"]))
    (left,) = forgetting.apply([rows_of().tables()])
    assert left.images["image_id"].to_pylist() == ["b.jpg"]
    assert left.boxes["image_id"].to_pylist() == ["b.jpg", "b.jpg"]
    assert left.boxes["ignore_reason"].to_pylist() == [FORGOTTEN, None]
    assert forgetting.paths == {"7_a.jpg"}


def test_galleries_and_rejects_forget() -> None:
    rows = rows_of()
    rows.queries("p", ["q7", "q8"], ["b.jpg"] * 2, [[5, 5, 20, 60], [20, 5, 30, 60]], ["7", "8"], [1, 2])
    rows.gallery("p", ["q7", "q8", "q8"], ["b.jpg", "b.jpg", "7_a.jpg"], [True, False, False])
    rows.reject("invalid", "row_unreadable", "not 'id x y w h frame': '7 1 2'", 4)
    rows.reject("invalid", "row_unreadable", "not 'id x y w h frame': '8 1 3'", 5)
    rows.reject("invalid", "image_unreadable", "7_a.jpg: cut short", 0, "7_a.jpg")
    (left,) = Forgetting(whom(["7"])).apply([rows.tables()])
    assert left.queries["query_id"].to_pylist() == ["q8"]
    assert left.gallery.select(["query_id", "image_id"]).to_pylist() == [
        {"query_id": "q8", "image_id": "b.jpg"}
    ]
    assert left.rejects["detail"].to_pylist() == [FORGOTTEN, "not 'id x y w h frame': '8 1 3'"]
    assert "q7" not in str(left.gallery["query_id"].chunks)


def test_the_sources_own_word_counts_where_the_identity_is_gone() -> None:
    tables = rows_of().tables()
    column = tables.boxes.schema.get_field_index("person_id")
    unknown = pa.nulls(len(tables.boxes), pa.string())
    nobody = tables.boxes.set_column(column, tables.boxes.schema.field(column), unknown)
    (left,) = Forgetting(whom(["7"])).apply([replace(tables, boxes=nobody)])
    assert left.boxes["person_id_raw"].to_pylist() == [None, "8"]


def test_a_list_without_a_match_changes_nothing(ingests: Ingests) -> None:
    tables = rows_of().tables()
    (left,) = Forgetting(whom(["70"], ["b"])).apply([tables])
    assert all(
        getattr(left, name) is getattr(tables, name) for name in ("images", "boxes", "queries", "gallery")
    )
    assert ingests(whom(["70"]))[1].row_digests == ingests()[1].row_digests


def test_what_is_remembered_of_files_goes(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    cache = HashCache(tmp_path / "hashes.sqlite")
    for name in ("a.jpg", "b.jpg"):
        os.utime(tmp_path / name, (1, 1))
    digests = cache.digests(tmp_path, ["a.jpg", "b.jpg"])
    assert b"a.jpg" in (tmp_path / "hashes.sqlite").read_bytes()
    cache.forget(["a.jpg"])
    content = (tmp_path / "hashes.sqlite").read_bytes()
    assert b"a.jpg" not in content and digests["a.jpg"].encode() not in content and b"b.jpg" in content

    decoded = DecodedImages(tmp_path / "decoded")
    decoded.add(list(digests.values()))
    decoded.forget([digests["a.jpg"]])
    assert decoded.known() - {""} == {digests["b.jpg"]}

"""What an ingest promises: nothing is lost, nothing is invented, and content alone decides."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.io import loadmat, savemat

from data_catalog.adapters import load_adapter
from data_catalog.catalog import Dataset
from data_catalog.errors import CatalogError
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import DatasetRoot, counts_found, fingerprint, ingest, refuse_invalid
from data_catalog.row_digests import digest_rows
from data_catalog.schema import TABLES
from data_catalog.snapshot import Snapshot


def test_tables_have_their_schemas(prw_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(prw_root, "prw")
    for name, schema in TABLES.items():
        assert snapshot.table(name).schema.equals(schema), name


def test_rows_in_are_rows_out(prw_root: Path, ingest_into: Any) -> None:
    frames = sorted((prw_root / "annotations").glob("*.mat"))
    rows = loadmat(frames[0])["box_new"]
    damaged = np.vstack(
        [rows, [[3, np.nan, 1, 5, 5], [4, 1, 1, -5, 5], [5, 1, 1, 5, 5e9], [1.5, 1, 1, 5, 5]]]
    )
    savemat(frames[0], {"anno_previous": damaged})
    total = sum(len(value) for path in frames for key, value in loadmat(path).items() if key[0] != "_")
    snapshot = ingest_into(prw_root, "prw")
    rejects = snapshot.table("rejects")
    assert len(snapshot.table("boxes")) + len(rejects) == total
    assert sorted(rejects["code"].to_pylist()) == [
        "box_empty",
        "box_huge",
        "box_not_finite",
        "identity_unreadable",
    ]
    assert set(rejects["source_file"].to_pylist()) == {f"annotations/{frames[0].name}"}
    with pytest.raises(CatalogError, match="4 rows are damaged"):
        refuse_invalid(snapshot)


def test_excluded_rows_are_not_damage(mot_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(mot_root, "mot17")
    assert len(snapshot.table("rejects")) == 6  # one car a frame
    refuse_invalid(snapshot)


def test_boxes_keep_what_leaves_the_image(prw_root: Path, ingest_into: Any) -> None:
    path = sorted((prw_root / "annotations").glob("*.mat"))[0]
    savemat(path, {"box_new": np.array([[-2.0, -7, -3, 20, 30]])})
    snapshot = ingest_into(prw_root, "prw")
    image_id = path.name.removesuffix(".mat")
    box = snapshot.table("boxes", filter=pc.field("image_id") == image_id).to_pylist()[0]
    assert [box[name] for name in ("x1", "y1", "x2", "y2")] == [-7, -3, 13, 27]
    assert box["person_id"] is None
    assert box["person_id_raw"] == "-2"


def test_queries_find_their_boxes(prw_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(prw_root, "prw")
    queries = snapshot.table("queries").to_pylist()
    person_of = {box["box_id"]: box["person_id"] for box in snapshot.table("boxes").to_pylist()}
    assert queries
    assert all(person_of[query["box_id"]] == query["person_id"] for query in queries)


def test_same_content_elsewhere_has_the_same_fingerprint(prw_root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(prw_root, copy)
    adapter = load_adapter("prw")
    first = fingerprint(DatasetRoot(prw_root, adapter), HashCache(None))
    assert fingerprint(DatasetRoot(copy, adapter), HashCache(None)).digest == first.digest
    frame = next((copy / "frames").iterdir())
    frame.write_bytes(frame.read_bytes() + b"\0")
    assert fingerprint(DatasetRoot(copy, adapter), HashCache(None)).digest != first.digest
    without = [
        fingerprint(DatasetRoot(root, adapter, read_images=False), HashCache(None)).digest
        for root in (prw_root, copy)
    ]
    assert without[0] == without[1] != first.digest


def test_hash_cache_spares_reading_and_rehash_ignores_it(prw_root: Path, tmp_path: Path) -> None:
    import os
    import time

    cache = HashCache(tmp_path / "hashes.sqlite")
    frame = next((prw_root / "frames").iterdir())
    name = f"frames/{frame.name}"
    past = time.time_ns() - 10**10
    os.utime(frame, ns=(past, past))
    first = cache.digests(prw_root, [name])[name]
    data = bytearray(frame.read_bytes())
    data[-1] ^= 1
    with frame.open("r+b") as file:  # the same size, inode and, below, time: only its content tells
        file.write(data)
    os.utime(frame, ns=(past, past))
    assert cache.digests(prw_root, [name])[name] == first
    assert cache.digests(prw_root, [name], rehash=True)[name] != first


def test_a_missing_image_is_one_clear_error(prw_root: Path, ingest_into: Any) -> None:
    next((prw_root / "frames").iterdir()).unlink()
    with pytest.raises(CatalogError, match="does not exist"):
        ingest_into(prw_root, "prw")
    ingest_into(prw_root, "prw", images=False)


def test_an_unreadable_image_takes_its_boxes_to_the_rejects(prw_root: Path, ingest_into: Any) -> None:
    frame = sorted((prw_root / "frames").iterdir())[0]
    frame.write_bytes(b"no image at all")
    rows = next(
        value
        for key, value in loadmat(prw_root / "annotations" / f"{frame.name}.mat").items()
        if key[0] != "_"
    )
    snapshot = ingest_into(prw_root, "prw")
    codes = snapshot.table("rejects")["code"].to_pylist()
    assert codes.count("image_unreadable") == 1
    assert codes.count("image_rejected") == len(rows)
    assert frame.name not in snapshot.table("images")["image_id"].to_pylist()


def test_an_annotation_that_is_no_mat_file_is_named(prw_root: Path, ingest_into: Any) -> None:
    path = sorted((prw_root / "annotations").glob("*.mat"))[0]
    path.write_bytes(b"hello")
    with pytest.raises(CatalogError, match=path.name):
        ingest_into(prw_root, "prw")


def test_many_files_on_worker_processes_give_the_same_rows(
    prw_root: Path, ingest_into: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = ingest_into(prw_root, "prw")
    monkeypatch.setattr("data_catalog.ingest.UNITS_A_CHUNK", 4)
    monkeypatch.setattr("data_catalog.parallel.CHUNKS_IN_PROCESS", 1)
    together = ingest_into(prw_root, "prw")
    for name in ("images", "boxes", "queries", "rejects"):
        assert digest_rows(alone.table(name)) == digest_rows(together.table(name)), name


def test_counts_by_split_add_up(mot_root: Path, prw_root: Path, ingest_into: Any) -> None:
    for root, adapter in ((mot_root, "mot17"), (prw_root, "prw")):
        counts = counts_found(ingest_into(root, adapter))
        for name in ("images", "boxes", "boxes_with_id", "ignored", "rejects", "queries"):
            assert counts[name] == sum(n for key, n in counts.items() if key.endswith(f".{name}"))


def test_filters_are_pushed_down(prw_root: Path, ingest_into: Any) -> None:
    snapshot: Snapshot = ingest_into(prw_root, "prw")
    boxes = snapshot.table("boxes", ["box_id", "split"], pc.field("split") == "test")
    assert set(boxes["split"].to_pylist()) == {"test"}
    assert isinstance(boxes, pa.Table)
    assert len(boxes.to_pandas()) == counts_found(snapshot)["test.boxes"]


@pytest.mark.parametrize("filter", [pc.field("x1") == "wide", pc.starts_with(pc.field("x1"), "w")])
def test_a_filter_of_another_type_is_named(prw_root: Path, ingest_into: Any, filter: pc.Expression) -> None:
    with pytest.raises(CatalogError, match="the filter does not fit"):
        Dataset(ingest_into(prw_root, "prw").path).boxes(filter=filter)


def test_reading_what_changed_alone_gives_the_same_rows(
    prw_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, cache = load_adapter("prw"), HashCache(None)
    first, again, fresh = (tmp_path / name for name in ("first", "again", "fresh"))
    ingest(
        DatasetRoot(prw_root, adapter), first, fingerprint(DatasetRoot(prw_root, adapter), cache), name="prw"
    )
    changed = sorted((prw_root / "annotations").glob("*.mat"))[1]
    savemat(changed, {"box_new": np.array([[7.0, 1, 1, 20, 30], [8, 2, 2, -1, 5]])})
    found = fingerprint(DatasetRoot(prw_root, adapter), cache)
    ingest(DatasetRoot(prw_root, adapter), fresh, found, name="prw")
    opened: list[str] = []
    read = type(adapter).read

    def watched(self: Any, root: Path, unit: Any, options: Any) -> Any:
        opened.append(unit.source)
        return read(self, root, unit, options)

    monkeypatch.setattr(type(adapter), "read", watched)
    ingest(DatasetRoot(prw_root, adapter), again, found, name="prw", previous=Snapshot(first))
    assert opened == [f"annotations/{changed.name}"]
    for name in ("images", "boxes", "queries", "rejects", "datasets"):
        assert digest_table(Snapshot(again), name) == digest_table(Snapshot(fresh), name), name
    assert "box_empty" in Snapshot(again).table("rejects")["code"].to_pylist()


def digest_table(snapshot: Snapshot, name: str) -> Any:
    table = snapshot.table(name)
    return table.to_pylist() if name == "datasets" else digest_rows(table)


def test_a_running_dask_scheduler_reads(prw_root: Path, ingest_into: Any, tmp_path: Path) -> None:
    from distributed import LocalCluster

    alone = ingest_into(prw_root, "prw")
    adapter = load_adapter("prw")
    found = fingerprint(DatasetRoot(prw_root, adapter), HashCache(None))
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0") as cluster:
        work = tmp_path / "on-dask"
        ingest(
            DatasetRoot(prw_root, adapter), work, found, name="prw", dask_address=cluster.scheduler_address
        )
    for name in ("images", "boxes", "queries"):
        assert digest_rows(Snapshot(work).table(name)) == digest_rows(alone.table(name))


def test_a_scheduler_that_does_not_answer_is_named(
    prw_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_catalog.parallel.ANSWER_SECONDS", 0.3)
    adapter = load_adapter("prw")
    found = fingerprint(DatasetRoot(prw_root, adapter), HashCache(None))
    with pytest.raises(CatalogError, match=r"tcp://127\.0\.0\.1:9"):
        ingest(
            DatasetRoot(prw_root, adapter),
            tmp_path / "x",
            found,
            name="prw",
            dask_address="tcp://127.0.0.1:9",
        )

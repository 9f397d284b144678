"""Datasets of a store by name: alone, and several as one table."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_catalog.adapters import load_adapter
from data_catalog.catalog import Catalog
from data_catalog.errors import CatalogError
from data_catalog.ingest import ingest_root
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import Mot17Spec, PrwSpec, write_mot17, write_prw
from flows.plan.catalog import KIND, StoreSnapshots, open_catalog
from storage.local import LocalStore
from storage.manifest import Identity


def put(store: LocalStore, name: str, adapter: str, root: Path, number: int = 0) -> str:
    """A snapshot as the ingest stage leaves it; returns its key."""
    identity = Identity(kind=KIND, version=1, recipe={"dataset": name}, inputs={"root": str(number)})
    with store.making(identity) as work:
        ingest_root(root, load_adapter(adapter), work.path)
        return work.commit(str(number)).key


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    store = LocalStore(tmp_path / "store")
    write_prw(tmp_path / "prw", PrwSpec(6, 4, 96, 72, 5, 4, people=(2, 3)), seed=3)
    write_mot17(tmp_path / "mot17", Mot17Spec(2, 3, width=96, height=72, people=(2, 3)), seed=3)
    put(store, "scenes", "prw", tmp_path / "prw")
    put(store, "tracks", "mot17", tmp_path / "mot17")
    return open_catalog(tmp_path / "store")


def test_one_dataset(catalog: Catalog) -> None:
    boxes = catalog["scenes"].boxes(split="train", columns=["image_id", "split", "x1"])
    assert boxes.column_names == ["image_id", "split", "x1"]
    assert set(boxes["split"].to_pylist()) == {"train"} and len(boxes.to_pandas())
    everything = catalog["scenes"].boxes()
    assert len(everything) == len(catalog["scenes"].boxes(split=["train", "test"])) > len(boxes)
    assert len(catalog["scenes"].images(split="test")) == 4


def test_a_damaged_pointer_leads_to_the_newest_snapshot(
    catalog: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path / "store")
    snapshots = StoreSnapshots(store)
    key = snapshots.artifact("scenes").key
    snapshots.remember("scenes", key, tmp_path / "prw")
    (store.root / ".cache" / "snapshots" / "scenes").write_bytes(b"\xff" + key.encode()[1:])
    assert snapshots.artifact("scenes").key == key and "is damaged" in caplog.text


def test_several_as_one_table(catalog: Catalog) -> None:
    assert catalog.names() == ["scenes", "tracks"]
    people = ~pc.field("ignore") & (pc.field("y2") - pc.field("y1") > 10)
    union = catalog.boxes(["scenes", "tracks"], split="train", columns=["image_id"], filter=people)
    assert union.column_names == ["dataset", "image_id"]
    for name in catalog.names():
        alone = catalog[name].boxes(split="train", columns=["image_id"], filter=people)
        of_name = union.filter(pc.equal(union["dataset"], name))
        assert of_name["image_id"].to_pylist() == alone["image_id"].to_pylist() != []
    images = catalog.images(["scenes", "tracks"])
    assert set(images.to_pandas()["dataset"]) == {"scenes", "tracks"}


def test_the_last_ingest_decides_and_without_a_note_the_newest(catalog: Catalog, tmp_path: Path) -> None:
    snapshots = StoreSnapshots(LocalStore(tmp_path / "store"))
    first = snapshots.artifact("scenes").key
    second = put(snapshots.store, "scenes", "prw", tmp_path / "prw", number=1)
    for key in (first, second, first):
        snapshots.remember("scenes", key, tmp_path / "prw")
        assert open_catalog(tmp_path / "store")["scenes"].snapshot.path.name == key
    assert snapshots.root("scenes") == tmp_path / "prw" and snapshots.root("tracks") is None
    snapshots.remember("scenes", "../../elsewhere", tmp_path / "prw")
    assert snapshots.artifact("scenes").key in (first, second)
    snapshots.remember(
        "scenes", snapshots.artifact("tracks").key, tmp_path / "prw"
    )  # the snapshot of another name
    assert snapshots.artifact("scenes").key in (first, second)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda catalog: catalog["nobody"], "no snapshot of 'nobody'; it has: scenes, tracks"),
        (
            lambda catalog: catalog["scenes"].boxes(split="val"),
            "no images in split 'val'; there is: test, tr",
        ),
        (lambda catalog: catalog["scenes"].boxes(columns=["x9"]), "has no column 'x9'"),
        (lambda catalog: catalog["scenes"].table("people"), "no table is named 'people'"),
        (lambda catalog: catalog["scenes"].snapshot.table("people"), "no table is named 'people'"),
        (lambda catalog: catalog["scenes"].table("queries", split="test"), "has no column 'split'"),
        (lambda catalog: catalog["scenes"].boxes(filter=pc.field("x9") > 1), "the filter does not fit"),
        (lambda catalog: catalog.boxes("scenes"), "give a list of names"),
    ],
)
def test_what_is_not_there_is_named(catalog: Catalog, ask: object, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        ask(catalog)  # type: ignore[operator]


def test_a_snapshot_with_other_columns_is_refused(catalog: Catalog) -> None:
    path = catalog["scenes"].snapshot.path / "images.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["source_unit"]), path)
    with pytest.raises(CatalogError, match="ingest it again"):
        Snapshot(path.parent)

"""Datasets: every adapter, from its files to a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_catalog.adapters import load_adapter
from data_catalog.files import path_fault
from data_catalog.ingest import ingest_root
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import (
    CuhkSysuSpec,
    Mot17Spec,
    PrwSpec,
    WiderPedestrianSpec,
    write_cuhk_sysu,
    write_mot17,
    write_prw,
    write_wider_pedestrian,
)
from tests.data_catalog.adapters import test_damaged_exports, test_damaged_files
from tests.data_catalog.adapters.test_damaged_exports import _cityscapes
from tests.data_catalog.adapters.test_market1501 import write as write_crops
from tests.data_catalog.adapters.test_mot_layouts import TRUTH, sequence
from tests.data_catalog.adapters.test_yolo_layouts import ROW, tree
from tests.fuzz.target import Target

_PRW = PrwSpec(train_images=2, test_images=2, width=64, height=48, people=(1, 2))
_MOT = Mot17Spec(sequences=1, frames=2, width=64, height=48, people=(1, 2))
_CUHK = CuhkSysuSpec(
    train_images=2,
    test_images=4,
    width=64,
    height=48,
    train_identities=2,
    test_identities=2,
    gallery_sizes=(2,),
)
_WIDER = WiderPedestrianSpec(train_images=2, test_images=2, width=64, height=48, people=(1, 2))


def _mot15(root: Path) -> None:
    sequence(root / "train" / "PETS09-S2L1", truth=TRUTH)


def _market(root: Path) -> None:
    write_crops(
        root,
        *("bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_test/-1_c1s1_000401_03.jpg"),
        *("bounding_box_test/0003_c6s4_000901_02.jpg", "query/0003_c1s6_015971_00.jpg"),
    )


def _yolo(root: Path) -> None:
    data = "train: images/train\nval: images/val\nnames: {0: person, 1: car}\n"
    texts = {"data.yaml": data, "labels/train/a.txt": ROW, "labels/val/b.txt": ROW}
    tree(root, ("images/train/a.jpg", "images/val/b.jpg"), texts)


def _ingested(adapter: str, images: bool, folder: Path) -> None:
    work = folder.with_name("snapshot")
    ingest_root(folder, load_adapter(adapter), work, read_images=images, allow_empty=True)
    snapshot = Snapshot(work)
    assert all(path_fault(name) is None for name in snapshot.table("images")["rel_path"].to_pylist())
    assert all(len(snapshot.table(name)) >= 0 for name in ("boxes", "queries", "rejects"))


_DRAWN: dict[str, Callable[[Path], object]] = {
    "prw": partial(write_prw, spec=_PRW, seed=1),
    "mot17": partial(write_mot17, spec=_MOT, seed=1),
    "cuhk-sysu": partial(write_cuhk_sysu, spec=_CUHK, seed=1),
    "wider-pedestrian": partial(write_wider_pedestrian, spec=_WIDER, seed=1),
    "mot15": _mot15,
    "market1501": _market,
    "yolo": _yolo,
}
"""Whole datasets, with images."""
_ANNOTATIONS = {
    adapter: write
    for adapter, write, *_ in reversed((*test_damaged_files.CASES, *test_damaged_exports.CASES))
    if adapter not in _DRAWN
}
"""Only what other tests have of them."""

TARGETS = [
    *(Target(f"dataset {name}", write, partial(_ingested, name, True)) for name, write in _DRAWN.items()),
    *(
        Target(f"dataset {name}", write, partial(_ingested, name, False))
        for name, write in _ANNOTATIONS.items()
    ),
    Target("dataset citypersons (json)", _cityscapes, partial(_ingested, "citypersons", False)),
]

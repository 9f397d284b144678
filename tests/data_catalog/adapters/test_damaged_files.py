"""Damaged files give rows and rejects, or one CatalogError: never another exception, a hang, a way out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data_catalog.adapters import load_adapter
from data_catalog.errors import CatalogError
from data_catalog.files import path_fault
from data_catalog.ingest import read_units
from data_catalog.synthetic import write_protocol

MUTATIONS = 1_000
MUTATIONS_OF_REAL = 60
SLOWEST_SECONDS = 2.0
"""Of this process's own work: what else the machine does is not the reader's fault."""
Text = Callable[[np.random.Generator, bytes], bytes]

TOKENS = [
    b"NaN", b"-1", b"1e400", b"99999999999999999999", b"../../etc/passwd", b"/etc/passwd", b"a\nb", b"\x00",
          b"\xff\xfe", b'"', b"{", b"}", b"[", b"]", b",", b"\r\n", b"null", b"", b"true", b"1" * 5_000,
]  # fmt: skip


def truncated(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(0, len(data) + 1)]


def flipped(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        changed[rng.integers(len(changed))] = rng.integers(256)
    return bytes(changed)


def with_token(rng: np.random.Generator, data: bytes) -> bytes:
    """A number or a word replaced by something that does not belong there."""
    start = int(rng.integers(len(data)))
    end = min(len(data), start + int(rng.integers(0, 12)))
    return data[:start] + TOKENS[rng.integers(len(TOKENS))] + data[end:]


def repeated(rng: np.random.Generator, data: bytes) -> bytes:
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:end] + data[start:]


def recoded(rng: np.random.Generator, data: bytes) -> bytes:
    text = data.decode("latin-1")
    return [
        text.encode("utf-16"),
        b"\xef\xbb\xbf" + data,
        data.replace(b"\n", b"\r\n"),
        b"",
        text.encode("utf-32-be"),
    ][rng.integers(5)]


def huge_sizes(rng: np.random.Generator, data: bytes) -> bytes:
    """A 32-bit number, such as a size or a dimension in a .mat file, made very large."""
    place = 4 * int(rng.integers(max(len(data) // 4, 1)))
    value = int(rng.choice([0x7FFFFFFF, 0xFFFFFFF8, 0x10000000, 0, 1 << 16]))
    return data[:place] + value.to_bytes(4, "little") + data[place + 4 :]


MUTATORS: list[Text] = [truncated, flipped, with_token, repeated, recoded, huge_sizes]


def _prw(root: Path) -> None:
    (root / "annotations").mkdir()
    savemat(
        root / "annotations" / "c1s1_000001.jpg.mat",
        {"box_new": np.array([[3.0, 1, 2, 30, 60], [-2, 5, 5, 9, 9]])},
    )
    for split, names in (("train", ["c1s1_000001"]), ("test", [])):
        cells = np.empty((len(names), 1), dtype=object)
        cells[:, 0] = names
        savemat(root / f"frame_{split}.mat", {f"img_index_{split}": cells})
    (root / "query_info.txt").write_bytes(b"3 1.0 2.0 30.0 60.0 c1s1_000001\r\n4 1 2 3 4 c1s1_000001\r\n")


def _mot(root: Path) -> None:
    folder = root / "train" / "MOT17-02-FRCNN"
    (folder / "gt").mkdir(parents=True)
    (folder / "seqinfo.ini").write_text(
        "[Sequence]\nname=MOT17-02-FRCNN\nimDir=img1\nseqLength=3\nimExt=.jpg\n"
    )
    (folder / "gt" / "gt.txt").write_text(
        "1,1,10,20,30,40,1,1,0.5\n2,1,11,20,30,40,1,3,1\n3,2,5,5,9,9,0,7,1\n"
    )


def _coco(root: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(3)]
    boxes = [
        {"id": i, "image_id": i % 3, "category_id": 1, "bbox": [1, 2.5, 3, 4], "iscrowd": i % 2}
        for i in range(6)
    ]
    value = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": boxes}
    (root / "train.json").write_text(json.dumps(value))


def _crowdhuman(root: Path) -> None:
    box = {"tag": "person", "fbox": [1, 2, 3, 4], "vbox": [1, 2, 2, 2], "extra": {"ignore": 0}}
    lines = [json.dumps({"ID": f"a{i},b", "gtboxes": [box, {**box, "tag": "mask"}]}) for i in range(3)]
    (root / "annotation_train.odgt").write_text("\n".join(lines))


def _cuhk(root: Path) -> None:
    folder = root / "annotation" / "test" / "train_test"
    folder.mkdir(parents=True)
    write_protocol(folder / "TestG50.mat", queries=3, gallery=6, images=20)


def _wider(root: Path) -> None:
    (root / "val_annotations.txt").write_text("img1.jpg 1 1 2 3 4 2 5 6 7 8\nimg2.jpg\nimg3.jpg 1 9 9 9 9\n")
    (root / "pedestrian_ignore_part_val.txt").write_text("img1.jpg 1 2 3 4\n")


CASES: list[tuple[str, Callable[[Path], None], str, int]] = [
    ("prw", _prw, "annotations/c1s1_000001.jpg.mat", 500),
    ("prw", _prw, "frame_train.mat", 250),
    ("cuhk-sysu", _cuhk, "annotation/test/train_test/TestG50.mat", 250),
    ("prw", _prw, "query_info.txt", 250),
    ("mot17", _mot, "train/MOT17-02-FRCNN/gt/gt.txt", 400),
    ("mot17", _mot, "train/MOT17-02-FRCNN/seqinfo.ini", 100),
    ("wider-pedestrian", _wider, "val_annotations.txt", 250),
    ("coco", _coco, "train.json", MUTATIONS),
    ("crowdhuman", _crowdhuman, "annotation_train.odgt", MUTATIONS),
]


@pytest.mark.parametrize(
    ("adapter", "write", "file", "count"), CASES, ids=[f"{c[0]}-{Path(c[2]).name}" for c in CASES]
)
def test_mutations(
    tmp_path: Path, adapter: str, write: Callable[[Path], None], file: str, count: int
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write(root)
    _mutate(root, file, adapter, count)


CUHK = "CUHK-SYSU_rebuilt_mini"
REAL: list[tuple[str, str, str]] = [
    (CUHK, "cuhk-sysu", "annotation/Images.mat"),
    (CUHK, "cuhk-sysu", "annotation/Person.mat"),
    (CUHK, "cuhk-sysu", "annotation/pool.mat"),
    (CUHK, "cuhk-sysu", "annotation/test/train_test/Train.mat"),
    (CUHK, "cuhk-sysu", "annotation/test/train_test/TestG100.mat"),
    ("PRW-v16.04.20", "prw", "annotations/c1s1_001051.jpg.mat"),
    ("PRW-v16.04.20", "prw", "frame_train.mat"),
    ("PRW-v16.04.20", "prw", "query_info.txt"),
    ("MOT17", "mot17", "train/MOT17-02-FRCNN/gt/gt.txt"),
    ("COCO_person", "coco", "test_coco.json"),
    ("CrowdHuman_annonly", "crowdhuman", "annotation_train.odgt"),
]


@pytest.mark.parametrize(
    ("folder", "adapter", "file"), REAL, ids=[f"{name}-{Path(file).name}" for _, name, file in REAL]
)
def test_mutations_of_real_files(shared: Path, tmp_path: Path, folder: str, adapter: str, file: str) -> None:
    root = _copy(shared / "data" / folder, tmp_path / "root")
    _mutate(root, file, adapter, MUTATIONS_OF_REAL)


def test_mutations_of_a_crop(shared: Path, tmp_path: Path) -> None:
    root = _copy(shared / "data" / "Market-1501", tmp_path / "root")
    crop = next(path for path in sorted(root.rglob("*.jpg")))
    _mutate(root, crop.relative_to(root).as_posix(), "market1501", MUTATIONS_OF_REAL, True)


@pytest.mark.parametrize("file", ["labels/train/a.txt", "images/train/a.jpg"])
def test_mutations_of_yolo(tmp_path: Path, file: str) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.1 0.1\n")
    _mutate(tmp_path, file, "yolo", 4 * MUTATIONS_OF_REAL, True)


@pytest.mark.parametrize("key", ["person_id", "track_id"])
def test_mutations_of_identities(tmp_path: Path, key: str) -> None:
    _coco(tmp_path)
    value = json.loads((tmp_path / "train.json").read_text())
    for number, entry in enumerate(value["annotations"]):
        entry[key] = number % 3 - 1
    for image in value["images"]:
        image["sequence_id"] = "s1"
    (tmp_path / "train.json").write_text(json.dumps(value))
    _mutate(tmp_path, "train.json", "coco", 4 * MUTATIONS_OF_REAL, options={key: key})


def _copy(source: Path, target: Path) -> Path:
    """A copy that may be written to, whatever the original allows."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    return target


def _mutate(
    root: Path,
    file: str,
    adapter: str,
    count: int,
    read_images: bool = False,
    options: dict[str, str] | None = None,
) -> None:
    """Read the root again and again, each time with the file damaged in another way."""
    original = (root / file).read_bytes()
    rng = np.random.default_rng(20_181_007)
    chosen = load_adapter(adapter)
    _read(chosen, root, read_images, options or {})  # the file as it should be is read
    for number in range(count):
        mutated = MUTATORS[number % len(MUTATORS)](rng, original)
        (root / file).write_bytes(mutated)
        started = time.process_time()
        try:
            _read(chosen, root, read_images, options or {})
        except CatalogError as error:
            assert str(error).isprintable() or "\n" not in str(error), mutated
        except Exception as error:
            raise AssertionError(f"mutation {number}: {mutated[:300]!r}") from error
        assert time.process_time() - started < SLOWEST_SECONDS


def _read(adapter: object, root: Path, read_images: bool, options: dict[str, str]) -> None:
    layout = adapter.discover(root, options)  # type: ignore[attr-defined]
    for tables in read_units(adapter, root, layout.units, options=options, read_images=read_images):  # type: ignore[arg-type]
        corners = [tables.boxes[name].to_numpy() for name in ("x1", "y1", "x2", "y2")]
        assert all(np.isfinite(values).all() for values in corners)
        assert (corners[2] > corners[0]).all() and (corners[3] > corners[1]).all()
        assert all(path_fault(name) is None for name in tables.images["rel_path"].to_pylist())


@pytest.mark.parametrize(
    "name", ["../../secret.jpg", "/etc/passwd", "a\nb.jpg", "C:\\x.jpg", "", "a/../../b.jpg"]
)
def test_names_that_leave_the_root_are_rejected(tmp_path: Path, name: str) -> None:
    _coco(tmp_path)
    value = json.loads((tmp_path / "train.json").read_text())
    value["images"][0]["file_name"] = name
    (tmp_path / "train.json").write_text(json.dumps(value))
    adapter = load_adapter("coco")
    units = adapter.discover(tmp_path, {}).units
    rejects = [
        reject
        for tables in read_units(adapter, tmp_path, units, options={}, read_images=False)
        for reject in tables.rejects.to_pylist()
    ]
    assert [reject["code"] for reject in rejects] == ["image_unreadable", "image_unknown", "image_unknown"]

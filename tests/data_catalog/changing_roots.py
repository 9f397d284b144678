"""Small datasets of every format, and changes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import loadmat, savemat

from data_catalog.synthetic import (
    CuhkSysuSpec,
    Mot17Spec,
    PrwSpec,
    WiderPedestrianSpec,
    write_mot17,
)

Change = Callable[[Path], None]

PRW = PrwSpec(
    train_images=4, test_images=4, width=96, height=72, train_identities=4, test_identities=4, people=(2, 3)
)
MOT = Mot17Spec(sequences=2, frames=2, width=96, height=72, people=(2, 3))
WIDER = WiderPedestrianSpec(train_images=3, test_images=3, width=96, height=72, people=(1, 3))
CUHK = CuhkSysuSpec(
    train_images=4,
    test_images=6,
    width=120,
    height=72,
    train_identities=3,
    test_identities=3,
    gallery_sizes=(3, 4),
)


def image(root: Path, name: str, shade: int = 0, size: tuple[int, int] = (64, 128)) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 9, 9)).save(root / name)


def add_image(name: str, shade: int = 77) -> Change:
    return lambda root: image(root, name, shade)


def remove(name: str) -> Change:
    return lambda root: (root / name).unlink()


def append(name: str, text: str) -> Change:
    def change(root: Path) -> None:
        with (root / name).open("a") as file:
            file.write(text)

    return change


def both(*changes: Change) -> Change:
    def change(root: Path) -> None:
        for each in changes:
            each(root)

    return change


def first(pattern: str, do: Callable[[Path], Any]) -> Change:
    return lambda root: do(sorted(root.glob(pattern))[0])


def other_pixels(path: Path) -> None:
    size = Image.open(path).size
    Image.new("RGB", size, (200, 10, 10)).save(path)


def no_image(path: Path) -> None:
    path.write_bytes(b"no image at all")


def other_boxes(path: Path) -> None:
    savemat(path, {"box_new": np.array([[7.0, 1, 1, 20, 30], [8, 2, 2, -1, 5]])})


def drop_frame(root: Path) -> None:
    names = list(loadmat(root / "frame_test.mat", simplify_cells=True)["img_index_test"])
    cells = np.empty((len(names) - 1, 1), dtype=object)
    cells[:, 0] = names[1:]
    savemat(root / "frame_test.mat", {"img_index_test": cells})
    (root / "annotations" / f"{names[0].removesuffix('.jpg')}.jpg.mat").unlink()


def coco(root: Path, name: str, images: Sequence[str], boxes: int, folder: str = "images") -> None:
    pictures = [{"id": i, "file_name": each, "width": 64, "height": 128} for i, each in enumerate(images)]
    annotations = [
        {"id": i, "image_id": i % len(images), "category_id": 1 + i % 2, "bbox": [1, 2, 10 + i, 20]}
        for i in range(boxes)
    ]
    kinds = [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    (root / name).write_text(
        json.dumps({"images": pictures, "categories": kinds, "annotations": annotations})
    )
    for each in images:
        image(root, f"{folder}/{each}", len(each))


def write_coco(root: Path) -> None:
    coco(root, "train.json", ["a.jpg", "b.jpg"], 5)
    coco(root, "val.json", ["c.jpg"], 3)


def write_coco_splits(root: Path) -> None:
    for split in ("train", "val"):
        (root / split).mkdir()
        coco(root, f"{split}/labels.json", ["a.jpg", "é.jpg" if split == "val" else "b.jpg"], 4, split)


def crowd_line(name: str, width: int) -> str:
    box = {"tag": "person", "fbox": [1, 2, width, 9], "vbox": [1, 2, 2, 2], "extra": {"ignore": 0}}
    return json.dumps({"ID": name, "gtboxes": [box, {**box, "tag": "mask"}, {"tag": "person"}]}) + "\n"


def write_crowdhuman(root: Path) -> None:
    (root / "annotation_train.odgt").write_text(crowd_line("a", 5) + crowd_line("b", 6))
    (root / "annotation_val.odgt").write_text(crowd_line("c", 7))
    for name in "abc":
        image(root, f"Images/{name}.jpg", ord(name))


def write_yolo(root: Path) -> None:
    for split in ("train", "val"):
        image(root, f"images/{split}/{split}_labelled.jpg")
        image(root, f"images/{split}/{split}_bare.jpg", 4)
        (root / "labels" / split).mkdir(parents=True)
        (root / f"labels/{split}/{split}_labelled.txt").write_text("0 .5 .5 .2 .2\n1 .5 .5 .1 .1\nx\n")


def write_market(root: Path) -> None:
    for name in (
        "bounding_box_train/0002_c1s1_000001_01",
        "bounding_box_test/0005_c1s1_000003_01",
        "bounding_box_test/-1_c1s1_000003_02",
        "query/0005_c2s1_000009_01",
    ):
        image(root, f"{name}.jpg", len(name))


def write_mot15(root: Path) -> None:
    for name in ("A", "B"):
        for frame in (1, 2):
            image(root, f"train/{name}/img1/{frame:06d}.jpg", frame)
        (root / f"train/{name}/gt").mkdir()
        (root / f"train/{name}/seqinfo.ini").write_text(f"[Sequence]\nname={name}\nseqLength=2\n")
        (root / f"train/{name}/gt/gt.txt").write_text("1,1,1,1,9,9,1,0,0,0\n2,1,1,1,9,9,0,0,0,0\n")


def write_short_mot17(root: Path) -> None:
    """Ground truth names frames whose files are not there."""
    write_mot17(root, MOT, seed=3)
    for path in (root / "train").rglob("000002.jpg"):
        path.unlink()


MOT_TRUTH = "train/*/gt/gt.txt"


def text(name: str, content: str) -> Change:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)

    return change


def write_jde(root: Path) -> None:
    for name, label in (("train/a", "0 7 .5 .5 .5 .5\n1 -1 .5 .5 .2 .2\n"), ("val/b", "0 8 .4 .4 .2 .3\n")):
        both(add_image(f"images/{name}.jpg"), text(f"labels_with_ids/{name}.txt", label))(root)


def posetrack(root: Path, sequence: str, people: int) -> None:
    frames = [
        {"id": n, "frame_id": n, "vid_id": sequence, "is_labeled": True, "nframes": 2}
        | {"file_name": f"images/train/{sequence}/{n:06d}.jpg"}
        for n in range(2)
    ]
    boxes = [
        {"id": n, "image_id": n % 2, "category_id": 1, "track_id": n // 2, "bbox": [1 + n, 2, 20, 60]}
        for n in range(people)
    ]
    person = [{"id": 1, "name": "person"}]
    value = {"images": frames, "categories": person, "annotations": boxes}
    text(f"annotations/train/{sequence}.json", json.dumps(value))(root)


def write_posetrack(root: Path) -> None:
    for sequence in ("s1", "s2"):
        posetrack(root, sequence, 2)
        for number in range(2):
            image(root, f"images/train/{sequence}/{number:06d}.jpg")


def voc(name: str, left: int) -> str:
    corners = f"<xmin>{left}</xmin><ymin>3</ymin><xmax>60</xmax><ymax>90</ymax>"
    person = f"<object><name>person</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation><filename>{name}</filename>{person}</annotation>"


def write_voc(root: Path) -> None:
    for name in ("a", "b"):
        both(add_image(f"JPEGImages/{name}.jpg"), text(f"Annotations/{name}.xml", voc(f"{name}.jpg", 5)))(
            root
        )


def cvat(name: str, left: int) -> str:
    box = f'<box label="person" xtl="{left}" ytl="3" xbr="60" ybr="90"></box>'
    entry = f'<image id="0" name="{name}" width="64" height="128">{box}</image>'
    return f"<annotations><version>1.1</version>{entry}</annotations>"


def write_cvat(root: Path) -> None:
    for task, name in (("one", "a.jpg"), ("two", "b.jpg")):
        both(add_image(f"{task}/images/{name}"), text(f"{task}/annotations.xml", cvat(name, 5)))(root)


CITY_IMAGES = {"train": "ulm_000000_000019_leftImg8bit.png", "val": "ulm_000001_000019_leftImg8bit.png"}


def citypersons(root: Path, split: str, people: int) -> None:
    entry = np.empty((1, 1), dtype=[("cityname", object), ("im_name", object), ("bbs", object)])
    rows = [[1, 2 + n, 3, 20, 60, 24000 + n, 2 + n, 3, 20, 50] for n in range(people)]
    entry[0, 0] = ("ulm", CITY_IMAGES[split], np.array(rows, float))
    value = np.empty((1, 1), object)
    value[0, 0] = entry
    savemat(root / f"anno_{split}.mat", {f"anno_{split}_aligned": value})


def write_citypersons(root: Path) -> None:
    for split in ("train", "val"):
        image(root, f"leftImg8bit/{split}/ulm/{CITY_IMAGES[split]}")
        citypersons(root, split, 2)

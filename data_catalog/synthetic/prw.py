"""Synthetic scenes in the native layout of PRW v16.04.20."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.synthetic.people import Clothes, draw_clothes
from data_catalog.synthetic.scenes import (
    STREET,
    TOO_HIDDEN,
    Camera,
    Scene,
    Standing,
    Style,
    make_camera,
    place_people,
    render,
)

UNLABELLED = -2
JPEG_QUALITY = 90


@dataclass(frozen=True)
class PrwSpec:
    """What is drawn; `people` is the range of their number in a scene, `unlabelled` the part without
    identity.
    """

    train_images: int = 160
    test_images: int = 80
    width: int = 320
    height: int = 240
    train_identities: int = 80
    test_identities: int = 20
    cameras: int = 3
    people: tuple[int, int] = (3, 6)
    unlabelled: float = 0.15
    overlap: float = 0.45
    queries_per_identity: int = 2

    def __post_init__(self) -> None:
        positive = (self.train_images, self.test_images, self.train_identities, self.test_identities)
        if min(positive) < 1 or not 1 <= self.cameras <= 9 or self.width < 32 or self.height < 32:
            raise CatalogError(f"cannot be drawn: {self}")


@dataclass(frozen=True)
class Frame:
    """A frame's name, and rows [id, x, y, w, h] as its annotation holds them."""

    name: str
    camera: int
    rows: np.ndarray


def write_prw(root: Path, spec: PrwSpec = PrwSpec(), *, seed: int = 0, style: Style = STREET) -> None:
    """Write frames, annotations, splits and queries under `root`, which is made.

    Identities of test do not occur in train; unlabelled people have identities of neither. The same arguments
    write the same pixels.
    """
    for folder in ("frames", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    cameras = [make_camera(rng, number, style) for number in range(1, spec.cameras + 1)]
    train_ids = range(1, spec.train_identities + 1)
    test_ids = range(train_ids.stop, train_ids.stop + spec.test_identities)
    train = _write_split(root, spec, style, cameras, train_ids, range(spec.train_images), [seed, 2])
    after = range(spec.train_images, spec.train_images + spec.test_images)
    test = _write_split(root, spec, style, cameras, test_ids, after, [seed, 3])
    write_lists(root, train, test)
    queries = choose_queries(test, spec.queries_per_identity, np.random.default_rng([seed, 4]))
    write_query_info(root, queries)


def write_lists(root: Path, train: Sequence[Frame], test: Sequence[Frame]) -> None:
    """frame_{train,test}.mat, ID_{train,test}.mat, and one .mat a frame."""
    for frame in (*train, *test):
        _write_mat(root / "annotations" / f"{frame.name}.jpg.mat", "box_new", frame.rows)
    for split, key, frames in (("train", "ID_train", train), ("test", "ID_test2", test)):
        cells = np.empty((len(frames), 1), dtype=object)
        for row, frame in enumerate(frames):
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = frame.name
            cells[row, 0] = cell
        _write_mat(root / f"frame_{split}.mat", f"img_index_{split}", cells)
        ids = {int(pid) for frame in frames for pid in frame.rows[:, 0] if pid >= 0}
        _write_mat(root / f"ID_{split}.mat", key, np.array([sorted(ids)], dtype=np.float64))


def choose_queries(
    frames: Sequence[Frame], per_identity: int, rng: np.random.Generator
) -> list[tuple[Frame, np.ndarray]]:
    """For each identity that is in two frames or more, some of its boxes, of different cameras first."""
    seen: dict[int, list[tuple[Frame, np.ndarray]]] = defaultdict(list)
    for frame in frames:
        for row in frame.rows:
            if row[0] >= 0:
                seen[int(row[0])].append((frame, row))
    chosen: list[tuple[Frame, np.ndarray]] = []
    for _, boxes in sorted(seen.items()):
        if len(boxes) < 2:
            continue
        order = [boxes[i] for i in rng.permutation(len(boxes))]
        first_of_camera = {frame.camera: (frame, row) for frame, row in reversed(order)}
        firsts = list(first_of_camera.values())
        rest = [entry for entry in order if not any(entry is first for first in firsts)]
        chosen += [*firsts, *rest][:per_identity]
    return chosen


def write_query_info(root: Path, queries: Sequence[tuple[Frame, np.ndarray]]) -> None:
    """query_info.txt with CRLF, as the original has it."""
    lines = [
        f"{int(row[0])} " + " ".join(f"{value:.4f}" for value in row[1:]) + f" {frame.name}\r\n"
        for frame, row in queries
    ]
    (root / "query_info.txt").write_bytes("".join(lines).encode())


def _write_split(
    root: Path,
    spec: PrwSpec,
    style: Style,
    cameras: Sequence[Camera],
    identities: range,
    numbers: range,
    seed: list[int],
) -> list[Frame]:
    clothes = {
        number: draw_clothes(np.random.default_rng([seed[0], 0, number]), hue=style.hue)
        for number in identities
    }
    frames = []
    for number in numbers:
        rng = np.random.default_rng([*seed, number])
        camera = cameras[number % len(cameras)]
        scene, labelled = _scene(rng, spec, style, camera, clothes)
        name = f"c{camera.number}s1_{number * 25 + 1:06d}"
        path = root / "frames" / f"{name}.jpg"
        Image.fromarray(scene.pixels).save(path, quality=JPEG_QUALITY, subsampling=0)
        frames.append(Frame(name, camera.number, _annotation(scene, labelled)))
    return frames


def _scene(
    rng: np.random.Generator, spec: PrwSpec, style: Style, camera: Camera, clothes: Mapping[int, Clothes]
) -> tuple[Scene, set[int]]:
    """A scene, and which of its people carry a label."""
    count = int(rng.integers(spec.people[0], spec.people[1] + 1))
    known = [int(pid) for pid in rng.permutation(list(clothes))[:count]]
    labelled = {pid for pid in known if rng.random() >= spec.unlabelled}
    strangers = {-index: draw_clothes(rng, hue=style.hue) for index in range(1, count - len(labelled) + 1)}
    wardrobe = {**{pid: clothes[pid] for pid in labelled}, **strangers}
    people = place_people(
        rng,
        [int(pid) for pid in rng.permutation(list(wardrobe))],
        (spec.width, spec.height),
        style,
        overlap=spec.overlap,
    )
    return render(rng, camera, people, wardrobe, (spec.width, spec.height), style), labelled


def _annotation(scene: Scene, labelled: set[int]) -> np.ndarray:
    rows = [
        _row(person, labelled)
        for person, seen in zip(scene.people, scene.visibility, strict=True)
        if seen >= TOO_HIDDEN
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _row(person: Standing, labelled: set[int]) -> list[float]:
    x1, y1, x2, y2 = (round(value) for value in person.box)
    return [person.identity if person.identity in labelled else UNLABELLED, x1, y1, x2 - x1, y2 - y1]


def _write_mat(path: Path, key: str, value: np.ndarray) -> None:
    from scipy.io import savemat

    savemat(path, {key: value}, oned_as="row")

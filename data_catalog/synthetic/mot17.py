"""Synthetic video sequences in the native layout of MOT17 or MOT17Det."""

from __future__ import annotations

import configparser
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_catalog.errors import CatalogError
from data_catalog.synthetic.people import draw_clothes
from data_catalog.synthetic.scenes import STREET, DrawnPerson, Style, make_camera, place_people, render
from data_catalog.synthetic.splits import JPEG_QUALITY

FRAME_RATE = 30
PEDESTRIAN, CAR, STATIC_PERSON = 1, 3, 7


@dataclass(frozen=True)
class Mot17Spec:
    """What is drawn. `detectors` are the suffixes of MOT17's copies; without any the layout is MOT17Det's."""

    sequences: int = 2
    frames: int = 20
    width: int = 320
    height: int = 240
    people: tuple[int, int] = (3, 6)
    overlap: float = 0.45
    detectors: tuple[str, ...] = ("FRCNN",)
    test_sequences: int = 0

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.frames < 1 or self.width < 32 or self.height < 32:
            raise CatalogError(f"cannot be drawn: {self}")


def write_mot17(root: Path, spec: Mot17Spec = Mot17Spec(), *, seed: int = 0, style: Style = STREET) -> None:
    """Write sequences with seqinfo.ini, img1, det and (in train) gt under `root`, which is made.

    Ground truth holds walking people (class 1), one person who stands and does not count (class 7) and a car
    (class 3, drawn as clutter). The same arguments write the same pixels.
    """
    for number in range(1, spec.sequences + spec.test_sequences + 1):
        split = "train" if number <= spec.sequences else "test"
        name = f"MOT17-{number:02d}"
        folders = [f"{name}-{detector}" for detector in spec.detectors] or [name]
        first = root / split / folders[0]
        _write_sequence(
            first, spec, style, np.random.default_rng([seed, number]), with_truth=split == "train"
        )
        for copy in folders[1:]:
            shutil.copytree(first, root / split / copy, dirs_exist_ok=True)
            _write_info(root / split / copy, spec)


def _write_sequence(
    folder: Path, spec: Mot17Spec, style: Style, rng: np.random.Generator, *, with_truth: bool
) -> None:
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    (folder / "det").mkdir(exist_ok=True)
    camera = make_camera(rng, 1, style)
    count = int(rng.integers(spec.people[0], spec.people[1] + 1))
    clothes = {track: draw_clothes(rng, hue=style.hue) for track in range(1, count + 1)}
    size = (spec.width, spec.height)
    start = place_people(rng, list(clothes), size, style, overlap=spec.overlap)
    pace = {person.identity: float(rng.uniform(-0.02, 0.02)) * spec.width for person in start}
    pace[start[0].identity] = 0.0
    background = int(rng.integers(1 << 31))
    truth: list[str] = []
    for frame in range(1, spec.frames + 1):
        people = [_walked(person, pace[person.identity] * (frame - 1)) for person in start]
        scene = render(np.random.default_rng(background), camera, people, clothes, size, style)
        path = folder / "img1" / f"{frame:06d}.jpg"
        Image.fromarray(scene.pixels).save(path, quality=JPEG_QUALITY, subsampling=0)
        truth += _truth_rows(frame, people, scene.visibility, start[0].identity, spec)
    _write_info(folder, spec)
    (folder / "det" / "det.txt").write_text("")
    if with_truth:
        (folder / "gt").mkdir(exist_ok=True)
        (folder / "gt" / "gt.txt").write_text("".join(f"{row}\n" for row in truth))


def _walked(person: DrawnPerson, distance: float) -> DrawnPerson:
    x1, y1, x2, y2 = person.box
    return replace(person, box=(x1 + distance, y1, x2 + distance, y2))


def _truth_rows(
    frame: int, people: Sequence[DrawnPerson], visibility: Sequence[float], still: int, spec: Mot17Spec
) -> list[str]:
    """Rows of gt.txt, 1-based; who has left the image is not in it."""
    rows = [f"{frame},{1000 + still},1,{spec.height // 3},{spec.width // 8},{spec.height // 10},0,{CAR},1.0"]
    for person, seen in zip(people, visibility, strict=True):
        x1, y1, x2, y2 = (round(value) for value in person.box)
        if x2 <= 0 or x1 >= spec.width:
            continue
        kind, flag = (STATIC_PERSON, 0) if person.identity == still else (PEDESTRIAN, 1)
        rows.append(
            f"{frame},{person.identity},{x1 + 1},{y1 + 1},{x2 - x1},{y2 - y1},{flag},{kind},{seen:.3f}"
        )
    return rows


def _write_info(folder: Path, spec: Mot17Spec) -> None:
    info = configparser.ConfigParser()
    info.optionxform = str  # type: ignore[assignment,method-assign]
    info["Sequence"] = {
        "name": folder.name,
        "imDir": "img1",
        "frameRate": str(FRAME_RATE),
        "seqLength": str(spec.frames),
        "imWidth": str(spec.width),
        "imHeight": str(spec.height),
        "imExt": ".jpg",
    }
    with (folder / "seqinfo.ini").open("w") as file:
        info.write(file, space_around_delimiters=False)

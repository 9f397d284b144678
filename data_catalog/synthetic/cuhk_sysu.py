"""Synthetic scenes in the native layout of CUHK-SYSU, its protocol files included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.synthetic.matlab import cells, structs, write_mat
from data_catalog.synthetic.scenes import STREET, Style
from data_catalog.synthetic.splits import (
    DrawnFrame,
    DrawnPicture,
    SceneSpec,
    Sighting,
    clipped,
    draw_splits,
    sightings,
)

SCENE_FIELDS = ("imname", "idlocate", "ishard")
HARD_HEIGHT = 0.2
"""People lower than this part of the picture are marked as hard."""


@dataclass(frozen=True)
class CuhkSysuSpec(SceneSpec):
    """What is drawn, and for which gallery sizes a protocol is written.

    A gallery is smaller than its name says where there are not enough test images.
    """

    gallery_sizes: tuple[int, ...] = (50, 100)


def write_cuhk_sysu(
    root: Path, spec: CuhkSysuSpec = CuhkSysuSpec(), *, seed: int = 0, style: Style = STREET
) -> None:
    """Write images, their annotations, the split and protocols under `root`, which is made.

    Identities of test do not occur in train; unlabelled people are in Images.mat alone. Boxes lie within the
    image, their smallest coordinate is 1. The same arguments write the same pixels.
    """
    (root / "Image" / "SSM").mkdir(parents=True, exist_ok=True)
    protocols = root / "annotation" / "test" / "train_test"
    protocols.mkdir(parents=True, exist_ok=True)
    train, test = (_write_split(root, scenes, spec) for scenes in draw_splits(spec, style, seed))
    write_mat(root / "annotation" / "Images.mat", "Img", _image_structs([*train, *test], spec))
    write_mat(root / "annotation" / "pool.mat", "pool", cells(image.name for image in test))
    of_train, of_test = _people(train), _people(test)
    everybody = [_person(name, seen, spec) for name, seen in {**of_train, **of_test}.items()]
    fields = ("idname", "nAppear", "scene")
    write_mat(root / "annotation" / "Person.mat", "Person", structs(fields, everybody))
    each = [structs(fields, [_person(name, seen, spec)]) for name, seen in of_train.items()]
    write_mat(protocols / "Train.mat", "Train", cells(each))
    for size in spec.gallery_sizes:
        entries = list(_protocol(size, test, of_test, spec, np.random.default_rng([seed, 4, size])))
        write_mat(protocols / f"TestG{size}.mat", f"TestG{size}", structs(("Query", "Gallery"), entries))


def _write_split(root: Path, scenes: Iterable[DrawnPicture], spec: CuhkSysuSpec) -> list[DrawnFrame]:
    images = []
    for drawn in scenes:
        name = f"s{drawn.number + 1}.jpg"
        drawn.save(root / "Image" / "SSM" / name)
        images.append(DrawnFrame(name, drawn.camera, clipped(drawn.visible, spec, minimum=1)))
    return images


def _people(images: Sequence[DrawnFrame]) -> dict[str, list[Sighting]]:
    """Where each identity is seen, by its name."""
    named = {f"p{identity}": seen for identity, seen in sightings(images).items()}
    return dict(sorted(named.items()))


def _image_structs(images: Sequence[DrawnFrame], spec: CuhkSysuSpec) -> np.ndarray:
    return structs(
        ("imname", "nAppear", "box"),
        (
            {
                "imname": image.name,
                "nAppear": len(image.rows),
                "box": structs(("idlocate", "ishard"), [_located(row, spec) for row in image.rows]),
            }
            for image in images
        ),
    )


def _person(name: str, seen: Sequence[Sighting], spec: CuhkSysuSpec) -> dict[str, Any]:
    scenes = structs(SCENE_FIELDS, [_scene(image, row, spec) for image, row in seen])
    return {"idname": name, "nAppear": len(seen), "scene": scenes}


def _protocol(
    size: int,
    test: Sequence[DrawnFrame],
    people: Mapping[str, Sequence[Sighting]],
    spec: CuhkSysuSpec,
    rng: np.random.Generator,
) -> Iterator[dict[str, np.ndarray]]:
    """One query for each identity that is in two images or more: the others are its gallery's first entries,
    and images without it fill the gallery up.
    """
    for name, seen in people.items():
        if len(seen) < 2:
            continue
        (image, row), *others = seen
        query = {**_scene(image, row, spec), "idname": name}
        with_person = {image.name for image, _ in seen}
        without = [image for image in test if image.name not in with_person]
        positives = [_scene(*other, spec) for other in others[:size]]
        chosen = rng.permutation(len(without))[: size - len(positives)]
        nothing = np.empty((1, 0))
        negatives = [
            {"imname": without[i].name, "idlocate": nothing, "ishard": nothing} for i in chosen.tolist()
        ]
        yield {
            "Query": structs((*SCENE_FIELDS, "idname"), [query]),
            "Gallery": structs(SCENE_FIELDS, [*positives, *negatives]),
        }


def _scene(image: DrawnFrame, row: np.ndarray, spec: CuhkSysuSpec) -> dict[str, Any]:
    return {"imname": image.name, **_located(row, spec)}


def _located(row: np.ndarray, spec: CuhkSysuSpec) -> dict[str, Any]:
    """The box in the smallest unsigned type that holds it, as in the original: the type changes from box to
    box.
    """
    xywh = row[1:].astype(np.int64)
    smallest = np.uint8 if xywh.max() < 256 else np.uint16
    return {"idlocate": xywh.astype(smallest), "ishard": np.uint8(xywh[3] < HARD_HEIGHT * spec.height)}

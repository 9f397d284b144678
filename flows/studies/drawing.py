"""Synthetic datasets of a study: drawn once in native layouts, in place of the configs' own datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from data_catalog.synthetic import (
    CuhkSysuSpec,
    Mot17Spec,
    PrwSpec,
    Style,
    WiderPedestrianSpec,
    write_cuhk_sysu,
    write_mot17,
    write_prw,
    write_wider_pedestrian,
)
from personsearch_core.recipes import Recipe, Seed
from storage import durable
from storage.digests import digest_json
from storage.folders import whole_folder
from storage.locks import exclusive

Layout = Literal["prw", "cuhk-sysu", "mot17", "wider-pedestrian"]
Write = Callable[..., None]

_LAYOUTS: dict[str, tuple[Any, Write]] = {
    "prw": (PrwSpec, write_prw),
    "cuhk-sysu": (CuhkSysuSpec, write_cuhk_sysu),
    "mot17": (Mot17Spec, write_mot17),
    "wider-pedestrian": (WiderPedestrianSpec, write_wider_pedestrian),
}


class DrawnDataset(Recipe):
    """One dataset: its layout, what is drawn, and how it looks."""

    layout: Layout
    """Also the adapter that reads it."""
    seed: Seed = 0
    scenes: dict[str, Any] = Field(default_factory=dict)
    """Numbers and sizes: train_images, test_images, width, height, train_identities, test_identities, ...; of
    mot17: sequences, frames."""
    style: dict[str, Any] = Field(default_factory=dict)
    """The look of the domain: hue, background_hue, background_value, clutter, cast, noise, heights."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        _ = self.parts
        return self

    @property
    def parts(self) -> tuple[Any, Style]:
        """The specification of the layout's writer, and the style. Raises ValueError for unknown fields."""
        return _checked(_LAYOUTS[self.layout][0], self.scenes), _checked(Style, self.style)

    def write(self, root: Path) -> None:
        """Draw it under `root`, which is made."""
        spec, style = self.parts
        _LAYOUTS[self.layout][1](root, spec, seed=self.seed, style=style)


class Drawing(Recipe):
    """Which datasets are drawn, and where to."""

    folder: Path
    """From the folder of the study file on."""
    datasets: Annotated[dict[str, DrawnDataset], Field(min_length=1)]
    """By the names that the configs give their datasets."""

    def root(self, name: str) -> Path:
        """Where a dataset lies; another specification has another folder."""
        drawn = self.datasets[name]
        spec, style = drawn.parts
        what = [drawn.layout, drawn.seed, asdict(spec), asdict(style)]
        return self.folder / f"{name}-{digest_json(json.loads(json.dumps(what)))[:8]}"

    def overrides(self) -> tuple[str, ...]:
        """What makes a config read the drawn datasets in the place of its own."""
        return tuple(
            f"datasets.{name}.{field}={json.dumps(value)}"
            for name, drawn in self.datasets.items()
            for field, value in (("adapter", drawn.layout), ("root", str(self.root(name))))
        )

    def counts(self) -> dict[Path, dict[str, int]]:
        """What an ingest will count in each, by root: images exactly, boxes and queries about."""
        return {self.root(name): _counts(drawn.parts[0]) for name, drawn in self.datasets.items()}

    def draw(self, on_change: Callable[[str], None]) -> None:
        """Draw the datasets that are not there yet."""
        for name, drawn in self.datasets.items():
            if not self.root(name).is_dir():
                on_change(f"drawing {name}, a stand-in in the layout of {drawn.layout}")
                draw_once(self.root(name), drawn.write)


def _counts(spec: Any) -> dict[str, int]:
    if isinstance(spec, Mot17Spec):
        images = {"train": spec.sequences * spec.frames, "test": spec.test_sequences * spec.frames}
        identities = {"train": 0, "test": 0}
    else:
        images = {"train": spec.train_images, "test": spec.test_images}
        identities = {"train": spec.train_identities, "test": spec.test_identities}
    people = sum(spec.people) / 2
    found = {"images": sum(images.values()), "queries": identities["test"]}
    for split, number in images.items():
        found |= {
            f"{split}.images": number,
            f"{split}.boxes": round(people * number),
            f"{split}.ids": identities[split],
        }
    return found


def draw_once(root: Path, write: Callable[[Path], None]) -> None:
    """Write a dataset unless it exists; a half-written one never gets its final name."""
    durable.make_folder(root.parent)
    with exclusive(root.with_name(f".{root.name}.lock"), what=str(root)):
        if not root.is_dir():
            with whole_folder(root) as unfinished:
                write(unfinished)


def _checked(kind: Any, fields: dict[str, Any]) -> Any:
    unknown = sorted(set(fields) - set(kind.__dataclass_fields__))
    if unknown:
        raise ValueError(
            f"there is no {', '.join(unknown)}; known are {', '.join(kind.__dataclass_fields__)}"
        )
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

"""What a model was trained on: datasets and splits, with their sizes then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from personsearch_core.recipes import Recipe, later
from storage.manifest import Manifest
from storage.store import Store

VIEWS = "views"
"""The field of a manifest's `made_by` with the views that a stage took, by input; artifacts of earlier
versions have none."""
TRAINED_ON = "trained_on"
"""Likewise of a model that was imported, whose sources are not in the store."""


class TrainedOn(Recipe):
    """One view of a training. Artifacts of earlier versions name no split: then sizes are the dataset's."""

    dataset: str
    split: str | None = None
    images: int | None = None
    boxes: int | None = None
    snapshot: str | None = None
    """The artifact `ingest/KEY` of then."""
    min_height: Annotated[float | None, later(None)] = None
    """Boxes shorter than this, in pixels, were ignore regions."""

    def __str__(self) -> str:
        return self.dataset if self.split is None else f"{self.dataset}/{self.split}"


def sizes(snapshot: Manifest, split: str | None) -> tuple[int | None, int | None]:
    """Images and boxes of a split of a snapshot, or of all of it."""
    counts: Mapping[str, int] = snapshot.metrics.get("counts", {})
    images, boxes = (counts.get(name if split is None else f"{split}.{name}") for name in ("images", "boxes"))
    return images, boxes


def view_record(
    dataset: str, split: str, snapshot: Manifest, min_height: float | None = None
) -> dict[str, Any]:
    """A view as a manifest records it."""
    images, boxes = sizes(snapshot, split)
    record = {"dataset": dataset, "split": split, "images": images, "boxes": boxes}
    return record if min_height is None else record | {"min_height": min_height}


def trained_on(model: Manifest, store: Store) -> tuple[TrainedOn, ...]:
    """The views that a detector or a branch was trained on, as far as manifests in the store tell."""
    recorded = model.made_by.get(TRAINED_ON)
    if recorded is not None:
        return tuple(TrainedOn.model_validate(each) for each in recorded)
    return tuple(dict.fromkeys(_views(model, store)))


def _views(manifest: Manifest, store: Store) -> Iterator[TrainedOn]:
    recorded: Mapping[str, Any] = manifest.made_by.get(VIEWS, {})
    for name, source in manifest.sources.items():
        kind, _, _ = source.partition("/")
        if kind == "ingest" and not name.startswith("validation"):
            if name in recorded:
                yield TrainedOn(**recorded[name], snapshot=source)
            elif (snapshot := store.named(source)) is not None:
                images, boxes = sizes(snapshot.manifest, None)
                dataset = str(snapshot.manifest.identity.recipe["dataset"])
                yield TrainedOn(dataset=dataset, images=images, boxes=boxes, snapshot=source)
        elif kind == "features" and (features := store.named(source)) is not None:
            yield from _views(features.manifest, store)

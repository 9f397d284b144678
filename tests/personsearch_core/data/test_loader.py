"""Training batches decoded ahead: those of one thread, by as many threads as there are."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from personsearch_core.data import loader
from personsearch_core.data.loader import Rate, TrainingBatch, training_batches
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.recipes import DetectorAugmentation, DetectorRecipe, DetectorTraining
from tests.personsearch_core.scene_files import TINY, write_scenes

RECIPE = DetectorRecipe(
    model=TINY,
    training=DetectorTraining(batch_size=3),
    augmentation=DetectorAugmentation(scale_jitter=(0.8, 1.2), brightness=0.2),
)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> TrainingStream:
    scenes = write_scenes(tmp_path_factory.mktemp("scenes"), 5)
    return TrainingStream([TrainingSet(scenes[:3], repeat=1), TrainingSet(scenes[3:], repeat=1)], 0)


def same(one: TrainingBatch, other: TrainingBatch) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.entries, other.entries)
        and all(
            torch.equal(a.boxes, b.boxes) and torch.equal(a.ignore, b.ignore)
            for a, b in zip(one.scenes, other.scenes, strict=True)
        )
        and all(torch.equal(a, b) for a, b in zip(one.targets, other.targets, strict=True))
    )


def loaded(
    stream: TrainingStream, number: int, part: slice, *, recolour: bool, recipe: DetectorRecipe = RECIPE
) -> tuple[TrainingBatch, list[loader.LoadedImage]]:
    """A batch image by image, in this thread, and what is left to do for each image."""
    numbers = loader.batch_numbers(recipe, number)[part]
    canvases = torch.zeros(len(numbers), 3, TINY.image_height, TINY.image_width, dtype=torch.uint8)
    left = [
        loader._load(stream, recipe, *each, recolour=recolour) for each in zip(canvases, numbers, strict=True)
    ]
    return loader._assemble(canvases, left), left


@pytest.mark.parametrize("part", [slice(None), slice(0, None, 2), slice(1, None, 2)])
def test_batches_decoded_ahead_are_those_of_one_thread(stream: TrainingStream, part: slice) -> None:
    ahead = list(training_batches(stream, RECIPE, 1, 6, part))
    assert len(ahead) == 5
    for number, batch in enumerate(ahead, start=1):
        assert same(batch, loaded(stream, number, part, recolour=True)[0])


def test_colours_that_are_left_to_a_gpu_are_those_of_the_threads(stream: TrainingStream) -> None:
    batch, left = loaded(stream, 2, slice(None), recolour=False)
    assert all(each.colours.brightness != 1 for each in left)
    assert same(batch.to(loader.CPU), loaded(stream, 2, slice(None), recolour=True)[0])


def test_images_that_are_left_to_a_gpu_are_those_of_the_threads(tmp_path: Path) -> None:
    """JPEGs beside a PNG, with zooms and colours."""
    scenes = write_scenes(tmp_path, 3)
    for number, scene in enumerate(scenes[:2]):
        with Image.open(scene.path) as image:
            image.save(tmp_path / f"{number}.jpg")
        scenes[number] = replace(scene, path=str(tmp_path / f"{number}.jpg"))
    stream = TrainingStream([TrainingSet(scenes, repeat=1)], 0)
    on_gpu = RECIPE.model_copy(update={"model": TINY.model_copy(update={"decode": "nvjpeg"})})
    for number in range(3):
        batch, _ = loaded(stream, number, slice(None), recolour=False, recipe=on_gpu)
        assert len(batch.encoded) == 2
        assert same(batch.to(loader.CPU), loaded(stream, number, slice(None), recolour=True)[0])


def test_the_loaders_rate_is_that_of_all_threads(stream: TrainingStream) -> None:
    rate = Rate()
    batches = list(training_batches(stream, RECIPE, 0, 3, rate=rate))
    assert rate.images == 9 == sum(len(batch.images) for batch in batches)
    assert rate.per_second == pytest.approx(rate.threads * 9 / rate.seconds) and rate.threads >= 1


def test_all_threads_decode_also_where_batches_are_small(
    stream: TrainingStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads meet, each in an image of its own: with batches as the unit of work no five would."""
    meeting = threading.Barrier(8)
    original = loader._load

    def meet(*args: Any, **options: Any) -> Any:
        meeting.wait(timeout=20)
        return original(*args, **options)

    monkeypatch.setattr(loader, "decode_threads", lambda: 8)
    monkeypatch.setattr(loader, "_load", meet)
    # 24 images: three full meetings.
    assert len(list(training_batches(stream, RECIPE, 0, 8))) == 8


def test_ending_early_leaves_no_thread(stream: TrainingStream) -> None:
    before = threading.active_count()
    batches = training_batches(stream, RECIPE, 0, 50)
    next(batches)
    batches.close()
    assert threading.active_count() == before

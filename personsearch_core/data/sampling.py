"""Several training sets as one endless stream of images, determined by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from personsearch_core.amounts import per_epoch
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import UNLABELLED


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Scenes and how often they come up per epoch. Give exactly one of `proportion`, `repeat` and `choose`.

    Parameters
    ----------
    scenes
        At least one.
    proportion
        Fraction of an epoch's images that come from here.
    repeat
        Passes over the scenes per epoch, also fractions of one.
    choose
        Images per epoch.
    identities
        Whether a joint training learns the identities of its people.

    Raises
    ------
    PersonSearchError
        If there are no scenes, or not exactly one positive amount.

    Examples
    --------
    >>> import numpy as np
    >>> scene = Scene("a", "a.jpg", 640, 480, np.empty((0, 4)), np.empty(0, bool), (), (), source="prw")
    >>> images_per_epoch([TrainingSet([scene] * 10, repeat=1.5), TrainingSet([scene] * 4, choose=2)])
    (15, 2)
    """

    scenes: Sequence[Scene]
    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None
    identities: bool = False

    @property
    def name(self) -> str:
        """Source of its scenes, for messages and logs."""
        return self.scenes[0].source

    def __post_init__(self) -> None:
        if not self.scenes:
            raise PersonSearchError("a training entry has no images: its split or filter matches none")
        given = {
            field: value
            for field in ("proportion", "repeat", "choose")
            if (value := getattr(self, field)) is not None
        }
        if len(given) != 1:
            raise PersonSearchError(
                f"training entry {self.name!r} needs exactly one of proportion, repeat and choose, "
                f"not {', '.join(given) or 'none of them'}"
            )
        field, value = next(iter(given.items()))
        if value <= 0:
            raise PersonSearchError(f"training entry {self.name!r}: {field} must be positive, not {value}")


def hold_out_scenes(
    entries: Sequence[TrainingSet], part: float, seed: int
) -> tuple[list[TrainingSet], list[Scene]]:
    """The entries without about `part` of their scenes, and those scenes, once each.

    A hash of (seed, image id) decides, so an image is held out of all entries that have it, whatever else is
    trained on. Held-out scenes are labelled `<source> held out`. Raises PersonSearchError if an entry keeps
    no scene, or if no scene is held out.
    """
    if part == 0:
        return list(entries), []
    kept: list[TrainingSet] = []
    held: dict[tuple[str, str], Scene] = {}
    for entry in entries:
        own = [scene for scene in entry.scenes if _is_held_out(scene, part, seed)]
        rest = [scene for scene in entry.scenes if not _is_held_out(scene, part, seed)]
        if not rest:
            raise PersonSearchError(
                f"held_out: {part:g} leaves training entry {entry.name!r} none of its "
                f"{len(entry.scenes)} images; lower it"
            )
        kept.append(replace(entry, scenes=rest))
        held |= {(scene.source, scene.image_id): scene for scene in own}
    if not held:
        raise PersonSearchError(
            f"held_out: {part:g} of {sum(len(entry.scenes) for entry in entries)} images is less than one: "
            "raise it"
        )
    return kept, [replace(scene, source=f"{scene.source} held out") for scene in held.values()]


def _is_held_out(scene: Scene, part: float, seed: int) -> bool:
    digest = hashlib.sha256(f"{seed}:{scene.image_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < part * 2**64


def images_per_epoch(entries: Sequence[TrainingSet]) -> tuple[int, ...]:
    """Images of each entry per epoch; see `per_epoch`."""
    return per_epoch(entries, [len(entry.scenes) for entry in entries])


class TrainingStream:
    """Training images numbered from 0: number `i` is always the same (entry, scene).

    An epoch shuffles the images of all entries: of each, whole passes over its scenes, and the rest drawn
    without replacement.
    """

    def __init__(self, entries: Sequence[TrainingSet], seed: int) -> None:
        self.entries = tuple(entries)
        self.counts = images_per_epoch(entries)
        self.epoch_size = sum(self.counts)
        self.names = _distinct_names(entries)
        self.identities = _identities(entries)
        """Label of each identity to learn, by its source and name."""
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled_epoch)

    def __getitem__(self, number: int) -> tuple[int, Scene]:
        """(index of the entry, its scene)."""
        epoch, position = divmod(number, self.epoch_size)
        entry, scene = self._order(epoch)[position]
        return int(entry), self.entries[entry].scenes[scene]

    def people(self, entry: int, scene: Scene) -> NDArray[np.int64] | None:
        """Labels (n,) of a scene's boxes, or None if the entry's identities are not learnt."""
        if not self.entries[entry].identities:
            return None
        labels = (self.identities.get((scene.source, name), UNLABELLED) for name in scene.person_ids)
        return np.fromiter(labels, np.int64, len(scene.person_ids))

    def generator(self, number: int) -> np.random.Generator:
        """Random generator of image `number`, for its augmentation."""
        return np.random.default_rng([self._seed, 1, number])

    def _shuffled_epoch(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, 0, epoch])
        parts = []
        for index, (entry, count) in enumerate(zip(self.entries, self.counts, strict=True)):
            passes, rest = divmod(count, len(entry.scenes))
            scenes = np.concatenate(
                [
                    np.tile(np.arange(len(entry.scenes)), passes),
                    rng.choice(len(entry.scenes), rest, replace=False),
                ]
            )
            parts.append(np.stack([np.full(count, index), scenes], axis=1))
        order = np.concatenate(parts).astype(np.int64)
        return order[rng.permutation(len(order))]


def _identities(entries: Sequence[TrainingSet]) -> dict[tuple[str, str | None], int]:
    """Unknown people have no entry."""
    scenes = (scene for entry in entries if entry.identities for scene in entry.scenes)
    named = {(scene.source, name) for scene in scenes for name in scene.person_ids if name is not None}
    return {identity: label for label, identity in enumerate(sorted(named))}


def _distinct_names(entries: Sequence[TrainingSet]) -> tuple[str, ...]:
    """The entries' names; those that share one are numbered."""
    names = [entry.name for entry in entries]
    return tuple(
        name if names.count(name) == 1 else f"{name}#{names[:index].count(name)}"
        for index, name in enumerate(names)
    )

"""From pictures of a person to an embedding, and from that to matches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.errors import ConfigError
from flows.search.filters import Filters, rows_of_images
from flows.search.index import Index
from flows.search.results import Results, matches_of
from personsearch_core.data.decoding import ImageSource, as_pixels
from personsearch_core.search.people import FoundPeople, Person
from personsearch_core.search.top_k import Similarities
from storage.digests import digest_file

Shot = tuple[ImageSource, Sequence[float] | None] | int
"""One more picture of the person, with a box or None; or a row of the index."""


@dataclass(frozen=True, eq=False)
class QueryRequest:
    """Who is searched for; see `Index.search`."""

    image: ImageSource | None = None
    box: Sequence[float] | None = None
    point: Sequence[float] | None = None
    person: int | None = None
    whole_image: bool = False
    shots: tuple[Shot, ...] = ()
    embedding: Tensor | NDArray[Any] | None = None

    def check(self) -> None:
        """Raise ConfigError if nothing is asked for, or two things at once."""
        ways = {
            "a box": self.box is not None,
            "a point": self.point is not None,
            "a person": self.person is not None,
            "the whole image": self.whole_image,
        }
        chosen = [name for name, given in ways.items() if given]
        if len(chosen) > 1:
            raise ConfigError(f"the query is given by {' and by '.join(chosen)}: choose one")
        if self.image is not None and self.embedding is not None:
            raise ConfigError("the query is given as an image and as an embedding: choose one")
        if self.image is None and chosen:
            raise ConfigError(f"{chosen[0]} needs an image that it refers to")
        if self.image is None and self.embedding is None and not self.shots:
            raise ConfigError("the query is missing: give an image, shots or an embedding")


@dataclass(frozen=True, eq=False)
class _Chosen:
    """One picture's part of the query."""

    embedding: Tensor
    box: tuple[float, ...]
    person: int | None


def answer(
    index: Index,
    request: QueryRequest,
    filters: Filters,
    *,
    top: int,
    without_image: bool,
    every_frame: bool,
    approximate: bool = False,
) -> Results:
    """`Index.search`."""
    request.check()
    if top < 1:
        raise ConfigError(f"top is {top}: ask for at least one match")
    kept = filters.kept(index)
    if without_image:
        hidden = _rows_of_query(index, request)
        kept = ~hidden if kept is None else kept & ~hidden
    told: dict[str, Any] = {"image": _name(request.image), "box": None, "person": None}
    embeddings = []
    if request.image is not None:
        chosen = _choose(index, request)
        if isinstance(chosen, FoundPeople):
            return Results(told, choices=chosen, index=index)
        told |= {"box": list(chosen.box), "person": chosen.person}
        embeddings.append(chosen.embedding)
    elif request.embedding is not None:
        embeddings.append(_given_embedding(index, request.embedding))
    embeddings += [_of_shot(index, shot, request.whole_image) for shot in request.shots]
    told["shots"] = len(embeddings)
    told["approximate"] = approximate
    ranking = _ranking(index, _mean(embeddings), kept, approximate)
    rows, similarities = _best(index, ranking, top, every_frame)
    return Results(told, matches_of(index, rows.tolist(), similarities.tolist()), index=index)


Ranking = Callable[[int], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""The best rows and their similarities, for a number of them."""


def _ranking(index: Index, query: Tensor, kept: NDArray[np.bool_] | None, approximate: bool) -> Ranking:
    @cache
    def exact() -> Similarities:
        blocks = [torch.from_numpy(block) for block in index.blocks]
        return Similarities(blocks, query, index.embeddings.coarse)

    def best(count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        near = index.approximate.best(query, count, kept) if approximate else None
        return exact().best(count, kept) if near is None else near

    return best


def _best(
    index: Index, ranking: Ranking, top: int, every_frame: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    tracks = index.table["track"]
    if every_frame or tracks.null_count == len(tracks):
        return ranking(top)
    track_of = tracks.fill_null(-1).to_numpy()
    count = 4 * top
    while True:
        rows, values = ranking(count)
        own = np.where(track_of[rows] < 0, -1 - np.arange(len(rows)), track_of[rows])
        first = np.sort(np.unique(own, return_index=True)[1])
        if len(first) >= top or len(rows) < count:
            return rows[first[:top]], values[first[:top]]
        count *= 4


def _choose(index: Index, request: QueryRequest) -> _Chosen | FoundPeople:
    """The person of the query picture, or the people to choose from."""
    assert request.image is not None
    pixels = as_pixels(request.image)
    height, width = pixels.shape[-2:]
    whole = (0.0, 0.0, float(width), float(height))
    if request.whole_image:
        return _embedded(index, pixels, whole)
    if request.box is not None:
        return _embedded(index, pixels, _checked(request.box, pixels))
    people = index.people(pixels)
    if request.point is not None:
        return _of_person(_at(people, request.point))
    if request.person is not None:
        if not 1 <= request.person <= len(people):
            raise ConfigError(f"there is no person {request.person} in the picture: {_numbered(people)}")
        return _of_person(people[request.person - 1])
    if len(people) > 1:
        return people
    return _of_person(people[0]) if people else _embedded(index, pixels, whole)


def _of_shot(index: Index, shot: Shot, is_whole: bool) -> Tensor:
    if isinstance(shot, int):
        return torch.from_numpy(index.embedding(shot))
    image, box = shot
    chosen = _choose(index, QueryRequest(image, box, whole_image=is_whole and box is None))
    if isinstance(chosen, FoundPeople):
        raise ConfigError(f"{_name(image) or 'a shot'} shows {len(chosen)} people: give the box of one")
    return chosen.embedding


def _embedded(index: Index, pixels: Tensor, box: tuple[float, ...]) -> _Chosen:
    (found,) = index.net.search([pixels], [np.array([box], np.float32)])
    return _Chosen(found.embeddings[0].float().cpu(), box, None)


def _of_person(person: Person) -> _Chosen:
    return _Chosen(person.embedding, person.box, person.number)


def _at(people: FoundPeople, point: Sequence[float]) -> Person:
    """The person at a point; of several the smallest box, which is the one in front or inside."""
    if len(point) != 2:
        raise ConfigError(f"a point has two numbers, x and y; got {len(point)}")
    x, y = point
    there = [p for p in people if p.box[0] <= x < p.box[2] and p.box[1] <= y < p.box[3]]
    if not there:
        raise ConfigError(f"no person was found at {x:g},{y:g}: {_numbered(people)}; or give a box")
    return min(there, key=lambda p: (p.box[2] - p.box[0]) * (p.box[3] - p.box[1]))


def _numbered(people: FoundPeople) -> str:
    if not people:
        return "no person was found in it"
    listed = [f"{p.number} at {', '.join(f'{value:.0f}' for value in p.box)}" for p in people[:8]]
    more = f" and {len(people) - 8} more" if len(people) > 8 else ""
    return f"it shows {'; '.join(listed)}{more}"


def _checked(box: Sequence[float], pixels: Tensor) -> tuple[float, ...]:
    height, width = pixels.shape[-2:]
    if len(box) != 4 or not np.isfinite(np.asarray(box, float)).all():
        raise ConfigError(f"a box has four finite numbers x1, y1, x2, y2; got {', '.join(map(str, box))}")
    x1, y1, x2, y2 = (float(value) for value in box)
    if not (x1 < min(x2, width) and y1 < min(y2, height) and min(x2, y2) > 0):
        corners = ", ".join(f"{value:g}" for value in (x1, y1, x2, y2))
        raise ConfigError(f"the box {corners} has no area inside the image, which is {width}x{height} pixels")
    return x1, y1, x2, y2


def _given_embedding(index: Index, given: Tensor | NDArray[Any]) -> Tensor:
    embedding = torch.as_tensor(given).detach().float().cpu().flatten()
    if len(embedding) != index.description.dimensions or not bool(torch.isfinite(embedding).all()):
        raise ConfigError(
            f"an embedding of this index has {index.description.dimensions} finite numbers; "
            f"got {len(embedding)}"
        )
    return embedding


def _mean(embeddings: Sequence[Tensor]) -> Tensor:
    """One query out of several shots, as the evaluation pools them: normalised before and after."""
    if len(embeddings) == 1:
        return embeddings[0]
    units = torch.nn.functional.normalize(torch.stack(list(embeddings)), dim=1)
    return torch.nn.functional.normalize(units.mean(0), dim=0)


def _rows_of_query(index: Index, request: QueryRequest) -> NDArray[np.bool_]:
    """People of files with the content or the path of a query image."""
    images = [request.image] if request.image is not None else []
    images += [shot[0] for shot in request.shots if not isinstance(shot, int)]
    if not any(isinstance(image, str | Path | bytes) for image in images):
        raise ConfigError("the query's image can only be left out if it is given as a file or as its bytes")
    paths = [Path(image) for image in images if isinstance(image, str | Path)]
    hidden = rows_of_images(index, paths)
    digests = {digest_file(path) for path in paths if path.is_file()}
    digests |= {hashlib.sha256(image).hexdigest() for image in images if isinstance(image, bytes)}
    same = np.isin(index.sources["sha256"].to_numpy(zero_copy_only=False), list(digests))
    return hidden | np.isin(index.table["source"].to_numpy(), np.flatnonzero(same))


def _name(image: ImageSource | None) -> str | None:
    return str(image) if isinstance(image, str | Path) else None

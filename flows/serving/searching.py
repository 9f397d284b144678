"""Answers out of an index that is open: what the routes of `app` say, without HTTP."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from flows.errors import ConfigError
from flows.search.committing import Updating
from flows.search.index import Index, open_index
from flows.search.judgements import Judged, Judgements, rows_of_track
from flows.search.layout import DESCRIPTION, no_index
from flows.search.pictures import scene_of
from flows.search.results import time_text
from flows.serving.answers import (
    About,
    Example,
    JudgedPerson,
    JudgementRequest,
    Query,
    SceneAnswer,
    SearchAnswer,
    SearchRequest,
    Shown,
    ShownMatch,
)
from flows.serving.drawing import DrawnJpeg, as_jpeg, crop_as_jpeg
from flows.serving.limits import Limits
from flows.serving.refusals import Refused
from flows.serving.uploads import RecentValues, Upload, found_in
from personsearch_core.search.people import Person

EXAMPLES = 8


class Served:
    """An index that is served, opened again when it has been updated; with its judgements."""

    def __init__(
        self,
        folder: Path,
        judgements: Judgements,
        *,
        device: str = "auto",
        roots: Mapping[str, Path] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.judgements = judgements
        self.limits = limits or Limits()
        self._uploads = RecentValues[Upload](self.limits.kept_bytes, lambda upload: upload.bytes)
        self._drawn = RecentValues[DrawnJpeg](self.limits.drawn_bytes, lambda drawn: len(drawn.jpeg))
        self._folder, self._device, self._roots = folder, device, roots
        self._opening = threading.Lock()
        self._stamp, self._index = self._opened()

    @property
    def index(self) -> Index:
        """The index as it is now."""
        with self._opening:
            if _stamp(self._folder) != self._stamp:
                with suppress(Updating):  # what is in memory is whole; the next request looks again
                    self._stamp, self._index = self._opened(self._index)
            return self._index

    def about(self) -> About:
        index = self.index
        times = index.time_range
        first, last = (time_text(each, None) for each in times) if times else (None, None)
        return About(
            version=version_of(index),
            people=len(index),
            files=index.description.sources,
            cameras=list(index.cameras),
            first_time=first,
            last_time=last,
            has_videos=index.table["time_code"].null_count < len(index),
            names=list(self.judgements.names()),
            max_upload_bytes=self.limits.upload_bytes,
            max_upload_pixels=self.limits.upload_pixels,
            max_matches=self.limits.most_matches,
        )

    def examples(self) -> list[Example]:
        """Scenes with people, spread over the index; those of a video count as one file."""
        index = self.index
        sources = index.table["source"].to_numpy()
        found, first = np.unique(sources, return_index=True)
        chosen = np.linspace(0, len(found) - 1, min(EXAMPLES, len(found))).round().astype(int)
        rows = first[chosen].tolist()
        return [
            Example(row=row, image=_image(index.row(row)["image"]), people=len(same_picture(index, row)))
            for row in rows
        ]

    def scene(self, row: int) -> SceneAnswer:
        """Raises Refused (404) if the index has no such row, or its file cannot be read any more."""
        index = self.index
        drawn = self.drawn("scene", row)
        told = shown(index, row)
        people = [shown(index, each) for each in same_picture(index, row)]
        return SceneAnswer(
            image=told.image,
            width=drawn.width,
            height=drawn.height,
            camera=told.camera,
            time=told.time,
            people=people,
        )

    def drawn(self, what: str, row: int) -> DrawnJpeg:
        """A row's "crop" or "scene" as JPEG. Raises what `scene` raises."""
        index = self.index
        require_row(index, row)
        key = f"{what}/{row}/{version_of(index)}"
        if (found := self._drawn.get(key)) is None:
            try:
                _require_unchanged(index, row)
                scene = scene_of(index, row)
                found = as_jpeg(scene) if what == "scene" else crop_as_jpeg(scene, index.box(row))
            except (ValueError, OSError) as error:
                raise Refused(404, f"the picture of row {row} cannot be read any more") from error
            self._drawn.add(key, found)
        return found

    def receive(self, encoded: bytes) -> Upload:
        """Find the people in a picture and keep it. Raises Refused (413 or 415)."""
        upload = found_in(self.index, encoded, self.limits.upload_pixels)
        self._uploads.add(upload.token, upload)
        return upload

    def upload(self, token: str) -> Upload:
        """Raises Refused (404) if it is not in memory, or its people were found by another model."""
        found = self._uploads.get(token)
        if found is None or found.model != self.index.description.model:
            raise Refused(404, "this picture is not in memory any more: choose it again")
        return found

    def sent(self, token: str, person: int | None) -> DrawnJpeg:
        """A picture that was sent, or the crop of one of its people. Raises Refused (404) without them."""
        upload = self.upload(token)
        if person is None:
            return upload.drawn
        return crop_as_jpeg(upload.people.picture(), _person_of(upload, person).box)

    def judged(self, name: str) -> JudgedPerson:
        index = self.index
        found = self.judgements.of(index, name)
        return JudgedPerson(
            name=name,
            confirmed=[shown(index, row) for row in found.confirmed],
            rejected=[shown(index, row) for row in found.rejected],
            missing=found.missing,
        )

    def judge(self, judgement: JudgementRequest) -> JudgedPerson:
        """Raises Refused if the index has no such rows (404), or was updated since (409)."""
        index = self.index
        require_version(index, judgement.version)
        for row in judgement.rows:
            require_row(index, row)
        self.judgements.add(index, judgement.name, judgement.verdict, judgement.rows)
        return self.judged(judgement.name)

    def search(self, asked: SearchRequest) -> SearchAnswer:
        """Raises Refused or ConfigError for a query that does not fit."""
        index = self.index
        require_version(index, asked.version)
        _require_one_query(asked)
        judged = self.judgements.of(index, asked.name) if asked.name else Judged()
        query = self._query(index, asked, judged.confirmed)
        own = [] if asked.own_image else self._own_picture(index, asked)
        results = index.search(
            **query,
            cameras=asked.camera,
            after=asked.after,
            before=asked.before,
            top=asked.top,
            exclude=sorted({*judged.left_out, *own}),
            every_frame=asked.every_frame,
        )
        told = Query(
            row=asked.row,
            picture=asked.picture,
            person=asked.person,
            box=query.get("box"),
            name=asked.name,
            shots=results.query["shots"],
        )
        matches = [
            ShownMatch(
                **shown(index, match.person_row).model_dump(),
                rank=match.rank,
                similarity=match.similarity,
                verdict="confirmed" if match.person_row in judged.confirmed else None,
            )
            for match in results.matches
        ]
        return SearchAnswer(
            version=version_of(index), query=told, matches=matches, hidden=len(judged.rejected)
        )

    def _query(self, index: Index, asked: SearchRequest, confirmed: Sequence[int]) -> dict[str, Any]:
        """Arguments of `Index.search` that say who is searched for."""
        if asked.row is not None:
            require_row(index, asked.row)
            return {"shots": list(dict.fromkeys([asked.row, *confirmed]))}
        if asked.picture is not None:
            return {**_query_of(self.upload(asked.picture), asked), "shots": confirmed}
        if not confirmed:
            raise Refused(422, f"no shot is confirmed for {asked.name}: choose a picture")
        return {"shots": confirmed}

    def _own_picture(self, index: Index, asked: SearchRequest) -> list[int]:
        """The rows of the query's own picture, in a video of its own track, too."""
        if asked.row is not None:
            return [*same_picture(index, asked.row), *rows_of_track(index, asked.row)]
        return [] if asked.picture is None else _same_content(index, self.upload(asked.picture).sha256)

    def _opened(self, before: Index | None = None) -> tuple[tuple[int, int], Index]:
        """The index as it is now, with all that an update would replace read or mapped."""
        stamp = _stamp(self._folder)
        index = open_index(self._folder, self._device, roots=self._roots)
        if before is not None and before.description.model == index.description.model:
            index.net = before.net
        for part in ("embeddings", "sources", "net"):
            getattr(index, part)
        return stamp, index


def needs_model(asked: SearchRequest) -> bool:
    """Whether a search runs the model: known people of pictures and rows of the index have embeddings."""
    return asked.picture is not None and (asked.box is not None or asked.whole_image)


def version_of(index: Index) -> str:
    return index.description.content[:12]


def require_version(index: Index, given: str | None) -> None:
    """Raise Refused (409) if rows are those of an index that was updated since."""
    if given is not None and given != version_of(index):
        raise Refused(409, "the index has been updated since: search again")


def require_row(index: Index, row: int) -> None:
    if not 0 <= row < len(index):
        raise Refused(404, f"the index has no row {row}: it has {len(index):,}, numbered from 0")


def same_picture(index: Index, row: int) -> list[int]:
    """All people in the image or frame of a row, by row."""
    source = index.table["source"].to_numpy()
    first, last = np.searchsorted(source, [source[row], source[row] + 1])
    frame = index.table["frame"].slice(first, last - first).fill_null(-1).to_numpy()
    rows: list[int] = (first + np.flatnonzero(frame == frame[row - first])).tolist()
    return rows


def shown(index: Index, row: int) -> Shown:
    """What clients are told of a row."""
    told = index.row(row)
    return Shown(
        row=row,
        image=_image(told["image"]),
        box=index.box(row),
        score=told["score"],
        camera=told["camera"],
        time=time_text(told["time"], told["time_code"]),
        time_code=told["time_code"],
        track=told["track"],
    )


def _require_unchanged(index: Index, row: int) -> None:
    """Raise ConfigError if a file has another size than when it was indexed: it shows something else."""
    path, size = index.path(row), index.sources["bytes"][index.row(row)["source"]].as_py()
    if path.stat().st_size != size:
        raise ConfigError(f"{path} has changed since it was indexed")


def _image(name: str) -> str:
    """The path of an image within its place: clients do not learn where that is."""
    image = Path(name)
    return image.name if image.is_absolute() or ".." in image.parts else image.as_posix()


def _require_one_query(asked: SearchRequest) -> None:
    if asked.row is not None and asked.picture is not None:
        raise Refused(422, "the query is given by row and by picture: choose one")
    if asked.row is None and asked.picture is None and asked.name is None:
        raise Refused(422, "the query is missing: give a row, a picture or a name")
    chosen = [asked.person is not None, asked.box is not None, asked.whole_image]
    if sum(chosen) > 1:
        raise Refused(422, "give one of person, box and whole_image")
    if any(chosen) and asked.picture is None:
        raise Refused(422, "person, box and whole_image refer to a picture: give its token")


def _query_of(upload: Upload, asked: SearchRequest) -> dict[str, Any]:
    """Arguments of `Index.search` for a picture that was sent."""
    people = upload.people
    if asked.box is not None:
        return {"image": people.pixels, "box": tuple(map(float, asked.box.split(",")))}
    if asked.whole_image:
        return {"image": people.pixels, "whole_image": True}
    if asked.person is None and len(people) == 1:
        return {"embedding": people[0].embedding}
    if asked.person is None:
        raise Refused(422, f"{len(people)} people are in the picture: choose by person, box or whole_image")
    return {"embedding": _person_of(upload, asked.person).embedding}


def _person_of(upload: Upload, number: int) -> Person:
    if number > len(upload.people):
        raise Refused(404, f"there is no person {number} in the picture: it has {len(upload.people)}")
    return upload.people[number - 1]


def _same_content(index: Index, sha256: str) -> list[int]:
    """The rows of files with this content."""
    sources = np.flatnonzero(index.sources["sha256"].to_numpy(zero_copy_only=False) == sha256)
    rows: list[int] = np.flatnonzero(np.isin(index.table["source"].to_numpy(), sources)).tolist()
    return rows


def _stamp(folder: Path) -> tuple[int, int]:
    """Changes when an update is put in place: `index.json` is the last file to be replaced."""
    try:
        found = (folder / DESCRIPTION).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_index(folder) from error
    return found.st_mtime_ns, found.st_ino

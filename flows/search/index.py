"""An index that is open: who is in it, and who of them looks like a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.errors import ConfigError
from flows.search.committing import settle
from flows.search.embeddings import Embeddings, load_embeddings
from flows.search.filters import Filters, When
from flows.search.layout import (
    EMBEDDINGS,
    MODEL,
    Description,
    IndexedPlace,
    no_index,
    read_description,
    read_people,
    read_sources,
)
from flows.search.model import load_exported
from flows.search.results import Results, box_of
from flows.search.sources import located
from flows.search.verification import require_read

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from flows.search.approximate import Approximate
    from flows.search.query import Shot
    from personsearch_core.data.decoding import ImageSource
    from personsearch_core.search.network import PersonSearchNet
    from personsearch_core.search.people import FoundPeople


def open_index(path: str | Path, device: str = "auto", *, roots: Mapping[str, Path] | None = None) -> Index:
    """Open an index that `build_index` or `personsearch index` made.

    Only the table of people is read now, and checked against its digest. Embeddings are read by the first
    search, and trusted by their size (`personsearch index --verify` reads every byte); the model is loaded
    when a picture is first searched for people.

    Parameters
    ----------
    path
        The index's folder.
    device
        Where the model runs: auto, cpu, cuda, cuda:1 ...
    roots
        Where scenes are now, by the places where they were indexed.

    Raises
    ------
    ConfigError
        If the folder holds no index, or a damaged one.

    Examples
    --------
    >>> index = open_index("var/demo/index")                                     # doctest: +SKIP
    >>> results = index.search("someone.jpg", person=1, cameras=["entrance"])    # doctest: +SKIP
    """
    folder = Path(path)
    if folder.is_file():
        raise no_index(folder)
    settle(folder)
    require_read(folder)
    return Index(folder, read_description(folder), device, roots or {})


class Index:
    """The people of an index; made by `open_index`."""

    def __init__(
        self,
        folder: Path,
        description: Description,
        device: str,
        roots: Mapping[str, Path],
        net: PersonSearchNet | None = None,
    ) -> None:
        self.folder = folder
        self.description = description
        self.places: tuple[IndexedPlace, ...] = tuple(
            located(place, folder, roots) for place in description.places
        )
        self._device = device
        if net is not None:
            self.net = net
        self.table = read_people(folder, description)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        places = ", ".join(place.path for place in self.places)
        return f"<Index of {len(self):,} people in {self.description.sources:,} files: {places}>"

    def _repr_html_(self) -> str:
        from flows.search.pictures import index_html

        return index_html(self)

    @cached_property
    def net(self) -> PersonSearchNet:
        """The model, loaded when it is first needed."""
        return load_exported(self.folder / MODEL, self._device)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, sorted."""
        names = pc.unique(self.table["camera"].combine_chunks().dictionary_decode()).to_pylist()
        return tuple(sorted(name for name in names if name is not None))

    @property
    def time_range(self) -> tuple[datetime, datetime] | None:
        """The first and the last time at which a person was seen; None if no picture has a time."""
        ends = pc.min_max(self.table["time"]).as_py()
        return None if ends["min"] is None else (ends["min"], ends["max"])

    def people(self, image: ImageSource) -> FoundPeople:
        """The people in a picture, best first and numbered from 1, found as those of the index were.

        Raises PersonSearchError if the picture cannot be read.
        """
        return self.net.people(image, **self.description.settings.finding())

    def search(
        self,
        image: ImageSource | None = None,
        box: Sequence[float] | None = None,
        point: Sequence[float] | None = None,
        person: int | None = None,
        whole_image: bool = False,
        shots: Sequence[Shot] = (),
        embedding: Tensor | NDArray[Any] | None = None,
        cameras: Sequence[str] = (),
        after: When = None,
        before: When = None,
        top: int = 10,
        exclude: Sequence[int | str | Path] = (),
        exclude_query_image: bool = False,
        every_frame: bool = False,
        approximate: bool = False,
    ) -> Results:
        """Find a person in the index.

        Parameters
        ----------
        image
            A picture of the person: a file, bytes, a PIL image or uint8 (3, H, W).
        box, point, person, whole_image
            Who in the picture: a box x1, y1, x2, y2 or a point x, y in pixels, a number of `people`, or the
            whole picture as a crop, also of `shots` without a box. By default the one person in it, or the
            whole picture if none is found.
            If several are found, the results have no matches but the people to choose from, as `choices`.
        shots
            More pictures of the same person: (image, box), with None for a box as above, or rows of the
            index. The query is the mean of all.
        embedding
            (D,): instead of an image.
        cameras, after, before
            Only people seen by these cameras, at or after, and before a time: a datetime, ISO text, or for
            videos a time code, in seconds or as H:MM:SS.
        top
            Number of matches.
        exclude
            Rows, or files, to leave out.
        exclude_query_image
            Leave out files with the content or the path of a query image.
        every_frame
            Whether people in videos match frame by frame; by default each track matches once, in its best
            frame.
        approximate
            Whether to use the approximate index, which `build_approximate` has made. Where a filter leaves
            too few of what it finds, the search is exact.

        Raises
        ------
        ConfigError
            If the query is missing or does not fit, or a filter is not understood.
        PersonSearchError
            If an image cannot be read.
        """
        from flows.search.query import QueryRequest, answer

        request = QueryRequest(image, box, point, person, whole_image, tuple(shots), embedding)
        filters = Filters(tuple(cameras), after, before, tuple(exclude))
        return answer(
            self,
            request,
            filters,
            top=top,
            without_image=exclude_query_image,
            every_frame=every_frame,
            approximate=approximate,
        )

    def picture(
        self, what: int | str | Path, *, scene: bool = False, size: tuple[int, int] | None = None
    ) -> Image:
        """A person's crop by row, or the scene with the person outlined; or an indexed image by its path.

        Parameters
        ----------
        what
            A row, or the path of an indexed image.
        scene
            The whole scene of the row instead of the crop.
        size
            Maximum (width, height).

        Raises
        ------
        ConfigError
            If the row or the path is not in the index.
        PersonSearchError
            If the file cannot be read any more.
        """
        from flows.search.pictures import picture

        return picture(self, what, scene=scene, size=size)

    def path(self, row: int) -> Path:
        """The file in which a person was seen."""
        return self.path_of(self.row(row))

    def box(self, row: int) -> tuple[float, float, float, float]:
        """A person's box: x1, y1, x2, y2 in pixels of the image."""
        return box_of(self.row(row))

    def path_of(self, person: Mapping[str, Any]) -> Path:
        """The file in which someone was seen, of whom `row` says this."""
        place: IndexedPlace = self.places[person["place"]]
        return place.root / str(person["image"])

    def row(self, row: int) -> dict[str, Any]:
        """All that the index says of a person."""
        return self.rows([row])[0]

    def rows(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """All that the index says of some people."""
        for row in rows:
            if not 0 <= row < len(self):
                raise self._absent(row)
        told: list[dict[str, Any]] = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        return told

    def embedding(self, row: int) -> NDArray[np.float32]:
        """A person's embedding, (D,)."""
        first = 0
        for block in self.blocks:
            if row < first + len(block):
                return np.asarray(block[row - first], np.float32)
            first += len(block)
        raise self._absent(row)

    @property
    def blocks(self) -> list[NDArray[np.float16]]:
        """The embeddings, in blocks of rows."""
        return self.embeddings.blocks

    @cached_property
    def embeddings(self) -> Embeddings:
        """The embeddings, ready to be searched, from the first search on."""
        loaded = load_embeddings(self.folder / EMBEDDINGS, self.description.content)
        blocks = loaded.blocks
        if sum(map(len, blocks)) != len(self) or any(
            block.shape[1] != self.description.dimensions for block in blocks
        ):
            raise ConfigError(f"{self.folder / EMBEDDINGS} does not fit the people: rebuild the index")
        return loaded

    @cached_property
    def approximate(self) -> Approximate:
        """The approximate index. Raises ConfigError if it is missing or older than the index."""
        from flows.search.approximate import Approximate

        return Approximate(self)

    @cached_property
    def sources(self) -> pa.Table:
        """The files of the index, with their digests."""
        return read_sources(self.folder, self.description)

    def _absent(self, row: int) -> ConfigError:
        return ConfigError(f"the index has no person {row}: it has {len(self):,}, numbered from 0")

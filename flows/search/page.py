"""Results as a page: one HTML file with a strip of pictures, without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from flows.pages.page import render_page
from flows.search.pictures import CROP_SIZE, crop_of
from flows.search.results import Results
from personsearch_core.data.decoding import as_pixels
from personsearch_core.drawing import as_data_uri, cropped, fitted
from personsearch_core.search.people import FoundPeople

_PICTURE_SIZE = (880, 660)


@dataclass(frozen=True)
class _Picture:
    src: str
    width: int
    height: int
    alt: str = ""
    label: str = ""
    note: str = ""
    rank: int = 0


def results_page(results: Results) -> str:
    """The page of `personsearch search --html`."""
    picture = None
    if isinstance(results.choices, FoundPeople) and results.choices:
        picture = _picture(fitted(results.choices.draw(), _PICTURE_SIZE))
    return render_page(
        Path(__file__).with_name("template"),
        "results.html.j2",
        title="Person search",
        lead=_lead(results),
        choices=results.choices,
        picture=picture,
        matches=results.matches,
        tiles=list(_tiles(results)) if results.matches else [],
    )


def _lead(results: Results) -> str:
    if results.choices:
        return f"{len(results.choices)} people were found in {results.query['image']}: which one is it?"
    query = results.query
    shots = f", with {query['shots'] - 1} more shots" if query["shots"] > 1 else ""
    return f"Who looks like the person in {query['image'] or 'the query'}{shots}?"


def _tiles(results: Results) -> Iterator[_Picture]:
    """The query, if it is a file, and its matches."""
    query = results.query
    if query["image"] and query["box"]:
        pixels = as_pixels(query["image"])
        whole = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        yield _picture(fitted(cropped(whole, query["box"]), CROP_SIZE), alt="The query", label="query")
    if results.index is None:
        return
    for match in results.matches:
        crop = crop_of(results.index, match)
        name = Path(match.image).name
        yield _picture(
            crop or Image.new("RGB", CROP_SIZE, "grey"),
            alt=f"Match {match.rank}, in {name}" if crop else f"Match {match.rank}: {name} is missing",
            label=f"{match.rank}. {match.similarity:.3f}",
            note=" ".join(each for each in (match.camera, match.time) if each) or name,
            rank=match.rank,
        )


def _picture(
    image: Image.Image, *, alt: str = "", label: str = "", note: str = "", rank: int = 0
) -> _Picture:
    return _Picture(as_data_uri(image), image.width, image.height, alt, label, note, rank)

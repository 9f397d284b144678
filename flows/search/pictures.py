"""Pictures of an index: crops and scenes, and how an index and results draw themselves in a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path

from PIL import Image

from flows.errors import ConfigError
from flows.search.filters import rows_of_images
from flows.search.index import Index
from flows.search.results import Match, Results, shown_path
from flows.search.sources import is_video
from flows.search.video import frame_at
from personsearch_core.data.decoding import read_image
from personsearch_core.drawing import as_data_uri, cropped, fitted, outline
from personsearch_core.errors import PersonSearchError

CROP_SIZE = (96, 192)
_FIGURE = "display:inline-block;margin:4px;text-align:center;font-size:12px;vertical-align:top"


def picture(
    index: Index, what: int | str | Path, *, scene: bool = False, size: tuple[int, int] | None = None
) -> Image.Image:
    """See `Index.picture`."""
    if isinstance(what, int):
        whole = scene_of(index, what)
        shown = outline(whole, [index.box(what)]) if scene else cropped(whole, index.box(what))
    else:
        path = Path(what).absolute()
        if is_video(path) or not rows_of_images(index, [path]).any():
            raise ConfigError(f"{what} is not an image of the index that shows people")
        shown = _as_image(path)
    return shown if size is None else fitted(shown, size)


def scene_of(index: Index, row: int) -> Image.Image:
    """The image, or the frame of a video, in which a person was seen."""
    path, time_code = index.path(row), index.row(row)["time_code"]
    return _as_image(path, time_code)


def _as_image(path: Path, time_code: float | None = None) -> Image.Image:
    pixels = read_image(path) if time_code is None else frame_at(path, time_code)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def crop_of(index: Index, match: Match) -> Image.Image | None:
    """The crop of a match; None if its file cannot be read any more."""
    try:
        return picture(index, match.person_row, size=CROP_SIZE)
    except (PersonSearchError, ConfigError):
        return None


def results_html(results: Results) -> str:
    """Results as a strip of crops, or the people to choose from."""
    if results.choices:
        drawn = getattr(results.choices, "_repr_html_", None)
        return (drawn() if drawn else "") + "<p>Several people: search again with person=NUMBER.</p>"
    if not results.matches or results.index is None:
        return "<p>No match.</p>"
    return "<div>" + "".join(_tile(results.index, match) for match in results.matches) + "</div>"


def _tile(index: Index, match: Match) -> str:
    crop = crop_of(index, match)
    shown = (
        "<div>(file is missing)</div>"
        if crop is None
        else f'<img src="{as_data_uri(crop)}" alt="match {match.rank}">'
    )
    told = [f"{match.rank}. {match.similarity:.3f}", Path(match.image).name, match.camera, match.time]
    lines = "<br>".join(escape(str(each)) for each in told if each)
    caption = f"<figcaption>{lines}</figcaption>"
    return f'<figure style="{_FIGURE}" title="{escape(match.image)}">{shown}{caption}</figure>'


def index_html(index: Index) -> str:
    """What an index holds, as a small table."""
    first_last = index.time_range
    told = {
        "people": f"{len(index):,}",
        "files": f"{index.description.sources:,}",
        "places": ", ".join(shown_path(place.path) for place in index.places),
        "cameras": ", ".join(index.cameras) or "unknown",
        "times": " to ".join(map(str, first_last)) if first_last else "unknown",
    }
    rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in told.items())
    return f"<table>{rows}</table>"

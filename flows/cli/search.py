"""`personsearch search`: find a person in an index, or in scenes that are indexed on the fly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from data_catalog.suggestions import near_file
from flows.cli.index import print_faults, progress_line, root_paths
from flows.cli.json_file import Json, to_write, write_json
from flows.cli.judge import JudgementsFile, judged_rows
from flows.cli.options import ConfigsStore, Device, SceneRoots, finite
from flows.cli.printing import plain_table, whole_lines
from flows.cli.run import Overrides
from flows.errors import ConfigError, missing
from flows.search.results import Results, shown_path
from flows.wording import counted

if TYPE_CHECKING:
    from flows.search.index import Index
    from flows.search.judgements import Judged


def search(
    index: Annotated[
        Path,
        typer.Argument(
            help="An index. Or, before SCENES, a config whose run has finished or a folder of `export`.",
            metavar="INDEX",
        ),
    ],
    scenes: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCENES",
            help="With a model: images, videos, lists of files, or folders of them, indexed for this search.",
        ),
    ] = None,
    query: Annotated[
        list[Path] | None, typer.Option(help="Image that shows the person; repeat for several shots.")
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X1,Y1,X2,Y2", help="Box around the person, in pixels; repeat for each --query."
        ),
    ] = None,
    point: Annotated[
        str | None, typer.Option(metavar="X,Y", help="A point on the person in the first --query, in pixels.")
    ] = None,
    person: Annotated[
        int | None,
        typer.Option(min=1, help="Number of the person in the first --query, as listed without it."),
    ] = None,
    whole_image: Annotated[
        bool, typer.Option("--whole-image", help="The whole image is the person: each --query is a crop.")
    ] = False,
    camera: Annotated[list[str] | None, typer.Option(help="Only matches of this camera; repeatable.")] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only matches at or after 2024-05-01T12:00, or 0:01:30 in videos."),
    ] = None,
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Only matches before this time.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Add the shots confirmed for this person to the query, or search with them alone; leave out "
            "rejected ones (`personsearch judge`).",
        ),
    ] = None,
    judgements: JudgementsFile = None,
    top: Annotated[int, typer.Option(min=1, help="Number of matches to show.")] = 10,
    exclude_query_image: Annotated[
        bool, typer.Option("--exclude-query-image", help="Leave out the files of the query itself.")
    ] = False,
    every_frame: Annotated[
        bool,
        typer.Option("--every-frame", help="In videos show every frame, not only the best of each track."),
    ] = False,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Use the approximate index, for millions of people.")
    ] = False,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, callback=finite, help="With SCENES: minimum detection score, as in `index`."
        ),
    ] = None,
    device: Device = "auto",
    root: SceneRoots = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=to_write("--html"),
            help="Also write a page with the pictures of the matches.",
        ),
    ] = None,
    overrides: Overrides = None,
    store: ConfigsStore = None,
    json: Json = None,
) -> None:
    """Find a person in an index. Most similar first.

    Without --box, --point, --person or --whole-image the query is the one person in the image, or the whole
    image if no person is found in it; several people are listed to choose from.

    Example: personsearch search configs/demo.yaml FRAMES --query FRAMES/a.jpg --box 127,93,164,183
    """
    for path in query or ():
        if path.is_dir():
            raise ConfigError(f"--query {path}: this is a folder; name an image in it")
        if not path.exists():
            raise ConfigError(f"--query: {missing(path, 'image')}{near_file(path)}")
    if not query and name is None:
        raise ConfigError("name the image that shows the person (--query)")
    boxes = _boxes(box or (), len(query or ()))
    at = _numbers("--point", point, 2) if point is not None else None
    with _opened(index, scenes or (), score_threshold, device, root or (), overrides, store) as opened:
        judged = judged_rows(opened, name, judgements)
        results = opened.search(
            query[0] if query else None,
            box=boxes[0] if boxes else None,
            point=at,
            person=person,
            whole_image=whole_image,
            shots=[*zip((query or ())[1:], boxes[1:], strict=True), *judged.confirmed],
            exclude=judged.left_out,
            cameras=camera or (),
            after=after,
            before=before,
            top=top,
            exclude_query_image=exclude_query_image,
            every_frame=every_frame,
            approximate=approximate,
        )
        body = results.as_json()
        if name is not None:
            _tell_judged(body, results, judged)
        write_json(json, body)
        if html is not None:
            from flows.search.page import results_page

            html.write_text(results_page(results), encoding="utf-8")
        _show(results, opened)


def _tell_judged(body: dict[str, Any], results: Results, judged: Judged) -> None:
    """Add to matches for a person their rows, which `personsearch judge` takes, and what was said of them."""
    for told, match in zip(body.get("matches", ()), results.matches, strict=False):
        verdict = "confirmed" if match.person_row in judged.confirmed else None
        told |= {"row": match.person_row, "verdict": verdict}


@contextmanager
def _opened(
    index: Path,
    scenes: Sequence[Path],
    score_threshold: float | None,
    device: str,
    root: Sequence[str],
    overrides: Sequence[str] | None,
    store: str | None,
) -> Iterator[Index]:
    """The index, or one of the scenes that lasts as long as the search."""
    from flows.search.index import open_index
    from flows.search.layout import is_index, no_index

    if not scenes:
        if not is_index(index) and index.exists():
            raise ConfigError(f"{no_index(index)}; or name scenes after a model")
        if score_threshold is not None:
            raise ConfigError("--score-threshold is a setting of the index: give it to `personsearch index`")
        yield open_index(index, device, roots=root_paths(index, root))
        return
    if is_index(index):
        raise ConfigError(f"{index} is an index: leave out the scenes, or add them with `personsearch index`")
    with tempfile.TemporaryDirectory(prefix="personsearch-index-") as folder:
        yield _on_the_fly(Path(folder) / "index", index, scenes, score_threshold, device, overrides, store)


def _on_the_fly(
    folder: Path,
    model: Path,
    scenes: Sequence[Path],
    score_threshold: float | None,
    device: str,
    overrides: Sequence[str] | None,
    store: str | None,
) -> Index:
    from flows.search.building import Where, build_index
    from flows.search.index import Index
    from flows.search.layout import read_description
    from flows.search.model import given_model

    given = given_model(model, overrides or (), store).loaded_once()
    settings = given.settings
    if score_threshold is not None:
        settings = settings.model_copy(update={"score_threshold": score_threshold})
    with progress_line() as progress:
        outcome = build_index(
            folder,
            scenes,
            given,
            settings=settings,
            where=Where(device=device),
            keep_model=False,
            progress=progress,
        )
    print_faults(outcome)
    if not outcome.images:
        raise ConfigError("none of the images can be read")
    return Index(folder, read_description(folder), device, {}, net=given.load(device))


def _show(results: Results, index: Index) -> None:
    if results.choices:
        table = plain_table("person", "score", "box")
        for person in results.choices:
            table.add_row(str(person.number), f"{person.score:.2f}", _corners(person.box))
        whole_lines().print(table)
        typer.echo(
            f"{len(results.choices)} people in {results.query['image']}: "
            "choose one with --person, --point or --box"
        )
        typer.echo(f"they are numbered in {_draw_choices(results)}")
        return
    if not results.matches:
        typer.echo(f"no match among {counted(len(index), 'person', 'people')}")
        return
    table = plain_table("rank", "row", "similarity", "score", "box", "camera", "time", "image")
    for match in results.matches:
        table.add_row(
            str(match.rank),
            str(match.person_row),
            f"{match.similarity:.3f}",
            f"{match.score:.2f}",
            _corners(match.box),
            Text(match.camera or ""),
            match.time or "",
            Text(shown_path(match.image)),
        )
    whole_lines().print(table)


def _draw_choices(results: Results) -> Path:
    """A picture of the numbered people, for who looks at a terminal."""
    from personsearch_core.search.people import FoundPeople

    assert isinstance(results.choices, FoundPeople)
    with tempfile.NamedTemporaryFile(prefix="personsearch-people-", suffix=".jpg", delete=False) as file:
        results.choices.draw().save(file, "JPEG", quality=85)
    return Path(file.name)


def _corners(box: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in box)


def _boxes(texts: Sequence[str], queries: int) -> list[list[float] | None]:
    """One box per query, or None."""
    boxes = [_numbers("--box", text, 4) for text in texts]
    if len(boxes) not in (0, queries):
        raise ConfigError(f"give --box once per --query ({queries} here) or not at all; got {len(boxes)}")
    return [*boxes] if boxes else [None] * queries


def _numbers(option: str, text: str, count: int) -> list[float]:
    names = {2: "X,Y", 4: "X1,Y1,X2,Y2"}[count]
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} takes {names} in pixels; got {text!r}") from error
    if len(numbers) != count:
        raise ConfigError(f"{option} takes {count} numbers {names}; got {text!r}")
    return numbers

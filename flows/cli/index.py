"""`personsearch index`: find the people in scenes once, and search them many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.json_file import Json, write_json
from flows.cli.options import ConfigsStore, Device, SceneRoots, finite
from flows.cli.run import Overrides
from flows.errors import ConfigError, missing
from flows.run.stage_line import stage_line
from flows.run.stopping import stoppable
from flows.wording import counted

if TYPE_CHECKING:
    from flows.search.building import IndexUpdate, Progress
    from flows.search.layout import Settings
    from flows.search.model import GivenModel


def index(
    scenes: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCENES",
            help="Images, videos, lists of files (.txt), or folders that are searched recursively for them. "
            "Default: all that the index was built from.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="INDEX", help="Folder of the index.")] = ...,  # type: ignore[assignment]
    model: Annotated[
        Path | None,
        typer.Option(
            help="For a new index: a config whose run has finished, or a folder written by `export`."
        ),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the named files from the index permanently.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only verify the index: read every byte and report damage.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Also build an approximate index, for millions of people (extra `ann`)."
        ),
    ] = False,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="Minimum detection score (default: that of the config's evaluation, or 0.5, but at least "
            "that of its detections).",
        ),
    ] = None,
    every: Annotated[int | None, typer.Option(min=1, metavar="N", help="Every n-th frame of videos.")] = None,
    per_second: Annotated[
        float | None,
        typer.Option(min=0.001, callback=finite, help="Frames per second of videos (default: 1)."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 8,
    device: Device = "auto",
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler, such as tcp://host:8786.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local Dask worker processes instead of this one.")
    ] = None,
    root: SceneRoots = None,
    overrides: Overrides = None,
    store: ConfigsStore = None,
    json: Json = None,
) -> None:
    """Build an index of the people in images and videos, or bring it up to date.

    Only new and changed files are searched; files that are gone drop out. Unreadable files are named and
    skipped. If interrupted, run the same command again: it continues.

    Example: personsearch index frames video.mp4 --model configs/demo.yaml --out people
    """
    if verify:
        _verify(out)
        return
    if remove:
        _remove(out, scenes or (), root or (), json)
        return
    from flows.search.building import Where, build_index
    from flows.search.model import given_model

    if every is not None and per_second is not None:
        raise ConfigError("--every and --per-second both choose the frames of a video: give one of them")
    given = None if model is None else given_model(model, overrides or (), store)
    with stoppable(), progress_line() as progress:
        outcome = build_index(
            out,
            scenes or (),
            given,
            settings=_settings(out, given, score_threshold, every, per_second),
            roots=root_paths(out, root or ()),
            where=Where(device=device, batch=batch, dask=dask, workers=workers),
            progress=progress,
        )
    print_faults(outcome)
    if outcome.faults and not outcome.files_in_all:
        raise ConfigError("none of the files can be read")
    recall = None
    if approximate:
        from flows.search.approximate import build_approximate
        from flows.search.index import open_index

        recall = build_approximate(open_index(out))
    write_json(json, {**asdict(outcome), **({} if recall is None else {"recall": recall.recall})})
    _print(out, outcome)
    if recall is not None:
        typer.echo(
            f"approximate index: {100 * recall.recall:.1f} % of the ten best matches of the exact search "
            f"are found ({recall.queries} queries)"
        )


@contextmanager
def progress_line() -> Iterator[Progress]:
    """Progress of an index, with images per second."""
    with stage_line("index") as line:
        yield lambda done, total, rate: line.update(done, total, images_per_second=rate)


def print_faults(outcome: IndexUpdate) -> None:
    """Name what was skipped, on standard error."""
    for fault in outcome.faults:
        typer.echo(f"skipped: {fault}", err=True)


def root_paths(folder: Path, given: Sequence[str]) -> dict[str, Path]:
    """The values of --root by the old paths; a path alone is that of an index with one place."""
    from flows.search.layout import read_description

    if not given:
        return {}
    places = [place.path for place in read_description(folder).places]
    roots = {}
    for text in given:
        old, _, new = text.rpartition("=")
        if not old and len(places) != 1:
            raise ConfigError(f"--root: name the folder that has moved, as OLD=NEW; the index has: {places}")
        if old and old not in places:
            raise ConfigError(f"--root: the index was not built from {old}, but from: {', '.join(places)}")
        if not Path(new).exists():
            raise ConfigError(f"--root: {missing(new)}")
        roots[old or places[0]] = Path(new)
    return roots


def _settings(
    folder: Path,
    model: GivenModel | None,
    score_threshold: float | None,
    every: int | None,
    per_second: float | None,
) -> Settings | None:
    """What the options say beside the settings of the index or the model; None if they say nothing."""
    from flows.search.layout import is_index, read_description

    said = {"score_threshold": score_threshold, "every": every, "per_second": per_second}
    given = {name: value for name, value in said.items() if value is not None}
    if not given or (model is None and not is_index(folder)):
        return None
    base = read_description(folder).settings if is_index(folder) else model.settings if model else None
    return None if base is None else base.model_copy(update=given)


def _verify(folder: Path) -> None:
    from flows.search.committing import settle
    from flows.search.verification import verify_index

    settle(folder)
    typer.echo(f"{folder}: {counted(verify_index(folder), 'file')} verified, no damage found")


def _remove(folder: Path, images: Sequence[Path], root: Sequence[str], json: Path | None) -> None:
    from flows.search.removing import remove_images

    if not images:
        raise ConfigError("--remove: name the files to take out of the index")
    files, people = remove_images(folder, images, roots=root_paths(folder, root))
    write_json(json, {"files": files, "people": people})
    typer.echo(f"removed {counted(files, 'file')} with {counted(people, 'person', 'people')} from {folder}")


def _print(folder: Path, outcome: IndexUpdate) -> None:
    people = counted(outcome.people_in_all, "person", "people")
    typer.echo(
        f"{folder}: {people} in {counted(outcome.files_in_all, 'file')}; "
        f"{outcome.added} new, {outcome.changed} changed, {outcome.unchanged} unchanged, "
        f"{outcome.dropped} gone, {outcome.skipped} skipped"
    )
    if outcome.barred:
        typer.echo(f"{counted(outcome.barred, 'file')} left out: removed from the index permanently")
    if outcome.images:
        typer.echo(
            f"searched {counted(outcome.images, 'image')} in {outcome.seconds:.1f} s: "
            f"{outcome.images_per_second:.1f} images/s"
        )

"""`personsearch search` and `personsearch export`: use a trained model, or export it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from data_catalog.files import image_files
from flows.cli.json_file import Json, write_json
from flows.cli.options import ConfigsStore, finite
from flows.cli.printing import counted, whole_lines
from flows.cli.run import ConfigPath, Overrides
from flows.config.devices import device_name, torch_device
from flows.errors import ConfigError
from flows.plan.finished import finished_model

if TYPE_CHECKING:
    from personsearch_core.models.search import PersonSearchNet


Model = Annotated[
    Path,
    typer.Argument(help="A config whose run has finished, or a folder written by `export`.", metavar="MODEL"),
]


def search(
    model: Model,
    gallery: Annotated[
        list[Path],
        typer.Argument(
            metavar="GALLERY...", help="Scene images, or folders that are searched recursively for images."
        ),
    ],
    query: Annotated[Path, typer.Option(help="Image that shows the person.")],
    box: Annotated[
        str | None,
        typer.Option(
            metavar="X1,Y1,X2,Y2", help="Box around the person, in pixels (default: the whole image)."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of matches to show.")] = 10,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Minimum detection score.")
    ] = 0.5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    overrides: Overrides = None,
    store: ConfigsStore = None,
    json: Json = None,
) -> None:
    """Find a person, given by a box in one image, in scene images. Most similar first.

    If the query's own image is among them, it is searched too, and the person's own box comes first.
    Unreadable images are named and skipped.

    Example: personsearch search configs/demo.yaml FRAMES --query FRAMES/a.jpg --box 127,93,164,183
    """
    device_name(device)
    around = _parse_box(box)
    scenes = list(dict.fromkeys(_images(gallery)))
    net = _load(model, overrides or (), store, device)
    with whole_lines().status(f"searching {counted(len(scenes), 'image')}"):
        found, left_out = find_person(net, query, around, scenes, score_threshold)
    matches = found[:top]
    for fault in left_out:
        typer.echo(f"skipped: {fault}", err=True)
    if len(left_out) == len(scenes):
        raise ConfigError("none of the images can be read")
    write_json(json, matches)
    table = Table("rank", "similarity", "score", "box", "image", box=None, pad_edge=False)
    for rank, match in enumerate(matches, 1):
        corners = ", ".join(f"{value:.0f}" for value in match["box"])
        table.add_row(
            str(rank), f"{match['similarity']:.3f}", f"{match['score']:.2f}", corners, match["image"]
        )
    console = whole_lines()
    console.print(
        table if matches else f"no person was detected in {counted(len(scenes) - len(left_out), 'image')}"
    )


def export(
    config: ConfigPath,
    folder: Annotated[Path, typer.Argument(help="Folder to write.", metavar="FOLDER")],
    programs: Annotated[
        bool,
        typer.Option(
            "--programs", help="Also export detector and branch as torch.export programs and ONNX files."
        ),
    ] = False,
    overrides: Overrides = None,
    store: ConfigsStore = None,
) -> None:
    """Write the trained model of a finished config to one folder of safetensors and JSON.

    Example: personsearch export configs/demo.yaml model
    """
    from personsearch_core.export import export_programs, require_place_for_model, save_model

    require_place_for_model(folder)
    finished = finished_model(config, overrides or (), store)
    net = finished.load("cpu")
    save_model(folder, net.detector, net.branch, net.roi, finished.provenance())
    files = export_programs(folder, net) if programs else []
    typer.echo(f"wrote the model to {folder}" + "".join(f"\n  {path.name}" for path in files))


def find_person(
    net: PersonSearchNet,
    query: Path,
    box: Sequence[float] | None,
    scenes: Sequence[Path],
    score_threshold: float,
) -> tuple[list[dict[str, Any]], list[str]]:
    """People detected in the scenes, most similar to the query first (image, box, score, similarity), and
    one message per scene that cannot be read.

    `box` is (x1, y1, x2, y2) in pixels of the query image; None means the whole image. Images are opened one
    at a time. Raises PersonSearchError for an unreadable query image, ConfigError for a box outside it.
    """
    import numpy as np

    from personsearch_core.data.decoding import read_image
    from personsearch_core.errors import PersonSearchError

    image = read_image(query)
    height, width = image.shape[-2:]
    corners = list(box) if box is not None else [0.0, 0.0, float(width), float(height)]
    if not (
        corners[0] < min(corners[2], width) and corners[1] < min(corners[3], height) and min(corners[2:]) > 0
    ):
        raise ConfigError(f"--box {corners} has no area inside {query}, which is {width}x{height} pixels")
    wanted = net.search([image], [np.array([corners], np.float32)])[0].embeddings[0]
    matches, left_out = [], []
    for path in scenes:
        try:
            scene = read_image(path)
        except PersonSearchError as error:
            left_out.append(str(error))
            continue
        people = net.search([scene], score_threshold=score_threshold)[0]
        similarity = (people.embeddings @ wanted).tolist()
        for own, score, value in zip(people.boxes.tolist(), people.scores.tolist(), similarity, strict=True):
            matches.append({"image": str(path), "box": own, "score": score, "similarity": value})
    return sorted(matches, key=lambda match: -match["similarity"]), left_out


def _load(model: Path, overrides: Sequence[str], store: str | None, device: str) -> PersonSearchNet:
    if not model.is_dir():
        return finished_model(model, overrides, store).load(device)
    from personsearch_core.export import load_model

    return load_model(model).to(torch_device(device))


def _images(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            found = [place / name for name in image_files(place, "", recursive=True)]
        else:
            found = [place] if place.is_file() else []
        if not found:
            raise ConfigError(f"{place} is neither an image nor a folder that contains images")
        yield from found


def _parse_box(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        corners = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--box takes X1,Y1,X2,Y2 in pixels; got {text!r}") from error
    if len(corners) != 4:
        raise ConfigError(f"--box takes four numbers X1,Y1,X2,Y2; got {text!r}")
    return corners

"""`personsearch benchmark speed`: the paper's Table 1b on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal, get_args

import typer
from rich.table import Column, Table

from benchmarks.options import Device, Rounds, chosen, numbers
from flows.cli.json_file import Json, write_json
from flows.cli.printing import plain_table, whole_lines
from flows.config.devices import torch_device
from personsearch_core.recipes import Compute, DetectorModel, Precision, Variant
from personsearch_core.speed import SpeedRow, measure_speed

Backbone = Literal["resnet18", "resnet34", "resnet50"]


def speed(
    variants: str = typer.Option("disj,j2,j3,j4", help="Architectures, comma-separated."),
    images: str = typer.Option("1,4,8", help="Images per batch, comma-separated."),
    people: str = typer.Option("5,20", help="People per image, comma-separated."),
    device: Device = "auto",
    backbone: Backbone = typer.Option("resnet50", help="resnet18, resnet34 or resnet50."),
    size: int = typer.Option(640, min=64, help="Width and height of the network input, in pixels."),
    precision: Precision = typer.Option("fp32", help="fp32, bf16 or fp16."),
    channels_last: bool = typer.Option(False, help="Use the channels-last memory format."),
    compiled: bool = typer.Option(False, "--compile", help="Use torch.compile, as `compute.compile` does."),
    rounds: Rounds = 5,
    json_file: Json = None,
) -> None:
    """Time detection and embedding per person, with the ratio to Disj, its bound and the paper's.

    Example: personsearch benchmark speed --variants disj,j3 --images 1 --people 20
    """
    known: tuple[Variant, ...] = get_args(Variant)
    wanted = chosen("--variants", variants, known)
    on = torch_device(device)
    console = whole_lines()
    with console.status("measuring"):
        rows = measure_speed(
            [variant for variant in known if variant in wanted],
            numbers("--images", images),
            numbers("--people", people),
            model=DetectorModel.model_validate(
                {
                    "backbone": backbone,
                    "image_width": size,
                    "image_height": size,
                    "initial_weights": "imagenet",
                }
            ),
            device=on,
            compute=Compute.model_validate(
                {"precision": precision, "channels_last": channels_last, "compile": compiled}
            ),
            rounds=rounds,
        )
    console.print(_table(rows, f"{backbone}, {size}x{size}, {precision}, {on}"))
    write_json(json_file, [asdict(row) for row in rows])


def _table(rows: list[SpeedRow], title: str) -> Table:
    columns = ("images", "people", "", "ms/person", "detector", "branch", "x Disj", "bound", "of bound")
    names = (*columns, "paper x", "paper ms")
    table = plain_table(*(Column(name, justify="right") for name in names), title=f"{title}; times in ms")
    for row in rows:
        table.add_row(
            str(row.images),
            str(row.people),
            row.variant.capitalize(),
            f"{row.ms_per_person:.1f}",
            f"{1000 * row.detector_seconds:.0f}",
            f"{1000 * row.branch_seconds:.0f}",
            f"{row.ratio:.2f}",
            f"{row.bound:.2f}",
            f"{row.part_of_bound:.2f}",
            "" if row.paper_ratio is None else f"{row.paper_ratio:.2f}",
            "" if row.paper_ms_per_person is None else f"{row.paper_ms_per_person:g}",
        )
    return table

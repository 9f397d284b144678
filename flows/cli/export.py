"""`personsearch export`: a trained model as one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigsStore
from flows.cli.run import ConfigPath, Overrides
from flows.plan.finished import finished_model
from storage.durable import flush, flush_tree


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
    finished = finished_model(config, overrides or (), store)
    from flows.report.model_card import write_model
    from personsearch_core.checksums import write_checksums
    from personsearch_core.export import (  # loads torch
        export_programs,
        present_files,
        require_place_for_model,
    )

    require_place_for_model(folder)
    write_model(finished, folder)
    files = export_programs(folder, finished.load("cpu")) if programs else []
    write_checksums(folder, present_files(folder))
    flush_tree(folder)
    flush(folder.absolute().parent)
    typer.echo(f"wrote the model to {folder}" + "".join(f"\n  {path.name}" for path in files))

"""Counts of a dataset as a table of text."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from data_catalog.counts import COUNTED


def print_counts(counts: Mapping[str, int]) -> None:
    """A row for the whole root and one for each split, of counts by name such as `boxes`, `train.boxes`."""
    splits = sorted({name.rpartition(".")[0] for name in counts} - {""})
    table = {"whole root": {name: counts[name] for name in COUNTED}}
    print_table(table | {split: {name: counts[f"{split}.{name}"] for name in COUNTED} for split in splits})


def print_table(table: Mapping[str, Mapping[str, int]]) -> None:
    """A row for each key."""
    typer.echo(f"{'':12}" + "".join(f"{name.replace('_', ' '):>15}" for name in COUNTED))
    for row, numbers in table.items():
        typer.echo(f"{row:12}" + "".join(f"{numbers[name]:>15,}" for name in COUNTED))

"""`personsearch score compare`: compare two runs query by query."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.compute as pc
import typer

from flows.cli.json_file import writable
from flows.cli.score_output import Clock, write
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.comparison import compare_runs
from personsearch_core.evaluation.records import FloatArray, IntArray


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            help="Per-query table of run A: from --per-query, or an evaluation's per_query.parquet."
        ),
    ],
    second: Annotated[Path, typer.Argument(help="Per-query table of run B.")],
    show: Annotated[int, typer.Option(min=0, help="Number of gains and losses to list.")] = 5,
    draws: Annotated[
        int, typer.Option(min=1, help="Number of resamples for the interval and the test.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    setting: Annotated[
        str | None,
        typer.Option(help="Setting to compare, for an evaluation's tables (default: the headline)."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=writable, help="Also write the numbers to this file.")
    ] = None,
) -> None:
    """Compare two runs query by query: gains, losses, and a paired test of the mean AP.

    Example: personsearch score compare a.parquet b.parquet --show 10
    """
    a, b = (_read(path, setting) for path in (first, second))
    # Compared as text: an evaluation names its queries, `--per-query` numbers them.
    if [str(query) for query in a.queries] != [str(query) for query in b.queries]:
        raise PersonSearchError(f"{first} and {second} do not have the same queries in the same order")
    comparison = compare_runs(a.ap, b.ap, np.random.default_rng(seed), draws=draws)

    def listed(rows: IntArray) -> list[dict[str, Any]]:
        return [{"query": a.queries[i], "a": float(a.ap[i]), "b": float(b.ap[i])} for i in rows]

    numbers = {
        "difference": asdict(comparison.difference),
        "p_value": comparison.p_value,
        "better": comparison.n_better,
        "worse": comparison.n_worse,
        "equal": comparison.n_equal,
        "greatest_gains": listed(comparison.order[: min(show, comparison.n_better)]),
        "greatest_losses": listed(comparison.order[::-1][: min(show, comparison.n_worse)]),
    }
    write(json_file, numbers, Clock())


@dataclass(frozen=True, eq=False)
class _Run:
    """Average precision `ap` (q,) of queries, which are numbers or names."""

    queries: list[int] | list[str]
    ap: FloatArray


def _read(path: Path, setting: str | None) -> _Run:
    table = tables.open_table(path, ("ap",), ("query", "query_id", "setting"))
    if "setting" in table.data.column_names:
        table = _of_setting(table, setting)
        queries = table.column("query_id").to_pylist()
    else:
        if setting is not None:
            raise PersonSearchError(
                f"{path}: --setting chooses among the settings of an evaluation's per_query.parquet; "
                "this table has no column 'setting'"
            )
        queries = table.integers("query").tolist()
    return _Run(queries, table.numbers("ap", np.float64))


def _of_setting(table: tables.ParquetTable, setting: str | None) -> tables.ParquetTable:
    """The rows of one setting; the first one is the evaluation's headline."""
    column = table.column("setting")
    wanted = column[0].as_py() if setting is None else setting
    rows = table.data.filter(pc.equal(column, wanted))
    if not len(rows):
        known = ", ".join(repr(name) for name in column.unique().to_pylist())
        raise PersonSearchError(f"{table.path}: no setting {wanted!r}; this table has: {known}")
    return tables.ParquetTable(table.path, rows)

"""`personsearch score compare`: two runs, query by query."""

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
        typer.Argument(help="Per-query table of run A: --per-query's, or an evaluation's per_query.parquet."),
    ],
    second: Annotated[Path, typer.Argument(help="Per-query table of run B.")],
    show: Annotated[int, typer.Option(min=0, help="How many gains and losses to list.")] = 5,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the interval and of the test.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    setting: Annotated[
        str | None, typer.Option(help="Of evaluations' tables: which setting, by default the headline.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", callback=writable, help="Write the numbers here.")
    ] = None,
) -> None:
    """Two runs query by query: which got better, which worse, and a paired test of the mean."""
    a, b = (_read(path, setting) for path in (first, second))
    # As text: an evaluation names its queries, `--per-query` numbers them.
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


def _of_setting(table: tables.Table, setting: str | None) -> tables.Table:
    """The rows of one setting; the first one is the evaluation's headline."""
    column = table.column("setting")
    wanted = column[0].as_py() if setting is None else setting
    rows = table.data.filter(pc.equal(column, wanted))
    if not len(rows):
        known = ", ".join(repr(name) for name in column.unique().to_pylist())
        raise PersonSearchError(f"{table.path}: there is no setting {wanted!r}; there are {known}")
    return tables.Table(table.path, rows)

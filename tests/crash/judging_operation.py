"""Judgements of matches, a person's work that exists once: a death loses none that was given before."""

from __future__ import annotations

from pathlib import Path

from flows.search.index import open_index
from flows.search.judgements import Judgements, Verdict, beside
from tests.crash.bench import Operation, Outcome
from tests.crash.index_operations import prepare as prepare_index

FIRST = ("anna", "confirmed", 0)
ALL = {FIRST, ("anna", "rejected", 2), ("ben", "confirmed", 0), ("ben", "confirmed", 2)}
"""Rows 1 and 3 have the boxes of 0 and 2."""


def prepare(folder: Path) -> None:
    prepare_index(folder)
    _judge(folder, "anna", "confirmed", 0)


def judge(folder: Path) -> None:
    _judge(folder, "ben", "confirmed", 0, 2)
    _judge(folder, "anna", "rejected", 2)


def check(folder: Path) -> list[str]:
    """What was said before is there, and nothing that was not said."""
    standing = _standing(folder)
    return [] if {FIRST} <= standing <= ALL else [f"it says {sorted(standing)}"]


def outcome(folder: Path) -> Outcome:
    return {"standing": sorted(_standing(folder))}


def _judge(folder: Path, person: str, verdict: Verdict, *rows: int) -> None:
    index = open_index(folder / "index")
    Judgements(beside(folder / "index")).add(index, person, verdict, rows)


def _standing(folder: Path) -> set[tuple[str, str, int]]:
    """Who was judged how, by the row of the index."""
    index, judgements = open_index(folder / "index"), Judgements(beside(folder / "index"))
    judged = {name: judgements.of(index, name) for name in judgements.names()}
    return {
        (name, verdict, row)
        for name, rows in judged.items()
        for verdict, found in (("confirmed", rows.confirmed), ("rejected", rows.rejected))
        for row in found
    }


JUDGEMENTS = Operation("judgements", prepare, judge, check, outcome)

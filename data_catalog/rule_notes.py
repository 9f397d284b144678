"""What to say of a snapshot whose queries or splits are made by a rule."""

from __future__ import annotations

import pyarrow.compute as pc

from data_catalog.findings import Finding
from data_catalog.rules import DRAWN, LEFT_OUT, Rules
from data_catalog.snapshot import Snapshot


def rule_notes(snapshot: Snapshot) -> list[Finding]:
    """What of a snapshot follows from rules, not from its files."""
    rules, notes = Rules.of_snapshot(snapshot), []
    if rules.queries is not None:
        of_drawn = pc.field("protocol") == DRAWN
        people = snapshot.table("queries", ["person_id"], of_drawn)["person_id"]
        text = (
            f"{len(people):,} queries of {len(people.unique()):,} identities are drawn by a rule "
            f"(seed {rules.queries.seed}), not published: compare results only with those of the same queries"
        )
        notes.append(Finding("note", "queries_drawn", len(people), text))
    if rules.splits is not None:
        counts = snapshot.table("images", ["split"])["split"].value_counts().to_pylist()
        number = {row["values"]: row["counts"] for row in counts}
        named = ", ".join(
            f"{name} {number[name]:,}" for name in (*rules.splits.names, LEFT_OUT) if name in number
        )
        text = f"splits are made by a rule ({rules.splits.by}), not published; images: {named}"
        notes.append(Finding("note", "splits_by_rule", snapshot.count("images"), text))
    return notes

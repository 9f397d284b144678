"""MOTChallenge: numbers that are written in other ways, and those that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_a_track_that_is_no_whole_number_is_a_reject(mot_root: Path, ingest_into: Any) -> None:
    truth = next(mot_root.glob("train/*/gt/gt.txt"))
    truth.write_text("1,1.0,5,5,9,9,1,1,1\n1,1.7,25,5,9,9,1,1,1\n1,inf,25,5,9,9,1,1,1\n")
    snapshot = ingest_into(mot_root, "mot17", images=False)
    of_file = [row for row in snapshot.table("rejects").to_pylist() if row["code"] == "row_unreadable"]
    assert [row["source_row"] for row in of_file] == [2, 3]
    assert "1" in snapshot.table("boxes")["person_id_raw"].to_pylist()

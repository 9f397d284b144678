"""What `personsearch score` reads, at its smallest: two images with one person."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_BOX = {"x1": [1.0, 3.0], "y1": [1.0, 3.0], "x2": [9.0, 12.0], "y2": [19.0, 22.0]}
_TABLES = {
    "found": {"image": ["a", "b"], **_BOX, "score": [0.9, 0.8], "embedding": [[1.0, 0.0], [0.6, 0.8]]},
    "queries": {
        "query": [0, 1],
        "image": ["a", "b"],
        **_BOX,
        "person_id": ["p", "p"],
        "embedding": [[1.0, 0.0], [0.6, 0.8]],
    },
    "images": {"image": ["a", "b"], "camera_id": [1, 2]},
    "truth": {"image": ["a", "b"], **_BOX, "person_id": ["p", "p"]},
}


def write_score_tables(folder: Path) -> None:
    """found.parquet, queries.parquet, images.parquet and truth.parquet."""
    for name, columns in _TABLES.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")

"""Cases from the field in formats that exporters and trackers write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def test_jde(shared: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(shared / "cases" / "jde", "jde")
    boxes = snapshot.table("boxes").sort_by([("image_id", "ascending"), ("source_row", "ascending")])
    assert boxes["person_id"].to_pylist() == ["9", "15", "19"] * 3
    assert set(boxes["person_scope"].to_pylist()) == {"dataset"}
    found = np.stack([boxes[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    image = snapshot.table("images").to_pylist()[0]
    first = np.array(
        [0.669941 - 0.040404 / 2, 0.339557 - 0.130503 / 2, 0.669941 + 0.040404 / 2, 0.339557 + 0.130503 / 2]
    )
    scale = np.array([image["width"], image["height"]] * 2)
    np.testing.assert_allclose(found[0], first * scale, rtol=1e-5)

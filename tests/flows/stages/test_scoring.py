"""An evaluation's settings scored, without a pipeline around them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from flows.stages.scoring import _shows
from personsearch_core.evaluation.records import UNLABELLED, GroundTruth

BOXES = np.array([[0, 0, 40, 100], [50, 0, 90, 100]], np.float32)


def test_no_match_is_right_where_no_box_has_a_person() -> None:
    """As where every box is lower than the view's smallest height."""
    nobody: Any = SimpleNamespace(
        truth=GroundTruth(np.array([0, 1]), BOXES, np.full(2, UNLABELLED)), image_ids=pa.array(["a", "b"])
    )
    assert _shows(nobody, np.array([0, 1]), BOXES, np.array([-2, -2])).tolist() == [False, False]

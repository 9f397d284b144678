"""An evaluation's settings scored, without a pipeline around them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from flows.stages.scoring import Scored, _shows, best_boxes
from flows.stages.settings import settings_of
from personsearch_core.evaluation.records import GroundTruth
from personsearch_core.evaluation.zheng2017 import Zheng2017Result
from personsearch_core.identities import UNLABELLED
from personsearch_core.recipes import EvaluationRecipe

BOXES = np.array([[0, 0, 40, 100], [50, 0, 90, 100]], np.float32)


def test_no_match_is_right_where_no_box_has_a_person() -> None:
    """As where every box is lower than the view's smallest height."""
    nobody: Any = SimpleNamespace(
        truth=GroundTruth(np.array([0, 1]), BOXES, np.full(2, UNLABELLED)), image_ids=pa.array(["a", "b"])
    )
    assert _shows(nobody, np.array([0, 1]), BOXES, np.array([-2, -2])).tolist() == [False, False]


def test_the_best_number_of_boxes_is_named() -> None:
    def scored(mean_aps: list[float], **fields: Any) -> list[Scored]:
        settings = settings_of(EvaluationRecipe(protocol="zheng2017", **fields))
        ranks, truths = np.array([1, 0]), np.array([1, 1])
        return [
            Scored(setting, 0.5, Zheng2017Result(0.5, np.full(2, ap), ranks, truths), ("0", "1"))
            for setting, ap in zip(settings, mean_aps, strict=True)
        ]

    assert best_boxes(scored([0.9, 0.2, 0.4, 0.4], boxes_per_image=(2.0, 5.0, 3.0))) == {
        "best_boxes_per_image": 3,
        "best_boxes_mAP": 0.4,
        "best_boxes_rank1": 0.5,
    }
    assert best_boxes(scored([0.9, 0.2], per_image_top_k=(5,))) == {}

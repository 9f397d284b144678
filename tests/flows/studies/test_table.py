from __future__ import annotations

import math

from flows.studies.table import measures


def test_every_dataset_has_its_figures_where_there_are_several() -> None:
    found = measures(
        {
            "detector": {"loss": 0.1, "validation/prw/coco_ap50": 0.81, "validation/coco_ap50": 0.7},
            "evaluation:prw": {"mAP": 0.25, "detection_ap50": 0.79, "rank1": 0.5},
            "evaluation:cuhk-sysu": {"mAP": 0.54, "detection_ap50": 0.6},
        }
    )
    assert (found["mAP"], found["rank1"]) == (0.25, 0.5) and math.isnan(found["mAP_untrained"])
    assert (found["detection_ap50 on prw"], found["detection_ap50 on cuhk-sysu"]) == (0.79, 0.6)
    assert (found["mAP on prw"], found["mAP on cuhk-sysu"]) == (0.25, 0.54)
    assert (found["validation AP50 on prw"], found["validation AP50"]) == (0.81, 0.7)


def test_one_dataset_has_no_columns_of_its_own() -> None:
    assert list(measures({"evaluation": {"mAP": 0.25}})) == [
        "mAP",
        "rank1",
        "mAP_untrained",
        "detection_ap50",
    ]

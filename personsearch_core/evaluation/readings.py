"""Every reading of a test set that published codes apply, by name.

Codes agree on much and differ in thresholds, galleries, the query's embedding and averages. A reading is a
setting with the name of the code whose number it equals on the same detections. `docs/protocols.md` has the
rules side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.embeddings import detected_queries
from personsearch_core.evaluation.inputs import EvaluationInputs
from personsearch_core.evaluation.settings import MatchingRules, Setting, listed_protocol
from personsearch_core.recipes import EVALUATION_FIELDS, EvaluationRecipe

BUDGETS = (1, 2, 3, 5, 10)
"""Numbers of boxes per image."""
OCCLUSION, LOW_RESOLUTION = "occlusion", "low-resolution"
"""CUHK-SYSU's subsets: names of protocols, and of their readings."""

_SEQNET = "serend1p1ty/SeqNet eval_func.py"
_COAT = "Kitware/COAT eval_func.py"
_GFN = "LukeJaffe/GFN src/engine/evaluate.py evaluate_retrieval_orig"
_ALIGNPS = "daodaofr/AlignPS tools"
_OIM = "ShuangLI59/person_search lib/datasets/psdb.py evaluate_search"
_PRW = "liangzheng06/PRW-baseline"


@dataclass(frozen=True)
class Reading:
    """One reading: `rules` in words, and the `code` whose number it equals; `setting.name` is its name."""

    setting: Setting
    rules: str
    code: str

    @property
    def name(self) -> str:
        return self.setting.name


@dataclass(frozen=True)
class Skipped:
    """A reading that the inputs do not allow."""

    name: str
    reason: str


def readings_of(recipe: EvaluationRecipe) -> list[Reading]:
    """Those of an evaluation that asks for all readings, else none.

    For CUHK-SYSU they are of the first gallery size.
    """
    if recipe.readings is None:
        return []
    if recipe.protocol in EVALUATION_FIELDS["gallery_sizes"]:
        return cuhk_sysu_readings(listed_protocol(recipe.gallery_sizes[0]))
    return prw_readings("prw")


def prw_readings(protocol: str) -> list[Reading]:
    """All readings of PRW; `protocol` is the name of its queries among the inputs."""
    seqnet = Setting("seqnet", protocol)
    across, gfn = MatchingRules(cameras="other"), MatchingRules(truncate="sizes")
    alignps = MatchingRules(query="detected", similarity="cosine")
    search, match = f"{_SEQNET} eval_search_prw", "score >= 0.5, all frames but the query's"
    found = [
        Reading(seqnet, match, search),
        Reading(
            replace(seqnet, name="seqnet-without-recall", rules=MatchingRules(times_recall=False)),
            f"{match}; AP not multiplied by recall",
            f"{search}, without its factor recall_rate",
        ),
        Reading(replace(seqnet, name="coat"), match, f"{_COAT} eval_search_prw, ignore_cam_id=True"),
        Reading(
            replace(seqnet, name="coat-multi-view", rules=across),
            "score >= 0.5, frames of other cameras: cross-camera, the multi-view gallery",
            f"{_COAT} eval_search_prw, ignore_cam_id=False; SeqNet's too",
        ),
        Reading(
            replace(seqnet, name="alignps", score_threshold=0.15, rules=alignps),
            "score >= 0.15, cosine, the query's embedding is that of the detection on its box",
            f"{_ALIGNPS}/test_results_prw.py",
        ),
        Reading(
            replace(seqnet, name="gfn", rules=gfn),
            f"{match}; ground truth with x, y, w, h truncated; without the gallery filter",
            f"{_GFN}, protocol test",
        ),
        Reading(
            replace(seqnet, name="gfn-cross-camera", rules=replace(gfn, cameras="other")),
            "as gfn, frames of other cameras",
            f"{_GFN}, protocol cross_cam_id",
        ),
        Reading(
            replace(seqnet, name="gfn-same-camera", rules=replace(gfn, cameras="same")),
            "as gfn, frames of the query's camera, its own frame included",
            f"{_GFN}, protocol same_cam_id",
        ),
        *_by_boxes(seqnet, search),
        *_ground_truth(seqnet, search),
        Reading(
            replace(seqnet, name="gt-boxes-cross-camera", rules=across, ground_truth_boxes=True),
            "ground-truth boxes, frames of other cameras",
            f"{_COAT} eval_search_prw, ignore_cam_id=False and EVAL_USE_GT",
        ),
    ]
    return [*found, *_original(replace(seqnet, name="zheng2017", rules=MatchingRules(original=True)))]


def _original(standard: Setting) -> Iterator[Reading]:
    """The protocol of PRW's own paper."""
    source = f"{_PRW}, its MATLAB evaluation"
    rules = "the original protocol: other cameras, junk left out, trapezoid AP"
    yield Reading(standard, f"{rules}; score >= 0.5", source)
    for k in BUDGETS:
        setting = replace(standard, name=f"zheng2017-average-{k}", boxes_per_image=k)
        yield Reading(setting, f"zheng2017; {_boxes(k)} per image on average", source)
    setting = replace(standard, name="zheng2017-all-boxes", score_threshold=None)
    yield Reading(setting, "zheng2017; all detections", source)


def cuhk_sysu_readings(protocol: str, subsets: Iterable[str] = ()) -> list[Reading]:
    """All readings of CUHK-SYSU with the galleries of `protocol`, and of the `subsets` given as protocols."""
    seqnet = Setting("seqnet", protocol)
    search, match = f"{_SEQNET} eval_search_cuhk", "score >= 0.5, an image listed twice is ranked once"
    alignps = MatchingRules(query="detected", similarity="cosine", repeats=True)
    found = [
        Reading(seqnet, match, search),
        Reading(
            replace(seqnet, name="seqnet-without-recall", rules=MatchingRules(times_recall=False)),
            f"{match}; AP not multiplied by recall",
            f"{search}, without its factor recall_rate",
        ),
        Reading(replace(seqnet, name="coat"), match, f"{_COAT} eval_search_cuhk"),
        Reading(replace(seqnet, name="gfn"), f"{match}; without the gallery filter", _GFN),
        Reading(
            replace(seqnet, name="oim", rules=MatchingRules(similarity="euclidean", repeats=True)),
            "score >= 0.5, Euclidean distance, an image listed twice is ranked twice",
            _OIM,
        ),
        Reading(
            replace(seqnet, name="alignps", score_threshold=0.2, rules=alignps),
            "score >= 0.2, cosine, the query's embedding is that of the detection on its box; "
            "an image listed twice is ranked twice",
            f"{_ALIGNPS}/test_results.py",
        ),
        *_by_boxes(seqnet, search),
        *_ground_truth(seqnet, search),
    ]
    for name in subsets:
        setting = replace(seqnet, name=name, protocol=name)
        found.append(Reading(setting, f"seqnet's rules, queries and galleries of the {name} subset", search))
    return found


def usable_readings(
    readings: Sequence[Reading], inputs: EvaluationInputs, missing: Mapping[str, str] | None = None
) -> tuple[list[Reading], list[Skipped]]:
    """The readings that the inputs allow, and why not the others.

    `missing` says why a protocol is not among the inputs.
    """
    usable, skipped = [], []
    for reading in readings:
        reason = (missing or {}).get(reading.setting.protocol) or _obstacle(reading.setting, inputs)
        if reason is None:
            usable.append(reading)
        else:
            skipped.append(Skipped(reading.name, reason))
    return usable, skipped


def _obstacle(setting: Setting, inputs: EvaluationInputs) -> str | None:
    rules = setting.rules
    if setting.ground_truth_boxes and inputs.truth_embeddings is None:
        return "the ground-truth boxes have no embeddings"
    by_camera = rules.original or rules.cameras != "all"
    if by_camera and (inputs.cameras is None or len(np.unique(inputs.cameras)) < 2):
        return "the images are not of several known cameras"
    if setting.boxes_per_image is not None and not len(inputs.detections):
        return "there are no detections"
    if rules.query == "detected":
        try:
            detected_queries(inputs.protocol(setting.protocol).queries, inputs.detections)
        except PersonSearchError as error:
            return f"{error}, where the published code fails"
    return None


def _by_boxes(plain: Setting, code: str) -> list[Reading]:
    found = []
    for k in BUDGETS:
        setting = replace(plain, name=f"average-{k}", boxes_per_image=k)
        rules = f"the score threshold that leaves {_boxes(k)} per image on average"
        found.append(Reading(setting, rules, f"{code} with that det_thresh"))
    everything = replace(plain, name="all-boxes", score_threshold=None)
    found.append(Reading(everything, "all detections", f"{code} with det_thresh=0"))
    for k in BUDGETS:
        setting = replace(plain, name=f"best-{k}", per_image_top_k=k)
        rules = f"the {_boxes(k)} of each image with the highest score"
        found.append(Reading(setting, rules, f"{code} on these boxes"))
    return found


def _ground_truth(plain: Setting, code: str) -> list[Reading]:
    setting = replace(plain, name="gt-boxes", ground_truth_boxes=True)
    return [Reading(setting, "ground-truth boxes instead of detections", f"{code} with EVAL_USE_GT")]


def _boxes(number: int) -> str:
    return "1 box" if number == 1 else f"{number} boxes"

"""Every reading gives the number of the code that it names: by oracles, or by loops of its rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import average_precision_score

from personsearch_core.evaluation.embeddings import comparable_detections, comparable_queries
from personsearch_core.evaluation.front import Scored, evaluate
from personsearch_core.evaluation.inputs import EvaluationInputs, SearchProtocol
from personsearch_core.evaluation.readings import (
    LOW_RESOLUTION,
    OCCLUSION,
    Reading,
    cuhk_sysu_readings,
    prw_readings,
    usable_readings,
)
from personsearch_core.evaluation.records import Detections, Queries
from personsearch_core.evaluation.settings import MatchingRules, Setting
from personsearch_core.evaluation.zheng2017 import BACKGROUND, JUNK
from personsearch_core.identities import UNLABELLED
from personsearch_core.recipes import EvaluationRecipe
from tests.personsearch_core.evaluation.oracles import CuhkSysuOracle, PrwOracle
from tests.personsearch_core.evaluation.test_properties import SEEDS, UNHURRIED, Problem, problem

NAME = "search"
Box = np.ndarray


def scored(
    recipe: EvaluationRecipe, inputs: EvaluationInputs, readings: Sequence[Reading]
) -> dict[str, Scored]:
    usable, _ = usable_readings(readings, inputs)
    results = evaluate(recipe, inputs, settings=[each.setting for each in usable], detection_at=None)
    return {reading.name: found for reading, found in zip(usable, results.searches, strict=True)}


@pytest.fixture(scope="module")
def of_prw(prw: PrwOracle) -> dict[str, Scored]:
    protocols = {NAME: SearchProtocol(prw.queries)}
    inputs = EvaluationInputs(prw.detections, len(prw.cameras), protocols, prw.truth, cameras=prw.cameras)
    return scored(EvaluationRecipe(), inputs, prw_readings(NAME))


def expected_of_prw(prw: PrwOracle) -> dict[str, dict[str, float]]:
    all_cameras, across = prw.expected["all_cameras_thr0.5"], prw.expected["cross_camera_thr0.5"]
    expected = dict.fromkeys(("seqnet", "coat", "gfn"), all_cameras)
    expected |= dict.fromkeys(("coat-multi-view", "gfn-cross-camera"), across)
    for k, by_protocol in prw.expected["boxes_per_image"].items():
        if k == "all":
            expected |= {
                "all-boxes": by_protocol["average_k"],
                "zheng2017-all-boxes": by_protocol["zheng2017"],
            }
        else:
            expected[f"average-{k}"] = by_protocol["average_k"]
            expected[f"best-{k}"] = by_protocol["top_k_of_each_image"]
            expected[f"zheng2017-average-{k}"] = by_protocol["zheng2017"]
    return expected


def test_prw_by_name(prw: PrwOracle, of_prw: dict[str, Scored]) -> None:
    for name, expected in expected_of_prw(prw).items():
        result = of_prw[name].result
        assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9), name
        ambiguous = expected.get("ambiguous", 0) / len(result)
        for k in (1, 5, 10, 20):
            for key in (f"top{k}", f"rank{k}"):
                if key in expected:
                    assert result.top(k) == pytest.approx(expected[key], abs=ambiguous + 1e-9), (name, k)


def test_cuhk_sysu_by_name(cuhk_sysu: CuhkSysuOracle) -> None:
    protocols = {NAME: SearchProtocol(cuhk_sysu.queries, cuhk_sysu.lists)}
    inputs = EvaluationInputs(cuhk_sysu.detections, cuhk_sysu.n_images, protocols)
    wanted = ("seqnet", "coat", "gfn", "oim", "seqnet-without-recall")
    readings = [each for each in cuhk_sysu_readings(NAME) if each.name in wanted]
    found = scored(EvaluationRecipe(protocol="cuhk_sysu"), inputs, readings)
    expected = cuhk_sysu.expected["search"]["gallery_100"]
    for name in ("seqnet", "coat", "gfn"):
        assert found[name].result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)
        assert found[name].result.top(1) == pytest.approx(expected["top1"], abs=1e-9)
    without = cuhk_sysu.expected["wrong_variants_mAP_g100"]["AP not multiplied by recall"]
    assert found["seqnet-without-recall"].result.mean_ap == pytest.approx(without, abs=1e-6)
    differ = np.flatnonzero(found["oim"].result.ap != found["seqnet"].result.ap)
    assert differ.tolist() == [1250, 1633, 1997, 2561]  # whose galleries list an image twice


def test_what_comes_to_the_same_is_ranked_once(prw: PrwOracle, of_prw: dict[str, Scored]) -> None:
    assert of_prw["gfn"].result is of_prw["seqnet"].result is of_prw["coat"].result
    assert of_prw["gfn-same-camera"].result is not of_prw["seqnet"].result


def fractional(seed: int) -> Problem:
    """Boxes at fractions of pixels, which the codes truncate differently."""
    p = problem(seed)
    boxes = p.truth.boxes + np.random.default_rng(seed).integers(0, 4, p.truth.boxes.shape) / 4
    return replace(p, truth=replace(p.truth, boxes=boxes.astype(np.float32)))


def without_ties(p: Problem) -> Problem:
    """Embeddings whose similarities differ by more than normalising them changes."""
    rng = np.random.default_rng(len(p.detections))
    found, asked = (rng.standard_normal((n, 3), np.float32) for n in (len(p.detections), len(p.queries)))
    return replace(
        p,
        detections=replace(p.detections, embeddings=found),
        queries=replace(p.queries, embeddings=asked),
    )


def inputs_of(p: Problem) -> EvaluationInputs:
    protocols = {NAME: SearchProtocol(p.queries, p.lists)}
    described = np.random.default_rng(0).integers(-2, 3, (len(p.truth), 3)).astype(np.float32)
    return EvaluationInputs(p.detections, len(p.cameras), protocols, p.truth, described, p.cameras)


def overlap(a: Box, b: Box, extra: float = 0.0) -> float:
    a, b = a.astype(float), b.astype(float)
    inner = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + extra, 0))
    union = np.prod(a[2:] - a[:2] + extra) + np.prod(b[2:] - b[:2] + extra) - inner
    return float(inner / union) if union > 0 else 0.0


def ap_of(
    found: Detections,
    gallery: Sequence[tuple[int, Box | None]],
    threshold: float,
    similarity: Callable[[np.ndarray], np.ndarray],
) -> float:
    """AP times recall over the gallery's entries, in the way that all these codes share."""
    labels: list[int] = []
    values: list[float] = []
    n_truths = sum(box is not None for _, box in gallery)
    for image, box in gallery:
        rows = np.flatnonzero((found.image == image) & (found.scores >= threshold))
        near = similarity(found.embeddings[rows])
        label = np.zeros(len(rows), int)
        if box is not None:
            width, height = box[2:] - box[:2]
            enough = min(0.5, width * height / ((width + 10) * (height + 10)))
            for place in np.argsort(-near, kind="stable"):
                if overlap(found.boxes[rows[place]], box) >= enough:
                    label[place] = 1
                    break
        labels += label.tolist()
        values += near.tolist()
    if not sum(labels):
        return 0.0
    return float(average_precision_score(labels, values)) * sum(labels) / n_truths


def own_box(p: Problem, image: int, person: int, *, sizes: bool) -> Box | None:
    rows = np.flatnonzero((p.truth.image == image) & (p.truth.person_id == person))
    if not len(rows):
        return None
    x1, y1, x2, y2 = p.truth.boxes[rows[0]].astype(float)
    if sizes:
        x, y, w, h = (max(int(value), 0) for value in (x1, y1, x2 - x1, y2 - y1))
        return np.array([x, y, x + w, y + h])
    x, y = max(x1, 0.0), max(y1, 0.0)
    return np.array([int(x), int(y), int(x + x2 - x1), int(y + y2 - y1)])


def unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def detected(p: Problem, query: int) -> np.ndarray:
    rows = np.flatnonzero(p.detections.image == p.queries.image[query])
    box = np.maximum(np.trunc(p.queries.boxes[query]), 0)
    overlaps = [overlap(p.detections.boxes[row], box, 1.0) for row in rows]
    return p.detections.embeddings[rows[int(np.argmax(overlaps))]]


def literal_prw(p: Problem, name: str) -> list[float]:
    values = []
    for query in range(len(p.queries)):
        own, person = p.queries.image[query], p.queries.person_ids()[query]
        camera = p.cameras[own]
        frames = [image for image in range(len(p.cameras)) if image != own]
        if name in ("coat-multi-view", "gfn-cross-camera"):
            frames = [image for image in frames if p.cameras[image] != camera]
        if name == "gfn-same-camera":
            frames = [image for image in range(len(p.cameras)) if p.cameras[image] == camera]
        gallery = [(i, own_box(p, i, person, sizes=name.startswith("gfn"))) for i in frames]
        if name == "alignps":
            like = unit(detected(p, query))
            values.append(ap_of(p.detections, gallery, 0.15, lambda rows, like=like: unit(rows) @ like))
        else:
            like = p.queries.embeddings[query]
            values.append(ap_of(p.detections, gallery, 0.5, lambda rows, like=like: rows @ like))
    return values


@given(SEEDS)
@UNHURRIED
def test_prw_equals_a_loop_of_each_codes_rules(seed: int) -> None:
    p = without_ties(fractional(seed))
    found = scored(EvaluationRecipe(), inputs_of(p), prw_readings(NAME))
    for name in (
        "seqnet",
        "coat",
        "coat-multi-view",
        "gfn",
        "gfn-cross-camera",
        "gfn-same-camera",
        "alignps",
    ):
        if name in found:
            result = found[name].result
            np.testing.assert_allclose(result.ap, literal_prw(p, name), atol=1e-12, err_msg=name)


def literal_cuhk_sysu(p: Problem, name: str) -> list[float]:
    values = []
    for query in range(len(p.queries)):
        rows = range(p.lists.offsets[query], p.lists.offsets[query + 1])
        gallery = [
            (int(p.lists.image[r]), p.lists.boxes[r] if p.lists.is_positive[r] else None) for r in rows
        ]
        if name == "oim":
            like = p.queries.embeddings[query]
            values.append(
                ap_of(p.detections, gallery, 0.5, lambda rows, like=like: -((rows - like) ** 2).sum(axis=1))
            )
        else:
            like = unit(detected(p, query))
            values.append(ap_of(p.detections, gallery, 0.2, lambda rows, like=like: unit(rows) @ like))
    return values


@given(SEEDS)
@UNHURRIED
def test_cuhk_sysu_equals_a_loop_of_each_codes_rules(seed: int) -> None:
    p = without_ties(problem(seed))
    found = scored(EvaluationRecipe(protocol="cuhk_sysu"), inputs_of(p), cuhk_sysu_readings(NAME))
    for name in ("oim", "alignps"):
        if name in found:
            expected = literal_cuhk_sysu(p, name)
            np.testing.assert_allclose(found[name].result.ap, expected, atol=1e-12, err_msg=name)


@given(SEEDS)
@UNHURRIED
def test_all_readings_together_have_the_numbers_that_each_has_alone(seed: int) -> None:
    p = fractional(seed)
    inputs = inputs_of(p)
    usable, _ = usable_readings(prw_readings(NAME), inputs)
    together = evaluate(EvaluationRecipe(), inputs, settings=[r.setting for r in usable], detection_at=None)
    for reading, found in zip(usable, together.searches, strict=True):
        alone = evaluate(EvaluationRecipe(), inputs, settings=[reading.setting], detection_at=None)
        for name in ("ap", "rank", "n_truths", "n_gallery", "lucky_rank", "inp"):
            if hasattr(found.result, name):
                expected = getattr(alone.searches[0].result, name)
                np.testing.assert_array_equal(getattr(found.result, name), expected, f"{reading.name} {name}")


def test_other_similarities_are_dot_products_of_other_embeddings() -> None:
    rng = np.random.default_rng(0)
    found = Detections(
        np.zeros(20, int), np.ones((20, 4)), np.ones(20), rng.standard_normal((20, 3)).astype(np.float32)
    )
    asked = Queries(np.zeros(4, int), np.ones((4, 4)), rng.standard_normal((4, 3)).astype(np.float32))
    expected = {
        "cosine": asked.embeddings @ unit(found.embeddings).T,
        "euclidean": -np.linalg.norm(asked.embeddings[:, None] - found.embeddings, axis=2),
    }
    for similarity, values in expected.items():
        rows = comparable_detections(found, similarity).embeddings  # type: ignore[arg-type]
        products = comparable_queries(asked, similarity).embeddings @ rows.T  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.argsort(products), np.argsort(values))


def test_what_a_test_set_does_not_allow_is_skipped_with_its_reason() -> None:
    p = problem(0)
    bare = replace(inputs_of(p), truth_embeddings=None, cameras=None)
    _, skipped = usable_readings(prw_readings(NAME), bare)
    reasons = {each.name: each.reason for each in skipped}
    assert reasons["gt-boxes"] == "the ground-truth boxes have no embeddings"
    assert reasons["coat-multi-view"] == reasons["zheng2017"] == "the images are not of several known cameras"
    empty = replace(bare, detections=p.detections.select(np.zeros(0, int)))
    missing = {OCCLUSION: "Occlusion.mat is not there", LOW_RESOLUTION: "Resolution.mat is not there"}
    subsets = cuhk_sysu_readings(NAME, missing)
    reasons = {each.name: each.reason for each in usable_readings(subsets, empty, missing)[1]}
    assert reasons[OCCLUSION] == "Occlusion.mat is not there"
    assert reasons["average-2"] == "there are no detections"
    assert "queries have no detection in their image (first: query 0)" in reasons["alignps"]


def test_names_are_unique_and_each_names_its_code() -> None:
    for readings in (prw_readings(NAME), cuhk_sysu_readings(NAME, (OCCLUSION, LOW_RESOLUTION))):
        assert len({reading.name for reading in readings}) == len(readings)
        assert all(reading.code and reading.rules for reading in readings)


def test_a_query_without_boxes_in_the_test_set_is_not_taken_for_background() -> None:
    """Readers number people that the ground truth does not have just below UNLABELLED."""
    p = problem(1)
    stranger = UNLABELLED - 1
    assert stranger not in (BACKGROUND, JUNK)
    person = np.full(len(p.queries), stranger)
    inputs = inputs_of(replace(p, queries=replace(p.queries, person_id=person)))
    original = Setting(NAME, NAME, None, rules=MatchingRules(original=True))
    (found,) = evaluate(EvaluationRecipe(), inputs, settings=[original], detection_at=None).searches
    assert not found.result.n_truths.any() and not found.result.ap.any()

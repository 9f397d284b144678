"""The options of `personsearch score` as settings of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar

from flows.cli.score_inputs import PROTOCOL
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import ContextMatching, ReRanking

STANDARD, CBGM, RERANK, MULTI_SHOT = "standard", "cbgm", "rerank", "multi_shot"
"""Names of settings; all but the first are also keys in the output."""

STANDARD_THRESHOLD = 0.5

Options = TypeVar("Options", ContextMatching, ReRanking)


def standard_setting(
    score_threshold: float, boxes_per_image: float | None = None, *, per_image_top_k: bool = False
) -> Setting:
    """The setting of the standard numbers."""
    standard = Setting(STANDARD, PROTOCOL, score_threshold)
    if not per_image_top_k:
        return replace(standard, boxes_per_image=boxes_per_image)
    if boxes_per_image is None:
        raise PersonSearchError("--per-image-top-k needs --boxes-per-image K")
    if boxes_per_image != int(boxes_per_image):
        raise PersonSearchError(f"--per-image-top-k needs a whole number of boxes; got {boxes_per_image}")
    return replace(standard, per_image_top_k=int(boxes_per_image))


def rescored(
    standard: Setting,
    cbgm: str | None,
    cbgm_lift: Literal["max", "sum"],
    rerank: bool,
    rerank_with: str | None,
) -> list[Setting]:
    """The standard setting with each requested re-ranking; options as given on the command line."""
    ways: dict[str, ContextMatching | ReRanking] = {}
    if cbgm is not None:
        what = "--cbgm takes two whole numbers of at least 1, such as 10,3"
        ways[CBGM] = _parsed(ContextMatching, ("k1", "k2"), cbgm, what, lift=cbgm_lift)
    if rerank_with is not None:
        what = (
            "--rerank-with takes K1,K2,LAMBDA,DEPTH such as 20,6,0.3,200: whole numbers of at least 1 and a "
            "weight from 0 to 1"
        )
        ways[RERANK] = _parsed(ReRanking, ("k1", "k2", "weight", "depth"), rerank_with, what)
    elif rerank:
        ways[RERANK] = ReRanking()
    return [replace(standard, name=name, rescore=rescore) for name, rescore in ways.items()]


def sweep_settings(text: str, standard: Setting) -> dict[int, Setting]:
    """Settings by number of boxes per image: on average, or for each image if `standard` does so."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise PersonSearchError(f"--sweep takes whole numbers such as 1,2,3; got {text!r}")
    budgets = sorted(int(part) for part in parts)
    if standard.per_image_top_k is not None:
        return {k: replace(standard, name=f"sweep {k}", per_image_top_k=k) for k in budgets}
    return {k: replace(standard, name=f"sweep {k}", boxes_per_image=k) for k in budgets}


def _parsed(model: type[Options], fields: tuple[str, ...], text: str, what: str, **more: Any) -> Options:
    try:
        values: dict[str, Any] = dict(zip(fields, text.split(","), strict=True))
        return model(**values, **more)
    except ValueError as error:
        raise PersonSearchError(f"{what}; got {text!r}") from error

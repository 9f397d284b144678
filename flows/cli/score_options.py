"""What `personsearch score` is asked for, as the settings of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pydantic import ValidationError

from flows.cli.score_inputs import PROTOCOL
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import ContextMatching, ReRanking

STANDARD, CBGM, RERANK, MULTI_SHOT = "standard", "cbgm", "rerank", "multi_shot"
"""Names of settings; all but the first are keys of their figures."""

Options = TypeVar("Options")


@dataclass(frozen=True)
class Beyond:
    """What is ranked beside the standard; options as they were given, see `personsearch score prw --help`."""

    cbgm: str | None = None
    cbgm_lift: Literal["max", "sum"] = "max"
    rerank: bool = False
    rerank_with: str | None = None

    def settings(self, standard: Setting) -> list[Setting]:
        """The standard setting ranked in further ways."""
        ways: dict[str, ReRanking | ContextMatching] = {}
        if self.cbgm is not None:
            ways[CBGM] = self._context_matching(self.cbgm)
        if self.rerank_with is not None:
            ways[RERANK] = _re_ranking(self.rerank_with)
        elif self.rerank:
            ways[RERANK] = ReRanking()
        return [replace(standard, name=name, rescore=rescore) for name, rescore in ways.items()]

    def _context_matching(self, text: str) -> ContextMatching:
        def parse() -> ContextMatching:
            k1, k2 = text.split(",")
            return ContextMatching(k1=int(k1), k2=int(k2), lift=self.cbgm_lift)

        return _parsed(parse, f"--cbgm takes two whole numbers of at least 1, such as 10,3; not {text!r}")


def standard_setting(
    score_threshold: float, boxes_per_image: float | None = None, *, per_image_top_k: bool = False
) -> Setting:
    """What is ranked where nothing else is asked for."""
    standard = Setting(STANDARD, PROTOCOL, score_threshold)
    if not per_image_top_k:
        return replace(standard, boxes_per_image=boxes_per_image)
    if boxes_per_image is None:
        raise PersonSearchError("--per-image-top-k needs --boxes-per-image K")
    if boxes_per_image != int(boxes_per_image):
        raise PersonSearchError(f"--per-image-top-k needs a whole number of boxes, not {boxes_per_image}")
    return replace(standard, per_image_top_k=int(boxes_per_image))


def sweep_settings(text: str, standard: Setting) -> dict[int, Setting]:
    """By number of boxes per image: on average, or of each image where the standard has a number of these."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise PersonSearchError(f"--sweep takes whole numbers such as 1,2,3; not {text!r}")
    budgets = sorted(int(part) for part in parts)
    if standard.per_image_top_k is not None:
        return {k: replace(standard, name=f"sweep {k}", per_image_top_k=k) for k in budgets}
    return {k: replace(standard, name=f"sweep {k}", boxes_per_image=k) for k in budgets}


def _re_ranking(text: str) -> ReRanking:
    def parse() -> ReRanking:
        k1, k2, weight, depth = text.split(",")
        return ReRanking(k1=int(k1), k2=int(k2), weight=float(weight), depth=int(depth))

    return _parsed(
        parse,
        "--rerank-with takes K1,K2,LAMBDA,DEPTH such as 20,6,0.3,200: whole numbers of at least 1 and a "
        f"weight within 0..1; not {text!r}",
    )


def _parsed(parse: Callable[[], Options], message: str) -> Options:
    try:
        return parse()
    except (ValueError, ValidationError) as error:
        raise PersonSearchError(message) from error

from __future__ import annotations

import pytest

from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.published import nearest, parse_published


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("mAP=.252", 0.2515, 0.2525),
        ("mAP=0.25", 0.245, 0.255),
        ("mAP=25.2", 0.2515, 0.2525),
        ("mAP=25.2%", 0.2515, 0.2525),
        ("mAP=25", 0.245, 0.255),
        ("mAP=0.9%", 0.0085, 0.0095),
        ("mAP=1.0", 0.95, 1.05),
    ],
)
def test_the_digits_say_how_far_a_number_was_rounded(text: str, low: float, high: float) -> None:
    (figure,) = parse_published(text)
    for value, fits in ((low, True), (high, True), (low - 1e-6, False), (high + 1e-6, False)):
        assert figure.fits({"mAP": value}) is fits
    assert not figure.fits({"rank1": (low + high) / 2})


def test_metrics_are_known_by_the_names_that_papers_use() -> None:
    figures = parse_published("map=.1, top-1=.2, Rank-5=.3,rank10=.4")
    assert [figure.metric for figure in figures] == ["mAP", "rank1", "rank5", "rank10"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recall=.3", r"'recall=.3' is not a published number: give METRIC=NUMBER"),
        (".252", r"'.252' is not a published number"),
        ("mAP=high", r"mAP=high: give a fraction or percent such as .252"),
        ("mAP=.", r"mAP=.: give a fraction"),
        ("mAP=-1", r"mAP=-1: give a fraction"),
        ("mAP=252", r"mAP=252: more than 100 %"),
        ("mAP=.2,map=.3", r"mAP is given twice"),
    ],
)
def test_what_is_no_number_is_refused(text: str, message: str) -> None:
    with pytest.raises(PersonSearchError, match=message):
        parse_published(text)


def test_the_nearest_reading_is_least_far_in_its_worst_figure() -> None:
    published = parse_published("mAP=.50,rank1=.70")
    readings = {"a": {"mAP": 0.5, "rank1": 0.6}, "b": {"mAP": 0.45, "rank1": 0.65}, "c": {"mAP": 0.5}}
    assert nearest(published, readings) == "b"
    with pytest.raises(PersonSearchError, match="no reading of this dataset has rank20"):
        nearest(parse_published("rank20=.5"), readings)

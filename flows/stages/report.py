"""`report`: results, curves, scenes and retrieval strips on one self-contained page. No torch."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field

from flows.config.models import Config
from flows.config.pins import Pin, Section
from flows.config.sections import Promotion, ReportSection
from flows.stages.base import (
    ArtifactInput,
    InputRef,
    Inputs,
    Made,
    Maker,
    Stage,
    StageContext,
    ViewInput,
    feature_names,
    test_names,
    view_input,
)
from personsearch_core.recipes import Recipe, later

VERSION = 2
PAGE = "report.html"


class Options(Recipe):
    detector_trained_on: tuple[str, ...]
    reid_trained_on: tuple[str, ...]
    config: str = ""
    """The config file and its overrides, as a reader of the page would type them."""
    pins: Annotated[tuple[Pin, ...], later(())] = ()
    """The pinned models."""
    promote: Annotated[Promotion | None, later(None)] = None


class ReportInputs(Inputs):
    """Of tests by what tells their stages apart, see `test_names`."""

    detector: ArtifactInput
    reid: ArtifactInput | None = None
    features: dict[str, ArtifactInput] = Field(default_factory=dict)
    """Of the branch's datasets, see `feature_names`; none if the detector's training included the branch."""
    test: dict[str, ViewInput]
    gallery: dict[str, ArtifactInput]
    evaluation: dict[str, ArtifactInput]


ReportContext = StageContext[ReportSection, ReportInputs, Options]


def stage(config: Config) -> Stage:
    """Takes the trained models for their histories, and of each test what was found and its pixels."""
    joint = config.detector.joint
    stores = [f"features{name}" for name in feature_names(config)] if joint is None else []
    trained = ["detector", "reid", *stores] if joint is None else ["detector"]
    inputs = {name: InputRef(name) for name in trained}
    for suffix, entry in test_names(config).items():
        inputs[f"test{suffix}"] = view_input(config, entry.test, "test")
        inputs[f"gallery{suffix}"] = InputRef(f"gallery{suffix}")
        inputs[f"evaluation{suffix}"] = InputRef(f"evaluation{suffix}")
    return Stage(
        name="report",
        kind="report",
        version=VERSION,
        recipe=config.report.model_dump(mode="json"),
        maker="flows.stages.report:MAKER",
        inputs=inputs,
        options=Options(
            detector_trained_on=_trained_on(config, "detector"),
            reid_trained_on=_trained_on(config, "reid"),
            config=config.written_as,
            pins=tuple(config.pins.values()),
            promote=config.promote,
        ).model_dump(mode="json"),
    )


def _trained_on(config: Config, part: Section) -> tuple[str, ...]:
    """The views that a part of the model learnt from, such as `prw/train`."""
    holder: Section = "detector" if part == "reid" and config.detector.joint is not None else part
    if holder in config.pins:
        return config.pins[holder].learnt()
    return tuple(f"{view.dataset}/{view.split}" for view in config.training_views(part))


def make(context: ReportContext) -> Made:
    """Write the page.

    Its content digest is that of the page without its account of times, memory, machines and keys, so that
    the same results give the same digest whenever and wherever they were computed.
    """
    from flows.report.gathering import gather
    from flows.report.page import render

    content = gather(context)
    page = render(content)
    (context.work / PAGE).write_text(page, encoding="utf-8")
    lasting = render(content, with_origin=False)
    metrics = {
        "bytes": len(page.encode()),
        "scenes": sum(len(test.scenes) for test in content.tests),
        "queries": sum(len(test.strips) for test in content.tests),
    }
    return Made(hashlib.sha256(lasting.encode()).hexdigest(), metrics)


MAKER = Maker(ReportSection, ReportInputs, Options, make)

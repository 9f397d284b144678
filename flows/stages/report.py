"""`report`: results, curves, scenes and retrieval strips on one self-contained page. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from flows.config.models import Config
from flows.plan.views import ViewSpec
from flows.stages.base import InputRef, Made, Stage, StageContext, ingest_name, test_names
from personsearch_core.recipes import Recipe

VERSION = 1
PAGE = "report.html"


class Options(Recipe):
    roots: dict[str, Path]
    """By input."""


def stage(config: Config) -> Stage:
    """Takes the trained models for their histories, and of each test what was found and its pixels."""
    inputs = {name: InputRef(name) for name in ("detector", "reid", "features")}
    roots = {}
    for suffix, entry in test_names(config).items():
        view = entry.test
        spec = ViewSpec(view.dataset, view.split, "test", view.min_height)
        inputs[f"test{suffix}"] = InputRef(ingest_name(view.dataset), spec)
        inputs[f"gallery{suffix}"] = InputRef(f"gallery{suffix}")
        inputs[f"evaluation{suffix}"] = InputRef(f"evaluation{suffix}")
        roots[f"test{suffix}"] = config.datasets[view.dataset].root
    return Stage(
        name="report",
        kind="report",
        version=VERSION,
        recipe=config.report.model_dump(mode="json"),
        maker="flows.stages.report:make",
        inputs=inputs,
        options=Options(roots=roots).model_dump(mode="json"),
    )


def make(context: StageContext) -> Made:
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

"""The time that a running study still takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.studies.cost import Cost, Estimator
from flows.studies.loading import Loader
from flows.studies.nodes import Node, Nodes
from flows.studies.remaining import Remaining
from storage.local import LocalStore
from tests.flows.studies.files import study_of, write_study


class Ten(Estimator):
    def cost(self, node: Node) -> Cost:
        return Cost(10.0, 10.0, None, None, "made up")


def test_estimates_are_corrected_by_what_stages_of_the_kind_took(tmp_path: Path) -> None:
    study = study_of(write_study(tmp_path))
    loader = Loader(str(tmp_path / "empty"), absent={})
    nodes = Nodes.of(study.members.values(), loader)
    now = [0.0]
    remaining = Remaining(nodes, Ten(LocalStore(tmp_path)), slots=1, clock=lambda: now[0])
    member, count = "j3 on scenes", len(nodes.missing)
    assert remaining.seconds is None
    for stage, seconds in (("ingest:scenes", 20.0), ("detector", 5.0)):
        remaining.begin(member, stage)
        now[0] += seconds
        remaining.end(member, stage)
    # One more ingest takes 20 s, as the first did; the other kinds take 25 / 20 of their estimates.
    assert remaining.seconds == pytest.approx(20 + (count - 3) * 12.5)
    remaining.begin(member, "reid")
    now[0] += 4.0
    assert remaining.seconds == pytest.approx(20 + (count - 3) * 12.5 - 4)

"""A store with two results of drawn scenes, shared by this folder's tests."""

from __future__ import annotations

import pytest

from tests.flows.report.invented import make_store
from tests.flows.report.invented_diff import TwoResults, two_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> TwoResults:
    return two_results(make_store(tmp_path_factory.mktemp("compare")))

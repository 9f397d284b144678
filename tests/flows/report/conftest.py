"""A store that a report can be made from, shared by this folder's tests."""

from __future__ import annotations

import pytest

from tests.flows.report.invented import ReportStore, make_store


@pytest.fixture(scope="session")
def report_store(tmp_path_factory: pytest.TempPathFactory) -> ReportStore:
    return make_store(tmp_path_factory.mktemp("report"))

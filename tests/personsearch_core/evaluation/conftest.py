from __future__ import annotations

from pathlib import Path

import pytest

from tests.personsearch_core.evaluation.oracles import CuhkSysuOracle, PrwOracle, read_cuhk_sysu, read_prw


@pytest.fixture(scope="session")
def cuhk_sysu(shared: Path) -> CuhkSysuOracle:
    return read_cuhk_sysu(shared)


@pytest.fixture(scope="session")
def prw(shared: Path) -> PrwOracle:
    return read_prw(shared)

"""Cases of `shared/cases` about what people write themselves: configs and adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config.loading import load_config
from flows.errors import ConfigError


def test_yaml_key_twice(shared: Path) -> None:
    with pytest.raises(ConfigError, match=r"twice\.yaml: reid appears twice, in lines 37 and 72; keep one"):
        load_config(shared / "cases" / "yaml_key_twice" / "twice.yaml")

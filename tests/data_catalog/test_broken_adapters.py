"""An adapter of somebody else that is broken spoils no command on other datasets."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from data_catalog.adapters import load_adapter, protocol
from data_catalog.errors import CatalogError
from flows.cli.datasets import app

BROKEN = ("no_module", "raises", "no_options", "stumbles")


class Raises:
    def __init__(self) -> None:
        raise RuntimeError("no licence")


class NoOptions:
    name, version, options = "no_options", 1, None

    def discover(self, root: Path, options: Any) -> Any:
        raise CatalogError("not this")

    def read(self, root: Path, unit: Any, options: Any) -> Any:
        return iter(())


class Stumbles(NoOptions):
    options: Any = {}  # noqa: RUF012

    def discover(self, root: Path, options: Any) -> Any:
        return 1 / 0


@pytest.fixture(autouse=True)
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four broken adapters beside the project's own."""
    module: Any = ModuleType("broken_adapters")
    module.raises, module.no_options, module.stumbles = Raises, NoOptions, Stumbles
    monkeypatch.setitem(sys.modules, "broken_adapters", module)
    found = protocol.entry_points

    def with_broken(*, group: str, name: str | None = None) -> list[EntryPoint]:
        ours = found(group=group) if name is None else found(group=group, name=name)
        more = [EntryPoint(each, f"broken_adapters:{each}", group) for each in BROKEN if name in (None, each)]
        return [*ours, *more]

    monkeypatch.setattr(protocol, "entry_points", with_broken)


def test_they_are_left_out_of_a_check(prw_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = CliRunner().invoke(app, ["check", str(prw_root)], catch_exceptions=False)
    assert result.exit_code == 0 and "format: prw" in result.output
    assert all(f"adapter '{name}'" in caplog.text for name in BROKEN)


def test_they_are_listed_with_what_is_wrong() -> None:
    output = CliRunner().invoke(app, ["list"], catch_exceptions=False).output
    assert "RuntimeError: no licence" in output and "options (a mapping)" in output and "prw" in output


@pytest.mark.parametrize("name", BROKEN[:3])
def test_asked_for_by_name_they_are_one_error(name: str) -> None:
    with pytest.raises(CatalogError, match=f"adapter '{name}'"):
        load_adapter(name)


def test_descriptions_are_whole_sentences() -> None:
    lines = CliRunner().invoke(app, ["list"], catch_exceptions=False).output.splitlines()
    formats = lines[: lines.index("Options of every format:")]
    described = {line.split()[0]: line for line in formats if not line.startswith(" ")}
    ours = [line for name, line in described.items() if name not in BROKEN]
    assert ours and all(line.endswith(".") for line in ours)

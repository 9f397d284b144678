"""Devices by name: one rule for configs and options, and nothing is computed elsewhere in silence."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.commands import app
from flows.cli.main import app as personsearch
from flows.config.devices import device_name, torch_device
from flows.errors import ConfigError


@pytest.mark.parametrize("name", ["", "foo", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "mps", "cuda:0,1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not a device: use auto, cpu, cuda"):
        device_name(name)


@pytest.mark.parametrize(
    ("gpus", "name", "found"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda"), (2, "cpu", "cpu"), (2, "cuda:1", "cuda:1")],
)
def test_names_and_their_devices(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, found: str) -> None:
    see(monkeypatch, gpus)
    assert str(torch_device(name)) == found


@pytest.mark.parametrize(("gpus", "name"), [(0, "cuda"), (0, "cuda:0"), (1, "cuda:1")])
def test_a_gpu_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str) -> None:
    see(monkeypatch, gpus)
    with pytest.raises(ConfigError, match=f"device {name} is not available; GPUs visible here: {gpus}"):
        torch_device(name)


@pytest.mark.parametrize("benchmark", ["speed", "reid", "extraction"])
def test_benchmarks_refuse_other_names(benchmark: str) -> None:
    assert isinstance(CliRunner().invoke(app, [benchmark, "--device", "foo"]).exception, ConfigError)


def test_a_search_refuses_other_names_before_it_loads_a_model() -> None:
    arguments = ["search", "no-model", "no-image.jpg", "--query", "no-query.jpg", "--device", "foo"]
    with pytest.raises(ConfigError, match="'foo' is not a device"):
        CliRunner().invoke(personsearch, arguments, catch_exceptions=False)


@pytest.mark.parametrize("arguments", [("--precision", "foo"), ("--backbone", "vgg")])
def test_a_speed_benchmark_of_what_there_is_not_is_refused(arguments: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(app, ["speed", *arguments])
    assert outcome.exit_code == 2
    assert f"Invalid value for '{arguments[0]}'" in outcome.output


def see(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

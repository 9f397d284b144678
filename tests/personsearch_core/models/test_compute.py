"""Which settings are quick where, and what is said of those that are not."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from personsearch_core.models import compute
from personsearch_core.recipes import Compute


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def make(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} sse2\n")
        monkeypatch.setattr(compute, "CPU_INFO", tmp_path / "cpuinfo")
        compute.has_bf16.cache_clear()
        compute._say_where_bf16_is_slow.cache_clear()

    yield make
    compute.has_bf16.cache_clear()


@pytest.mark.parametrize(("flags", "precision"), [("avx512f", "fp32"), ("avx512_bf16", "bf16"), ("", "fp32")])
def test_bf16_is_for_cpus_that_compute_in_it(cpu_with, flags: str, precision: str) -> None:
    cpu_with(flags)
    assert compute.quickest_compute(torch.device("cpu")).precision == precision
    assert compute.quickest_compute(torch.device("cuda")).precision == "bf16"


def test_a_cpu_that_emulates_bf16_is_warned_of(cpu_with, caplog: pytest.LogCaptureFixture) -> None:
    cpu_with("avx512f")
    with caplog.at_level(logging.WARNING):
        compute.prepare(nn.Linear(2, 2), Compute(precision="fp32"))
        assert not caplog.records
        for _ in range(2):
            compute.prepare(nn.Linear(2, 2), Compute(precision="bf16"))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "this CPU has no bfloat16 instructions"
    ]

"""Which settings are quick where, and what is said of those that are not."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from personsearch_core.models import compute
from personsearch_core.models.detector import build_detector
from personsearch_core.recipes import Compute
from tests.personsearch_core.scene_files import TINY


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


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_batch_is_filled_up_where_each_size_would_be_compiled(channels_last: bool) -> None:
    images = [torch.full((3, 4, 5), fill, dtype=torch.uint8) for fill in (1, 2)]
    cpu, wanted = torch.device("cpu"), Compute(channels_last=channels_last)
    assert torch.equal(compute.batch_on(cpu, images, wanted, 4), torch.stack(images))
    filled = compute.batch_on(cpu, images, wanted.model_copy(update={"compile": True}), 4)
    assert filled.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    assert torch.equal(filled[:2], torch.stack(images)) and len(filled) == 4 and not filled[2:].any()


def test_blocks_of_one_class_are_all_compiled() -> None:
    """Not only as many versions of them as torch keeps by default."""
    detector = compute.prepare(build_detector(TINY), Compute(compile=True))
    blocks = [part for part in detector.modules() if isinstance(part, compute.COMPILED)]
    assert len(blocks) == 8 + 2 and all(part._compiled_call_impl is not None for part in blocks)
    assert torch._dynamo.config.recompile_limit >= compute.VERSIONS_COMPILED
    assert not any(part._compiled_call_impl for part in build_detector(TINY).modules())

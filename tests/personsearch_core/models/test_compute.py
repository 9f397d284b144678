"""Which settings are quick where, and what is said of those that are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from personsearch_core.models import compute
from personsearch_core.models.branch import build_branch
from personsearch_core.recipes import BranchModel, Compute
from tests.personsearch_core.scene_files import TINY


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def make(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} sse2\n")
        monkeypatch.setattr(compute, "CPU_INFO", tmp_path / "cpuinfo")
        compute.has_bf16.cache_clear()
        compute._warn_if_bf16_is_slow.cache_clear()

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


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts what is compiled, without an actual compiler."""
    counter, compile_ = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **options: compile_(module, backend=counter, **options)
    )
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


def test_every_shape_of_block_is_compiled(compilations: CompileCounter) -> None:
    """In training and in evaluation, more shapes than torch compiles by default, and in any thread."""
    branch = build_branch("j2", TINY, BranchModel(initial_weights="random"))
    compute.prepare(branch, Compute(compile=True))

    def run() -> None:
        with torch.enable_grad():
            branch.train()(torch.rand(2, 64, 16, 8))
        with torch.no_grad():
            branch.eval()(torch.rand(2, 64, 16, 8))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(run).result()
        # The last three layers of a ResNet-18 have two shapes of blocks each.
        assert compilations.frame_count == 2 * 6
        thread.submit(run).result()
    assert compilations.frame_count == 2 * 6


def test_a_branch_is_not_compiled_for_each_number_of_people(compilations: CompileCounter) -> None:
    branch = build_branch("j4", TINY, BranchModel(initial_weights="random"))
    compute.prepare(branch.eval(), Compute(compile=True), any_batch=True)
    with torch.no_grad():
        for people in range(2, 12):
            branch(torch.rand(people, 256, 16, 8))
    assert compilations.frame_count <= 2 * 2

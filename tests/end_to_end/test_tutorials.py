"""The tutorials, command by command and block by block, on a few frames of the scenes that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.pets_pennfudan import CONFIGS, EXAMPLE, adapter_on_path
from storage.opening import open_store
from tests.end_to_end.commands import personsearch
from tests.in_process import InProcess, in_process
from tests.pages import Page

__all__ = ["in_process"]

FRAMES = 10
TUTORIALS = ("scheduled-runs", "new-dataset", "reid-research")
CONFIG = "configs/pets_pennfudan.yaml"
WITH_SECOND = "docs/examples/pennfudan/with_pennfudan.yaml"

ELSEWHERE = {
    f"personsearch run {WITH_SECOND} --store var/tutorial": "by benchmarks/pets_pennfudan.py; planned here",
    "export PERSONSEARCH_SAMPLES=$(realpath ../shared/data)": "the fixture sets it",
    "pip install -e docs/examples/pennfudan": "by the fixture, as pip would",
}
REFUSED = {"personsearch datasets check $PERSONSEARCH_SAMPLES/PennFudanPed": "no adapter knows its layout"}
"""Commands that end with status 2 before the adapter is installed, as the page says, and their message."""
NOTHING_TRAINED = ("personsearch plan nightly-pets.yaml --store var/tutorial",)

_STEP = re.compile(r"^```(\w+)\n(.*?)^```$|^ {4}(\S[^\n]*)$", re.DOTALL | re.MULTILINE)

LITTLE = {
    "detector": {
        "training": {"steps": 1, "batch_size": 2, "schedule": {"warmup_steps": 0}},
        "model": {"image_width": 128, "image_height": 96, "fpn_channels": 16, "head_convolutions": 1},
    },
    "features": {"views": [{"kind": "plain"}]},
    "reid": {
        "identities_per_batch": 2,
        "shots": 2,
        "phases": [{"epochs": 1, "objectives": [{"kind": "batch_hard_triplet"}]}],
    },
    "evaluation": {"score_threshold": 0.0},
    "run": {"device": "cpu", "threads": 1},
}


@pytest.fixture(scope="module")
def samples(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of PETS, and as many pictures of Penn-Fudan."""
    folder = tmp_path_factory.mktemp("samples")
    for sequence in sorted((shared / "data" / "PETS09-S2L1").glob("*/*")):
        target = folder / "PETS09-S2L1" / sequence.parent.name / sequence.name
        frames = sorted((sequence / "img1").iterdir())[:FRAMES]
        for frame in frames:
            _link(frame, target / "img1" / frame.name)
        kept = {int(frame.stem) for frame in frames}
        lines = (sequence / "gt" / "gt.txt").read_text().splitlines()
        (target / "gt").mkdir()
        of_kept = [line for line in lines if int(line.partition(",")[0]) in kept]
        (target / "gt" / "gt.txt").write_text("\n".join(of_kept) + "\n")
        for file in sequence.glob("*.ini"):
            _link(file, target / file.name)
    pictures = sorted((shared / "data" / "PennFudanPed").glob("*/*"))
    for number in range(1, FRAMES + 1):
        for picture in pictures:
            if picture.stem == f"FudanPed{number:05}":
                _link(picture, folder / "PennFudanPed" / picture.parent.name / picture.name)
    return folder


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


@pytest.fixture
def command(
    samples: Path, prefect_api: str, in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """Runs commands where a reader of the tutorials would, with the adapter installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSONSEARCH_SAMPLES", str(samples))
    adapter = tmp_path / "adapter"
    monkeypatch.setenv("PYTHONPATH", adapter_on_path(EXAMPLE, adapter)["PYTHONPATH"])
    monkeypatch.syspath_prepend(adapter)
    for name, config in ((CONFIG, CONFIGS["PETS"]), (WITH_SECOND, CONFIGS["PETS + PennFudan"])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump({"extends": str(config)} | LITTLE))
    return in_process


@pytest.mark.slow
def test_every_command_and_block_of_the_tutorials_works(command: InProcess) -> None:
    done = {page: list(_done(Page.of(f"tutorials/{page}.md").text, command)) for page in TUTORIALS}
    assert all(len(steps) > 5 for steps in done.values())


def _done(text: str, command: InProcess) -> Iterator[str]:
    """Do what a page shows, from its beginning to its end."""
    for found in _STEP.finditer(text):
        language, block, line = found.groups()
        if language == "yaml":
            Path("nightly-pets.yaml").write_text(block)
        elif language == "python":
            exec(compile(block, "a tutorial's block", "exec"), {})
        elif line in REFUSED:
            plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            refused = personsearch(*_filled_in(line).split()[1:], environment=plain)
            assert refused.status == 2 and REFUSED[line] in refused.stderr, f"{line}\n{refused.stderr}"
        elif line and line.startswith("personsearch ") and line not in ELSEWHERE:
            ended = command(_filled_in(line).removeprefix("personsearch "))
            assert ended.status == 0, f"{line}\n{ended.error}"
            if line in NOTHING_TRAINED:
                assert not re.search(r"^(detector|reid) +runs", ended.output, re.MULTILINE), ended.output
        elif line:
            assert line in ELSEWHERE, f"{line} is run nowhere"
        yield found[0]


def _filled_in(line: str) -> str:
    if "reid/KEY" in line:
        _, key = next(open_store("var/tutorial").keys("reid"))
        line = line.replace("reid/KEY", f"reid/{key}")
    return os.path.expandvars(line.replace(" --set reid.seed=0,1", ""))  # two members, both cached by then

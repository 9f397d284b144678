"""Mistakes: each ends in one message that says what is wrong, where and what to do, and in status 2."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_catalog.synthetic.prw import PrwSpec, write_prw
from flows.cli import main

CONFIG = """
store: {folder}/store
datasets:
  scenes: {{adapter: prw, root: {folder}/prw}}
detector: {{train: [{{dataset: scenes, split: train}}]}}
reid: {{train: {{dataset: scenes, split: train}}}}
evaluation: {{test: {{dataset: scenes, split: test}}}}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, and what it wrote to standard error and output."""

    status: int
    error: str
    output: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a config, and a store that holds the dataset's snapshot."""
    folder = tmp_path_factory.mktemp("mistakes")
    write_prw(folder / "prw", PrwSpec(train_images=3, test_images=3, train_identities=3, test_identities=3))
    (folder / "demo.yaml").write_text(CONFIG.format(folder=folder))
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PERSONSEARCH_STORE", raising=False)
    return Run(monkeypatch, capfd)


class Run:
    """Runs a command line in this process, in the folder of the mistakes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, line: str) -> Ended:
        self._monkeypatch.setattr("sys.argv", ["personsearch", *shlex.split(line)])
        self._capfd.readouterr()
        try:
            main.main()
            status: object = 0
        except SystemExit as end:
            status = end.code
        said = self._capfd.readouterr()
        return Ended(int(status or 0) if isinstance(status, int | None) else 1, said.err, said.out)


INGEST = "datasets ingest --root prw --name scenes --store store"

MISTAKES = [
    # what was typed; what the message says of what, where, and what to do
    ("stauts", "No such command 'stauts'. Did you mean 'status'?"),
    ("store lss", "No such command 'lss'. Did you mean 'ls'?"),
    ("datasets chek prw", "No such command 'chek'. Did you mean 'check'?"),
    ("run demo.yaml --form detector", "No such option: --form"),
    ("run", "Missing argument 'CONFIG'"),
    ("run demo.yml", "cannot read the config demo.yml: there is no such file; did you mean 'demo.yaml'?"),
    ("run empty", "cannot read the config empty: it is a folder; name a file in it"),
    ("plan prw/frames/{frame}", "is not UTF-8 text: byte 0 is 0xff; save it as UTF-8, or name another file"),
    ("plan demo.yaml --set reid.lr", "--set takes NAME=VALUE such as reid.lr=3e-4, not 'reid.lr'"),
    ("plan demo.yaml --set reid.lr=", "--set reid.lr: write a number (given: nothing)"),
    ("plan demo.yaml --set reid.lr=fast", "--set reid.lr: write a number (given: 'fast')"),
    ("plan demo.yaml --set reid.phases=3", "--set reid.phases: write a list such as [1, 2] (given: 3)"),
    ("plan demo.yaml --set reid.learning_rate=1", "there is no such field; did you mean 'lr'?"),
    ("plan demo.yaml --set detctor.seed=1", "detctor: there is no such field; did you mean 'detector'?"),
    (
        "plan demo.yaml --set reid.train.dataset=scene",
        "'scene' is not a dataset of this config; did you mean 'scenes'?",
    ),
    ("plan demo.yaml --set datasets.scenes.adapter=prv", "did you mean 'prw'?"),
    ("plan demo.yaml --set datasets.scenes.root=nowhere", "datasets.scenes.root: there is no folder"),
    ("plan demo.yaml --from detecter", "there is no stage 'detecter'; did you mean 'detector'?"),
    ("plan demo.yaml --until evaluate", "there is no stage 'evaluate'; did you mean 'evaluation'?"),
    ("plan demo.yaml --store demo.yaml", "the store {folder}/demo.yaml is a file: name a folder"),
    ("plan demo.yaml --json missing/plan.json", "--json missing/plan.json: folder {folder}/missing does not"),
    ("plan demo.yaml --json empty", "--json empty: this is a folder; name a file in it"),
    ("plan demo.yaml --json demo.yaml", "--json demo.yaml: this is the name of a config"),
    ("fields lr", "did you mean detector.training.lr or reid.lr?"),
    ("fields reid.learning_rate", "did you mean detector.training.lr or reid.lr?"),
    ("status", "no store is given: pass --store FOLDER (or a URL), or set $PERSONSEARCH_STORE"),
    ("status --store nowhere", "there is no store at {folder}/nowhere"),
    ("store ls --store nowhere", "there is no store at {folder}/nowhere"),
    ("store show reid/zzz --store store", "has no artifact 'reid/zzz'; `store ls` shows what it has"),
    ("datasets ingest --root nowhere --store store", "nowhere: no such folder"),
    ("datasets ingest --root prw --adapter prv --store store", "did you mean 'prw'?"),
    (
        "datasets ingest --root prw --store store --option leave_out",
        "--option leave_out: write it as key=value",
    ),
    ("datasets check empty", "empty"),
    ("datasets stats scene --store store", "no snapshot of 'scene'; did you mean 'scenes'?"),
    (
        "datasets stats scenes --store store --html nope/s.html",
        "--html nope/s.html: folder {folder}/nope",
    ),
    (
        "datasets stats scenes --store store --html empty",
        "--html empty: this is a folder; name a file",
    ),
    ("datasets show {frame}x --name scenes --root prw --store store", "did you mean '{frame}'?"),
    (
        "datasets show {frame} --name scenes --root empty --store store",
        "is empty the folder that was ingested?",
    ),
    ("datasets show {frame} --name scenes --root prw --store store --out a.txt", "must end with one of .png"),
    ("datasets export out.json --view scenes --store store", "--view scenes: write it as NAME/SPLIT"),
    ("export demo.yaml model --set reid.lr=0.5 --store store", "run first: personsearch run demo.yaml --set"),
    ("features stats empty", "empty"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_ends_in_one_message(run: Run, folder: Path, line: str, message: str) -> None:
    frame = sorted(path.name for path in (folder / "prw" / "frames").iterdir())[0]
    if "scene" in line and line.startswith("datasets") and "ingest" not in line:
        assert run(INGEST).status == 0
    ended = run(line.format(frame=frame))
    said = " ".join(re.sub(r"[╭╮╰╯─│]", " ", ended.error).split())
    assert ended.status == 2, said
    assert message.format(folder=folder, frame=frame) in said
    assert "Traceback" not in said and "[Errno" not in said and "Input should be" not in said


def test_a_dataset_that_no_stage_uses_is_told(
    run: Run, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (folder / "demo.yaml").read_text()
    more = f"datasets:\n  spare: {{adapter: prw, root: {folder}/prw}}"
    (folder / "more.yaml").write_text(text.replace("datasets:", more))
    ended = run("plan more.yaml --until detector")
    assert ended.status == 0, ended.error
    assert caplog.messages == ["datasets.spare: no stage uses this dataset"]


def test_that_a_part_is_not_the_whole_dataset_is_told_in_one_line(run: Run) -> None:
    assert run(INGEST).status == 0
    said = run("datasets stats scenes --store store").output
    lines = [line for line in said.splitlines() if "is given" in line]
    assert len(lines) == 1 and lines[0].endswith(" more totals")

"""Mistakes: each ends in one message that says what is wrong, where and what to do, and doing that helps."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_catalog.synthetic.prw import PrwSpec, write_prw
from tests.flows.score_tables import write_score_tables
from tests.flows.search.conftest import built, model, model_folder
from tests.in_process import InProcess, call_main, in_process

__all__ = ["built", "in_process", "model", "model_folder"]

CONFIG = """
store: {folder}/store
datasets:
  scenes: {{adapter: prw, root: {folder}/prw}}
detector: {{train: [{{dataset: scenes, split: train}}]}}
reid: {{train: {{dataset: scenes, split: train}}, identities_per_batch: 2}}
evaluation: {{test: {{dataset: scenes, split: test}}}}
"""
STUDY = """
title: Two seeds
config: demo.yaml
members:
  a: {set: {reid.seed: 1}}
tables:
  one:
    title: Table one
    columns: {mAP: {title: mAP, metric: mAP}}
    rows: {a: {member: a}}
"""


@dataclass(frozen=True)
class Mistake:
    """What was typed, a part of the message, and what its reader types next if it suggests no command."""

    typed: str
    message: str
    then: str | None


def read_mistakes() -> list[Mistake]:
    text = (Path(__file__).parent / "mistakes.txt").read_text()
    found = re.findall(r"^\$ (.+)\n((?:  .+\n)+)(?:> (.+)\n)?", text, re.MULTILINE)
    return [Mistake(typed, " ".join(message.split()), then or None) for typed, message, then in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, built: Path, model_folder: Path) -> Path:
    """A dataset, configs, a study, tables, a model, an index, and files that are not what they should be."""
    folder = tmp_path_factory.mktemp("mistakes")
    write_prw(folder / "prw", PrwSpec(train_images=3, test_images=3, train_identities=3, test_identities=3))
    config = CONFIG.format(folder=folder)
    texts = {
        "demo.yaml": config,
        "study.yaml": STUDY,
        "broken.yaml": "store: [\n",
        "list.yaml": "- a\n",
        "loop.yaml": "extends: loop.yaml\n",
        "twice.yaml": "store: store\nstore: other\n",
        "braces.yaml": config.replace(f"root: {folder}", "root: ${MY_DATA}"),
        "unset.yaml": config.replace(f"{folder}/prw", '"$MY_DATA/prw"'),
        "default.yaml": config.replace(f"{folder}/prw", '"${PERSONSEARCH_SAMPLES:-absent}/prw"'),
        "member.yaml": STUDY.replace("{member: a}", "{member: b}"),
        "set.yaml": STUDY.replace("reid.seed", "reid.sed"),
        "list.txt": "nowhere.png\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    write_score_tables(folder)
    (folder / "dangling.yaml").symlink_to("gone.yaml")
    (folder / "empty").mkdir()
    shutil.copytree(model_folder, folder / "model")
    shutil.copytree(built, folder / "people")
    shutil.copytree(built.parent / "scenes", folder / "scenes")
    shutil.copy(next((folder / "scenes").rglob("*.png")), folder / "scene.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call_main(INGEST) == 0
    return folder


@pytest.fixture
def run(folder: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.chdir(folder)
    return in_process


INGEST = "datasets ingest prw --name scenes --store store"


PLACES = {"ROOT": "prw", "SCENES": "scenes", "CONFIG": "demo.yaml", "INDEX": "fresh"}
"""What a reader puts in place of the words in capitals of a suggested command."""


def suggested(message: str) -> list[str]:
    """The commands in a message: whole ones as they stand, names in backticks by their help."""
    message = re.sub(r"Usage: .*?(?=Try ')", "", message)
    whole = re.findall(r"(?<=[ (])personsearch ([a-z][^`;)]*)", message)
    quoted = re.findall(r"'[^']*personsearch ([^']*)'", message)
    named = [f"{name} --help" for name in re.findall(r"`personsearch ([^`]*)`", message)]
    return [*whole, *quoted, *named]


def obeyed(command: str) -> str:
    """The command with a reader's own values; a run is only planned, which refuses what the run would."""
    words = [PLACES.get(word, word) for word in shlex.split(command)]
    if "--model" in words:
        words[words.index("--model") + 1] = "model"  # the config's own is not trained
    if "run" in words[:2]:
        words[words.index("run")] = "plan"
        words = ["new" if word.endswith("/nowhere") else word for word in words]
    return shlex.join(words)


MISTAKES = read_mistakes()


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.typed for mistake in MISTAKES])
def test_a_mistake_ends_in_one_message_that_helps(run: InProcess, folder: Path, mistake: Mistake) -> None:
    frame = sorted(path.name for path in (folder / "prw" / "frames").iterdir())[0]

    def placed(text: str) -> str:
        return text.replace("{folder}", str(folder)).replace("{frame}", frame)

    ended = run(placed(mistake.typed))
    said = ended.message
    assert ended.status == 2, said
    assert placed(mistake.message) in said
    assert "Traceback" not in said and "[Errno" not in said and "Input should be" not in said
    assert said.count("error: ") <= 1
    next_ones = [obeyed(command) for command in suggested(said)]
    next_ones += [] if mistake.then is None else [placed(mistake.then)]
    assert next_ones, "it does not say what to do"
    for command in next_ones:
        ended = run(command)
        assert ended.status == 0, f"{command}: {ended.message}"


def test_there_are_at_least_sixty() -> None:
    assert len({mistake.typed for mistake in MISTAKES}) == len(MISTAKES) >= 60


def test_a_dataset_that_no_stage_uses_is_told(
    run: InProcess, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (folder / "demo.yaml").read_text()
    more = f"datasets:\n  spare: {{adapter: prw, root: {folder}/prw}}"
    (folder / "more.yaml").write_text(text.replace("datasets:", more))
    ended = run("plan more.yaml --until detector")
    assert ended.status == 0, ended.error
    assert caplog.messages == ["datasets.spare: no stage uses this dataset"]


def test_that_a_part_is_not_the_whole_dataset_is_told_in_one_line(run: InProcess) -> None:
    said = run("datasets stats scenes --store store").output
    lines = [line for line in said.splitlines() if "is given" in line]
    assert len(lines) == 1 and lines[0].endswith(" more totals")

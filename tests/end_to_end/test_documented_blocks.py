"""Every command of the README and of docs/operations.md and getting-started.md runs, with own values."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.end_to_end.conftest import TinyRun
from tests.flows.score_tables import write_score_tables
from tests.in_process import InProcess, call_main, in_process
from tests.pages import PROJECT, Block, Page, Shell

__all__ = ["in_process"]

PAGES = ("README.md", "operations.md", "getting-started.md")

SERVER = Page.of("operations.md").section("A server, a worker, a schedule")
POSTGRESQL = Page.of("operations.md").section("A team: PostgreSQL")

ELSEWHERE = {
    "make demo": "takes minutes; its commands are shown by `make --dry-run` here",
    "make test": "what runs this test",
    "make demo TORCH=cpu": "takes minutes; shown by tests/docs/test_installing.py",
    "export PERSONSEARCH_DEMO=var/demo": "the configs of the tests do not need it",
    "make setup && source .venv/bin/activate": "what has installed the packages that run this test",
    "personsearch join 10.0.0.5:29400": "by tests/personsearch_core/training/test_machines.py",
    "export PERSONSEARCH_SAMPLES=...": "set by tests/end_to_end/test_real_samples.py, too",
    "personsearch run configs/prw_mot17_sample.yaml": "by test_real_samples.py, in fewer steps",
    # with a server and a worker: these whole, the others by `Server.documented`
    **dict.fromkeys(SERVER.block_with("prefect server start").commands(), "by tests/end_to_end/server.py"),
    **dict.fromkeys(SERVER.block_with("prefect server stop").commands(), "by tests/end_to_end/server.py"),
    **dict.fromkeys(SERVER.block_with("flow-run cancel").commands(), "by test_deployment.py"),
    **dict.fromkeys(POSTGRESQL.block_with("createdb").commands(), "needs a PostgreSQL server"),
}
"""Commands of blocks that this test does not run, and why or where they are run."""


NAMES = {f"personsearch {name}" for name in ("index", "export", "serve", "store tag", "benchmark soak")}
"""Commands of which the text only says the name (a soak takes an hour)."""


@pytest.fixture(scope="module")
def copied(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished run with an index of its test frames, in a folder that may be changed."""
    folder = tmp_path_factory.mktemp("documented") / "tiny"
    shutil.copytree(tiny_run.folder, folder, symlinks=True)
    write_score_tables(folder)
    copied = TinyRun(folder / tiny_run.config.name, tiny_run.outcome)
    index = shlex.join(["index", str(folder / "prw" / "frames"), "--model", str(copied.config), "--out"])
    assert call_main(f"{index} {folder / 'people'}") == 0
    return copied


def values_of(run: TinyRun) -> Mapping[str, str]:
    """What stands on the pages, and what is there in its place."""
    frame = sorted((run.folder / "prw" / "frames").iterdir())[0]
    artifacts = {kind: f"{kind}/{run.outcome.path(kind).name}" for kind in ("features", "detector")}
    score = " ".join(
        f"--{option} {run.folder / table}.parquet"
        for option, table in (
            ("detections", "found"),
            ("queries", "queries"),
            ("images", "images"),
            ("boxes", "truth"),
        )
    )
    return {
        "var/demo/index": str(run.folder / "people"),
        "var/demo/data/prw/frames/c2s1_004451.jpg": str(frame),
        "127,93,164,183": "10,10,60,90",
        "configs/demo.yaml": str(run.config),
        "reid.lr=3e-4": "reid.lr=1e-3",  # the run's own, so that nothing has to be trained
        "nightly.yaml": str(run.config),
        "paper.yaml": str(run.config),
        "prw/479": "scenes/7",
        "reid/3fa9c1": artifacts["detector"],  # since the page has deleted reid by then
        "/mnt/shared/store": str(run.folder / "shared"),
        "score prw": f"score prw {score}",
        "ARTIFACT": artifacts["features"],
        "CONFIG": str(run.config),
        "STORE": str(run.store),
        "ROOT": str(run.folder / "prw"),
        "study run configs": f"study plan {PROJECT}/configs",  # which trains 18 members
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_personsearch_succeeds(
    page: str, copied: TinyRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.folder)
    monkeypatch.setenv("PERSONSEARCH_STORE", str(copied.store))
    values = values_of(copied)
    anything = re.compile("|".join(map(re.escape, sorted(values, key=len, reverse=True))))
    commands = Page.of(page).commands("personsearch")
    assert len(commands) > 5
    for command in commands:
        if command in ELSEWHERE or command == "personsearch --install-completion":
            continue
        if command in NAMES:
            command += " --help"
        line = anything.sub(lambda found: values[found[0]], command).removeprefix("personsearch ")
        ended = in_process(line)
        assert ended.status == 0, f"{command}\n{line}\n{ended.error}"


def test_every_other_command_of_a_block_is_run_somewhere() -> None:
    blocks = [command for page in PAGES for block in Page.of(page).blocks() for command in block.commands()]
    others = {each for each in blocks if not each.startswith("personsearch ") or each in ELSEWHERE}
    assert others == ELSEWHERE.keys()
    deployment = (Path(__file__).parent / "test_deployment.py").read_text()
    for command in SERVER.block_with("flow-run cancel").commands():
        assert command.partition(" --param ")[0] in deployment, f"run it there: {command}"


def test_the_targets_of_make_are_there() -> None:
    for page in PAGES:
        for command in Page.of(page).commands("make"):
            words = shlex.split(command.partition(" && ")[0])
            done = subprocess.run([*words, "--dry-run"], cwd=PROJECT, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            if command == "make demo":
                assert "bin/personsearch demo" in done.stdout


def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    assert "personsearch --install-completion" in Page.of("README.md").commands("personsearch")
    Shell(HOME=str(tmp_path)).run(Block("personsearch --install-completion"))
    assert "personsearch" in (tmp_path / ".bashrc").read_text()


def test_the_unit_of_systemd_starts_the_worker_of_the_page() -> None:
    section = Page.of("operations.md").section("A server, a worker, a schedule")
    text = re.search(r"^```ini\n(.*?)^```$", section.text, re.DOTALL | re.MULTILINE)
    assert text is not None
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text[1])
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "prefect"
    started = section.block_with("prefect server start").commands()
    assert shlex.join(["prefect", *words]) in started
    name, _, value = unit["Service"]["Environment"].partition("=")
    assert any(f"{name}={value}" in command for command in started)


def test_the_address_of_a_postgresql_database_is_one() -> None:
    from sqlalchemy import make_url

    (exported,) = [each for each in POSTGRESQL.block_with("createdb").commands() if "://" in each]
    url = make_url(os.path.expandvars(shlex.split(exported)[1].partition("=")[2]))
    assert url.get_dialect().name == "postgresql" and url.get_driver_name() == "asyncpg"

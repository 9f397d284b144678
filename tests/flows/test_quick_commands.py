"""Quick commands load only what they need; what help says of a command is what the command says of itself."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import commands as benchmark
from flows.cli import main, store
from flows.cli.lazy import Lazy, lazy_group

PROJECT = Path(__file__).resolve().parents[2]
GROUPS = {"": main.COMMANDS, "store ": store.COMMANDS, "benchmark ": benchmark.COMMANDS}

HEAVY = {
    "torch",
    "torchvision",
    "prefect",
    "pandas",
    "matplotlib",
    "scipy",
    "zarr",
    "tensorstore",
    "dask",
    "distributed",
    "skimage",
    "sqlalchemy",
    "httpx",
}
ARRAYS = {"numpy", "pyarrow", "PIL"}
MODELS = {"pydantic", "yaml", "fsspec"}

LOADED = """
import sys
from flows.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(*words: str, **variables: str) -> set[str]:
    """The packages that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=os.environ | variables,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose store is there and whose dataset was never read."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "store" / "ingest").mkdir(parents=True)
    (folder / "root").mkdir()
    (folder / "root" / "train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    path = folder / "config.yaml"
    path.write_text(
        "store: store\ndatasets: {d: {adapter: coco, root: root, allow_empty: true}}\n"
        "detector: {train: [{dataset: d, split: train}]}\n"
    )
    return path


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        (["--help"], HEAVY | ARRAYS | MODELS),
        (["--version"], HEAVY | ARRAYS | MODELS | {"rich"}),
        (["store", "--help"], HEAVY | ARRAYS),
        (["benchmark", "--help"], HEAVY | ARRAYS | {"yaml", "fsspec"}),
        (["fields"], HEAVY | ARRAYS | {"fsspec", "yaml"}),
        (["fields", "study.tables"], HEAVY | ARRAYS | {"fsspec", "yaml"}),
        (["run", "--help"], HEAVY | ARRAYS | {"fsspec"}),
        (["plan", "CONFIG"], HEAVY | {"fsspec", "psutil"}),
        (["status", "CONFIG"], HEAVY),
        (["status", "--store", "STORE"], HEAVY | ARRAYS),
        (["store", "ls", "--store", "STORE"], HEAVY | ARRAYS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_quick_command_does_not_load(config: Path, words: list[str], left_out: set[str]) -> None:
    places = {"CONFIG": str(config), "STORE": str(config.parent / "store")}
    loaded = loaded_by(*(places.get(word, word) for word in words))
    assert "typer" in loaded
    assert not loaded & left_out


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("personsearch sta", ["status"]),
        ("personsearch benchmark sp", ["speed"]),
        ("personsearch run --unt", ["--until"]),
    ],
)
def test_completion_knows_commands_and_options_and_loads_little(typed: str, wanted: list[str]) -> None:
    script = LOADED.replace("    main()", "    sys.argv[0] = 'personsearch'; main()")
    environment = os.environ | {
        "_PERSONSEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, env=environment
    )
    *offered, loaded = done.stdout.splitlines()
    assert offered == wanted, done.stderr
    assert not set(loaded.split()) & (HEAVY | ARRAYS | {"fsspec"})


@pytest.mark.parametrize(
    ("group", "name", "lazy"),
    [(group, name, lazy) for group, commands in GROUPS.items() for name, lazy in commands.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_help_says_of_a_command_what_it_says_of_itself(group: str, name: str, lazy: Lazy) -> None:
    command = lazy.load(name)
    assert command.name == name
    first = inspect.cleandoc(command.help).partition("\n\n")[0]
    assert " ".join(first.split()) == lazy.help


@pytest.mark.parametrize("commands", GROUPS.values(), ids=GROUPS)
def test_a_mistyped_command_is_answered_with_the_nearest(commands: Mapping[str, Lazy]) -> None:
    app = typer.Typer(cls=lazy_group(commands), no_args_is_help=True)
    app.callback()(lambda: None)
    name = next(iter(commands))
    said = CliRunner().invoke(app, [f"{name}s"])
    assert said.exit_code == 2 and f"Did you mean '{name}'?" in said.output

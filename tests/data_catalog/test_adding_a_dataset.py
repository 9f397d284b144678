"""The page on adding a dataset: what it tells to do works, and its table names every format."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from data_catalog.adapters import adapter_names
from tests.third_party import install_adapter

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "adding-a-dataset.md").read_text()

EXPORTERS = (
    *("Roboflow", "CVAT", "Label Studio", "LabelImg", "Ultralytics", "datumaro", "FairMOT", "FiftyOne"),
    *("JDE", "MOT17", "MOT20", "DanceTrack", "SportsMOT", "PoseTrack18", "Pascal VOC", "CityPersons"),
    *("Market-1501", "MARS", "COCO", "YOLO", "PRW", "CUHK-SYSU", "CrowdHuman", "WIDER Pedestrian"),
)


def blocks(language: str) -> list[str]:
    """The fenced blocks of "Write an adapter" in that language."""
    section = PAGE.split("## Write an adapter")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def pytest_of(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_its_own_test_passes_after_the_changes_that_the_page_tells(tmp_path: Path) -> None:
    folder = tmp_path / "street-cams"
    environment = install_adapter(folder)
    (shell,), (methods, expected) = blocks("sh"), blocks("python")

    adapter, test = folder / "street_cams.py", folder / "test_street_cams.py"
    imports, marker, bodies = methods.partition("    def discover(")
    docstring, _, rest = adapter.read_text().partition("\n\n")
    head = rest.partition("    def discover(")[0]
    adapter.write_text(f"{docstring}\n\n{imports}{head}{marker}{bodies}")
    told_before = pytest_of(folder, environment)
    assert "no labels/*.txt" in told_before.stdout  # the sample is still that of the scaffold

    subprocess.run(["bash", "-e", "-c", shell], cwd=folder, check=True)
    before = test.read_text()
    test.write_text(re.sub(r"EXPECTED = \{.*\}\n", expected, before))
    assert test.read_text() != before
    done = pytest_of(folder, environment)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout

    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "datasets", "check"]
    checked = subprocess.run(
        [*command, folder / "sample"], capture_output=True, text=True, env=environment, check=False
    )
    assert checked.returncode == 0 and "format: street-cams" in checked.stdout, checked.stderr


def test_the_table_of_formats_names_every_adapter_and_what_people_call_their_files() -> None:
    section = PAGE.split("## Is there an adapter already?")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    named = {
        name
        for _, cell in rows
        for name in re.findall(r"`([a-z0-9-]+)`", re.sub(r"`--option [^`]*`", "", cell))
        if name != "instances"
    }
    assert named == set(adapter_names())
    files = " ".join(row[0] for row in rows)
    for exporter in EXPORTERS:
        assert exporter in files, exporter

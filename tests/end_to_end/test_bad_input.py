"""Bad input: one message, exit status 2, no traceback, and nothing half-made."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.io import loadmat

from tests.end_to_end.commands import Outcome, here, personsearch
from tests.end_to_end.conftest import TinyRun
from tests.end_to_end.server import free_port
from tests.end_to_end.tiny import tiny_settings, write_tiny_config


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2, outcome.stderr
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr + outcome.stdout
    for word in words:
        assert word in errors[0]


def remove_root(folder: Path) -> None:
    shutil.rmtree(folder / "prw")


def remove_a_frame(folder: Path) -> None:
    sorted((folder / "prw" / "frames").iterdir())[0].unlink()


def spoil_an_annotation(folder: Path) -> None:
    sorted((folder / "prw" / "annotations").iterdir())[0].write_text("not a .mat file")


def train_on_a_test_image(folder: Path) -> None:
    names = loadmat(folder / "prw" / "frame_test.mat")["img_index_test"]
    tested = folder / "prw" / "frames" / f"{names[0, 0].item().item()}.jpg"
    shutil.copy(tested, sorted((folder / "mot17").rglob("img1/*.jpg"))[0])


def short_training(data: Path) -> dict[str, Any]:
    """The section of a detector of two steps."""
    detector: dict[str, Any] = tiny_settings(data, "store")["detector"]
    detector["training"] |= {"steps": 2, "schedule": {"warmup_steps": 0}}
    return detector


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove_root, ("datasets.scenes.root: folder", "does not exist")),
        (remove_a_frame, (".jpg",)),
        (spoil_an_annotation, (".jpg.mat",)),
    ],
)
@pytest.mark.usefixtures("prefect_api")
def test_spoiled_datasets(
    tmp_path: Path, tiny_data: Path, spoil: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    spoil(tmp_path / "data")
    config = write_tiny_config(tmp_path, tmp_path / "data")
    assert_refused(here("run", config), *words)
    assert not list((tmp_path / "store").glob("ingest/*"))


@pytest.mark.usefixtures("prefect_api")
def test_a_test_image_among_the_training_images(tmp_path: Path, tiny_data: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    train_on_a_test_image(tmp_path / "data")
    config = write_tiny_config(tmp_path, tmp_path / "data", detector=short_training(tmp_path / "data"))
    words = ("1 test images are training images", "tracks/train", "scenes/test")
    assert_refused(here("run", config), *words)
    assert not list((tmp_path / "store").glob("detector/*"))
    warned = here("run", config, "--set", "run.test_images_in_training=warn", "--until", "detector")
    assert warned.status == 0, warned.stderr
    # Also where all is cached and nothing of it would be made, in a plan, and of each member of a sweep.
    assert_refused(here("run", config, "--until", "detector"), *words)
    assert_refused(here("plan", config, "--until", "detector"), *words)
    swept = here("sweep", config, "--set", "reid.seed=0,1", "--out", tmp_path / "sweep")
    assert swept.status != 0 and words[0] in swept.stdout + swept.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "reid.lrr=1"], ("reid.lrr", "did you mean 'lr'?")),
        (["--set", "datasets.scenes.adapter=prv"], ("prv", "prw")),
        (["--until", "everything"], ("there is no stage 'everything'", "detector")),
        (["--set", "detector.train.0.split=validation"], ("no images in split 'validation'",)),
        (["--store", "/proc/nowhere"], ("/proc/nowhere",)),
    ],
)
@pytest.mark.usefixtures("prefect_api")
def test_wrong_requests(tiny_config: Path, arguments: list[str], words: tuple[str, ...]) -> None:
    assert_refused(here("run", tiny_config, *arguments), *words)


def test_an_api_that_does_not_answer(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert_refused(personsearch("run", tiny_config), f"the Prefect API at {url} does not answer")


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(personsearch("run", tmp_path / "absent.yaml"), "absent.yaml does not exist")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two mebibytes, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no permission to mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("prefect_api")
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    tiny_run: TinyRun, small_disk: Path, tmp_path: Path
) -> None:
    """The detector's weights do not fit; with more room the run ends, and nothing half-made was visible."""
    config = write_tiny_config(tmp_path, tiny_run.folder, detector=short_training(tiny_run.folder))
    words = ("run", config, "--store", small_disk)
    outcome = here(*words, json_to=tmp_path / "full.json")
    assert_refused(outcome, "the disk is full")
    assert "detector" in outcome.states and outcome.states["detector"] == "failed"
    assert not list(small_disk.glob("detector/*"))
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    again = here(*words, "--until", "detector")
    assert again.status == 0, again.stderr
    assert list((small_disk / "detector").iterdir())

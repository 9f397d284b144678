"""`personsearch datasets ingest`, and the commands that look at what it made, on local stores and on S3."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from data_catalog.errors import CatalogError
from data_catalog.synthetic import Mot17Spec, write_mot17
from flows.cli.datasets import app
from flows.config.loading import load_config
from flows.errors import ConfigError
from flows.plan.catalog import open_catalog
from flows.stages import ingest as ingest_stage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small synthetic MOT17."""
    write_mot17(
        tmp_path / "mot", Mot17Spec(sequences=1, frames=2, width=96, height=72, people=(2, 3)), seed=1
    )
    return tmp_path / "mot"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def ingest(root: Path, store: object) -> str:
    return call("ingest", root, "--adapter", "mot17", "--store", store)


def folder_of(store: object) -> Path:
    return open_catalog(str(store))["mot17"].snapshot.path


def test_a_root_that_was_put_back_shows_its_own_snapshot(root: Path, tmp_path: Path) -> None:
    store, truth = tmp_path / "store", next(root.glob("train/*/gt/gt.txt"))
    before = truth.read_text()
    ingest(root, store)
    first = folder_of(store)
    truth.write_text(before + "1,99,5,5,9,9,1,1,1\n")
    ingest(root, store)
    second = folder_of(store)
    truth.write_text(before)
    assert "cached in" in ingest(root, store)
    assert second != first == folder_of(store)
    assert str(first) in call("stats", "mot17", "--store", store)


@pytest.mark.parametrize("kept", [0, 400])
def test_an_image_that_cannot_be_read_is_refused(root: Path, tmp_path: Path, kept: int) -> None:
    """An empty file is among the rejects with its boxes, one that is cut short is not: both are told."""
    image = next(root.glob("train/*/img1/000002.jpg"))
    image.write_bytes(image.read_bytes()[:kept])
    name, arguments = image.relative_to(root).as_posix(), [root, "--store", tmp_path / "store"]
    whole = ["ingest", "--adapter", "mot17", "--allow-empty", *arguments]
    with pytest.raises(CatalogError, match=f"1 image cannot be decoded: {name}: .*leave_out=PATTERN"):
        call(*whole)
    call(*whole, "--no-check-images")
    call(*whole, "--option", f"leave_out={name}")


def test_images_are_listed_and_a_wrong_id_names_near_ones(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest(root, store)
    table = open_catalog(str(store))["mot17"].images(columns=["image_id", "split"])
    ids = table["image_id"].to_pylist()
    assert call("images", "mot17", "--store", store).split() == ids
    first, last = ids[0], ids[-1]
    assert call("images", "mot17", "--store", store, "--like", first[2:].upper()).split() == [first]
    assert call("images", "mot17", "--store", store, "--like", f"*{first[-4:]}").split() == [
        each for each in ids if each.endswith(first[-4:])
    ]
    assert not call("images", "mot17", "--store", store, "--like", "absent", "--json", "-").strip("[]\n")
    with pytest.raises(CatalogError, match="no images in split 'vall'; there is: train"):
        call("images", "mot17", "--store", store, "--split", "vall")
    for wrong in (f"img1/{first}.jpg", f"{last[:-1]}x", first.swapcase()):
        near = last if wrong.startswith(last[:-1]) and wrong.endswith("x") else first
        with pytest.raises(ConfigError, match=rf"no image '{wrong}'; did you mean .*'{near}'"):
            call("show", "mot17", wrong, "--store", store, "--root", root)


def test_a_plan_that_finds_a_snapshot_makes_it_the_datasets_own(root: Path, tmp_path: Path) -> None:
    store, truth = tmp_path / "store", next(root.glob("train/*/gt/gt.txt"))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"store: {store}\ndatasets: {{mot17: {{adapter: mot17, root: {root}}}}}\n"
        "detector: {train: [{dataset: mot17, split: train}]}\n"
    )
    before = truth.read_text()
    ingest(root, store)
    first = folder_of(store)
    truth.write_text(before + "1,99,5,5,9,9,1,1,1\n")
    ingest(root, store)
    truth.write_text(before)
    ingest_stage.stage(load_config(config), "mot17")
    assert folder_of(store) == first


def test_a_store_on_object_storage(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)
    boto3.client("s3").create_bucket(Bucket="datasets")
    store = "s3://datasets/store"
    try:
        monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path / "one"))
        assert "built in" in ingest(root, store)
        assert "cached in" in ingest(root, store)
        monkeypatch.setenv("PERSONSEARCH_CACHE", str(tmp_path / "two"))  # another machine
        assert "whole root" in call("stats", "mot17", "--store", store)
        exported = call("export", tmp_path / "out.json", "--view", "mot17/train", "--store", store)
        assert "2 images" in exported
    finally:
        server.stop()
    assert not (tmp_path / "s3:").exists()


def test_rejects_are_printed_as_csv(root: Path, tmp_path: Path) -> None:
    truth = next(root.glob("train/*/gt/gt.txt"))
    truth.write_text(truth.read_text() + "1,99,5,5,nan,9,1,1,1\n")
    said = ingest(root, tmp_path / "store")
    assert "mot17: format: mot17" in said and "warning: 1 rows are damaged" in said
    lines = call("rejects", "mot17", "--store", tmp_path / "store").splitlines()
    assert lines[0].startswith("severity,code,image_id") and any("gt.txt" in line for line in lines[1:])


def test_arguments_that_used_to_be_options_are_still_read(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    said = call("ingest", "--root", root, "--adapter", "mot17", "--store", store)
    assert "note: --root is an argument now: datasets ingest ROOT" in said
    assert "note: --name is an argument now" in call("stats", "--name", "mot17", "--store", store)
    image = call("images", "mot17", "--store", store).splitlines()[0]
    out = tmp_path / "shown.png"
    call("show", image, "--name", "mot17", "--store", store, "--root", root, "--out", out)
    assert out.is_file()
    for words, message in (
        (["stats"], "an argument is missing: datasets stats NAME"),
        (["stats", "mot17", "--name", "mot17"], "give it once"),
        (["show", "mot17"], "an argument is missing: datasets show NAME IMAGE_ID"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(*words, "--store", store, *(["--root", root] if words[0] == "show" else []))

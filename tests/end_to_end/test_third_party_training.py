"""A dataset of an adapter outside the project trains a detector by the same command."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.commands import personsearch
from tests.end_to_end.tiny import tiny_settings, write_tiny_config
from tests.third_party import install_adapter, write_dataset


def test_an_unknown_dataset_trains(tmp_path: Path, prefect_api: str) -> None:
    environment = install_adapter(tmp_path / "package")
    write_dataset(tmp_path / "cams")
    detector = tiny_settings(tmp_path, "store")["detector"]
    config = write_tiny_config(
        tmp_path,
        tmp_path,
        datasets={"mine": {"adapter": "street-cams", "root": str(tmp_path / "cams")}},
        detector=detector
        | {"train": [{"dataset": "mine", "split": "train"}], "training": {"steps": 2, "batch_size": 2}},
        reid=None,
        evaluation=[],
    )
    outcome = personsearch("run", config, json_to=tmp_path / "outcome.json", environment=environment)
    assert outcome.status == 0, outcome.stderr
    assert outcome.states["ingest:mine"] == outcome.states["detector"] == "made"
    assert (outcome.path("detector") / "detector.safetensors").is_file()

"""Detector and branch trained in one step, by one command, to a search and a report."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.commands import here
from tests.end_to_end.tiny import draw_tiny_data, tiny_settings, write_tiny_config


def test_a_joint_model_is_evaluated_reported_and_searched(tmp_path: Path, prefect_api: str) -> None:
    draw_tiny_data(tmp_path)
    detector = tiny_settings(tmp_path, "store")["detector"]
    detector["training"] |= {"steps": 3}
    detector["joint"] = {"datasets": ["scenes"], "branch": {"embedding_dim": 16}}
    config = write_tiny_config(tmp_path, tmp_path, detector=detector, reid=None)
    outcome = here("run", config, json_to=tmp_path / "outcome.json")
    assert outcome.status == 0, outcome.stderr
    assert set(outcome.states.values()) == {"made"} and "reid" not in outcome.states
    for name in ("detector", "branch", "branch_untrained"):
        assert (outcome.path("detector") / f"{name}.safetensors").is_file()
    page = (outcome.path("report") / "report.html").read_text()
    assert "trained in the same steps on scenes/train" in page
    frame = next((tmp_path / "prw" / "frames").iterdir())
    wanted = ["--query", frame, "--person", "1", "--score-threshold", "0.0"]
    found = here("search", config, frame, *wanted)
    assert found.status == 0, found.stderr
    assert "1.000" in found.stdout

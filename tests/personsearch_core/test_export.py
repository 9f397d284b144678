from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from personsearch_core.errors import PersonSearchError
from personsearch_core.export import BranchGraph, DetectorGraph, export_programs, load_model, save_model
from personsearch_core.models.branch import Branch, build_branch
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.recipes import BranchModel, RoiRecipe
from personsearch_core.search.network import PersonSearchNet
from tests.personsearch_core.scene_files import TINY


def parts(variant: str) -> tuple[Detector, Branch, RoiRecipe]:
    torch.manual_seed(0)
    detector = build_detector(TINY).eval()
    branch = build_branch(variant, TINY, BranchModel(embedding_dim=16), detector.state_dict()).eval()  # type: ignore[arg-type]
    return detector, branch, RoiRecipe(variant=variant, roi_height=16, roi_width=8)  # type: ignore[arg-type]


def test_a_saved_model_loads_in_one_call_and_searches_alike(tmp_path: Path) -> None:
    detector, branch, roi = parts("j3")
    save_model(tmp_path, detector, branch, roi, {"detector": "key"})
    net = load_model(tmp_path)
    images = [torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8)]
    expected = PersonSearchNet(detector, branch, roi).search(images, score_threshold=0.0)
    (found,) = net.search(images, score_threshold=0.0)
    np.testing.assert_array_equal(found.boxes, expected[0].boxes)
    torch.testing.assert_close(found.embeddings, expected[0].embeddings, rtol=0, atol=0)
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["provenance"] == {"detector": "key"}
    assert description["preprocessing"]["width"] == 96


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonSearchError, match="does not describe an exported model"):
        load_model(tmp_path)


def test_a_model_of_another_format_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, *parts("j3"))
    described = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(described.replace('"format": 1', '"format": 2'))
    (tmp_path / "SHA256SUMS").unlink()  # it holds the file to its digest
    with pytest.raises(PersonSearchError, match="has format 2; this version reads format 1"):
        load_model(tmp_path)


def test_a_model_is_not_written_among_other_files(tmp_path: Path) -> None:
    detector, branch, roi = parts("j3")
    save_model(tmp_path / "model", detector, branch, roi)
    (tmp_path / "model" / "model.json").unlink()  # as after a kill
    save_model(tmp_path / "model", detector, branch, roi)
    (tmp_path / "model" / "mine.jpg").touch()
    with pytest.raises(PersonSearchError, match=r"holds mine\.jpg, which is not part of a model"):
        save_model(tmp_path / "model", detector, branch, roi)
    with pytest.raises(PersonSearchError, match="is a file"):
        save_model(tmp_path / "model" / "mine.jpg", detector, branch, roi)


@pytest.mark.parametrize(
    ("name", "text"), [("model.json", '{"format": "layers-model"}'), ("detector.py", ""), ("model", None)]
)
def test_files_that_are_called_as_a_models_are_others(tmp_path: Path, name: str, text: str | None) -> None:
    (tmp_path / name).mkdir() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(PersonSearchError, match=f"holds {name}, which is not part of a model"):
        save_model(tmp_path, *parts("j3"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_model_replaces_another_with_its_programs_and_an_interrupted_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, branch, roi = parts("j3")
    save_model(tmp_path, detector, branch, roi)
    (tmp_path / "branch.onnx").write_bytes(b"of the first model")
    save_model(tmp_path, detector, branch, roi)
    assert not (tmp_path / "branch.onnx").exists() and load_model(tmp_path).roi == roi

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("personsearch_core.export.save_branch", full)
    with pytest.raises(OSError, match="No space"):
        save_model(tmp_path, detector, branch, roi)
    with pytest.raises(PersonSearchError, match="does not describe an exported model"):
        load_model(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["j3", "disj"])
def test_exported_graphs_equal_eager(tmp_path: Path, variant: str) -> None:
    net = PersonSearchNet(*parts(variant))
    with_onnx = variant == "j3"
    export_programs(tmp_path, net, onnx=with_onnx)
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    pooled = torch.rand(5, 128, 16, 8)
    if variant == "disj":
        pooled = torch.randint(0, 256, (5, 3, 16, 8), dtype=torch.uint8)
    graphs = {
        "detector": (DetectorGraph(net.detector, None if variant == "disj" else variant), images),
        "branch": (BranchGraph(net.branch), pooled),
    }
    for name, (graph, given) in graphs.items():
        with torch.no_grad():
            expected = graph(given)
            program = torch.export.load(tmp_path / f"{name}.pt2").module()(given)
        outputs, programs = _listed(expected), _listed(program)
        assert len(outputs) == len(programs)
        for eager, exported in zip(outputs, programs, strict=True):
            torch.testing.assert_close(exported, eager, rtol=1e-4, atol=1e-4)
        if with_onnx:
            providers = ["CPUExecutionProvider"]
            session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=providers)
            found = session.run(None, {session.get_inputs()[0].name: given.numpy()})
            for eager, from_onnx in zip(outputs, found, strict=True):
                np.testing.assert_allclose(from_onnx, eager.numpy(), rtol=1e-4, atol=1e-4)


def _listed(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def test_a_reduced_model_is_not_exported(tmp_path: Path) -> None:
    from personsearch_core.recipes import Compute

    with pytest.raises(PersonSearchError, match="fp32"):
        export_programs(tmp_path, PersonSearchNet(*parts("j3"), Compute(precision="bf16")))

"""What runs on a GPU gives what the CPU gives, at the device's precision; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist

from personsearch_core.data.network_input import decoded, place_scene
from personsearch_core.data.sampling import TrainingSet, TrainingStream
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.identities import ReidLabels
from personsearch_core.models.branch import build_branch
from personsearch_core.models.candidates import suppressed_at_once, suppressed_by_image
from personsearch_core.models.compute import autocast, batch_on
from personsearch_core.models.detector import Detector, build_detector
from personsearch_core.pooling import extraction
from personsearch_core.pooling.extraction import extract_shard, extract_shards, feature_rows
from personsearch_core.pooling.rois import pool_shared_map
from personsearch_core.recipes import (
    BranchModel,
    Compute,
    DetectorRecipe,
    DetectorSchedule,
    DetectorTraining,
    FeaturesRecipe,
    ReidRecipe,
    RoiRecipe,
)
from personsearch_core.recipes.reid import OBJECTIVE_FIELDS
from personsearch_core.sampling import PKSampler
from personsearch_core.search.network import PersonSearchNet
from personsearch_core.training.detector import train_detector
from personsearch_core.training.detector_process import _Training
from personsearch_core.training.group import Alone, Together
from personsearch_core.training.loop import LoopSettings, TrainingStopped
from personsearch_core.training.reid import ReidTraining, train_reid
from personsearch_core.training.row_batches import RowsInMemory, RowsReadAhead
from personsearch_core.training.validation import detect_boxes
from tests.personsearch_core.scene_files import TINY, write_scenes
from tests.personsearch_core.training.reid_trainings import branch_training
from tests.personsearch_core.training.synthetic_rows import ArrayRows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

GPU = torch.device("cuda")
ROI = RoiRecipe(variant="j3", roi_height=8, roi_width=4)
SETTINGS = {
    "fp32": {},
    "bf16": {"precision": "bf16", "channels_last": True},
    "fp16": {"precision": "fp16", "channels_last": True},
    "compiled": {"precision": "bf16", "channels_last": True, "compile": True},
}
AT_ONCE = DetectorSchedule(kind="constant", warmup_steps=0)
"""The full rate from the first step: after the default warm-up's first steps, nothing has changed."""
STILL = 1e-12
"""A rate that leaves the weights as they are, so that the gradients of all steps can be compared."""

Gradients = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """No TF32, so that a GPU's float32 can be held against a CPU's."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def no_waiting() -> Iterator[None]:
    """Within, it is an error if the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling(channels_last: bool) -> None:
    maps = torch.rand(2, 5, 20, 30, generator=torch.Generator().manual_seed(0))
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    rois = [np.array([[1, 2, 9.5, 18], [-3, -3, 40, 9]], np.float32), np.array([[0, 0, 30, 20]], np.float32)]
    torch.testing.assert_close(
        pool_shared_map(maps.to(GPU), rois, ROI).cpu(), pool_shared_map(maps, rois, ROI), rtol=1e-4, atol=1e-4
    )


def test_extraction(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector, scenes = build_detector(TINY).eval(), write_scenes(tmp_path, 5)
    recipe = FeaturesRecipe(roi=ROI, dtype="float32", boxes="all", batch_images=3)
    plan = feature_rows(recipe, scenes, detector)
    expected = extract_shard(detector, recipe, plan, 0)
    found = extract_shard(detector.to(GPU), recipe, plan, 0)
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=1e-3, atol=1e-3)


def test_shards_leave_the_gpu_whole_while_the_next_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SHARD_ROWS", 16)
    torch.manual_seed(0)
    detector, scenes = build_detector(TINY).eval(), write_scenes(tmp_path, 40, people=3)
    recipe = FeaturesRecipe(roi=ROI, dtype="float16", boxes="all", batch_images=3)
    plan = feature_rows(recipe, scenes, detector)
    expected = dict(extract_shards(detector, recipe, plan, range(plan.n_shards)))
    detector = detector.to(GPU)
    found = {}
    for shard, block in extract_shards(detector, recipe, plan, range(plan.n_shards)):
        torch.cuda._sleep(20_000_000)  # the GPU is behind, and pinned memory is wanted again
        found[shard] = block.copy()
    assert found.keys() == expected.keys()
    for shard, block in found.items():
        np.testing.assert_allclose(block.astype(float), expected[shard].astype(float), rtol=2e-3, atol=2e-3)
    with torch.no_grad():
        detector.backbone.body.layer2[-1].conv2.weight.mul_(1e6)
    with pytest.raises(PersonSearchError, match=r"features, shard 0: \d+ pooled values do not fit float16"):
        next(extract_shards(detector, recipe, plan, [0]))


@pytest.mark.parametrize("variant", ["j2", "j3", "j4", "disj"])
def test_search(variant: Any) -> None:
    torch.manual_seed(0)
    detector = build_detector(TINY)
    branch = build_branch(variant, TINY, BranchModel(embedding_dim=16), detector.state_dict())
    images = [torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8) for _ in range(3)]
    boxes = [np.array([[10, 10, 40, 70], [50, 5, 80, 75]], np.float32)] * 3
    net = PersonSearchNet(detector, branch, RoiRecipe(variant=variant))
    expected = [people.embeddings for people in net.search(images, boxes)]
    found = [people.embeddings.cpu() for people in net.to(GPU).search(images, boxes)]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=1e-3, atol=1e-3)
    assert all(len(people.boxes) == len(people.embeddings) for people in net.search(images))


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_both_tiers_give_the_rows(dtype: str) -> None:
    reader = ArrayRows(np.arange(600 * 6).reshape(600, 3, 2, 1).astype(dtype))
    rng = np.random.default_rng(0)
    indices = [rng.integers(0, 600, size) for size in (32, 7, 32, 1) * 5]
    for tier in (RowsInMemory(reader, GPU), RowsReadAhead(reader, 32, GPU, threads=2)):
        next(iter(tier(indices)))  # a reading that is given up
        kept = []
        for rows in tier(indices):
            assert rows.device.type == "cuda"
            torch.cuda._sleep(5_000_000)  # the host runs ahead of the GPU, as in training
            kept.append(rows.clone())
        for rows, batch in zip(kept, indices, strict=True):
            np.testing.assert_array_equal(rows.cpu().numpy(), reader.array[batch])


def _gradients(module: torch.nn.Module) -> Gradients:
    """Copies, since a CUDA graph's hold until the next step."""
    return {
        name: parameter.grad.detach().to("cpu", torch.float32, copy=True)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def _assert_close(found: Gradients, expected: Gradients, tolerance: float) -> None:
    """Parameter by parameter, relative to its norm, or to a thousandth of all of theirs if that is more."""
    assert found.keys() == expected.keys()
    whole = float(torch.stack([wanted.norm() for wanted in expected.values()]).norm())
    assert whole > 0
    for name, wanted in expected.items():
        error = float((found[name] - wanted).norm()) / max(float(wanted.norm()), whole / 1000)
        assert error < tolerance, f"{name}: {error:.3g}"


def _detector_steps(
    scenes: list[Scene], device: torch.device, compute: Compute, lr: float, steps: int
) -> tuple[list[float], list[Gradients]]:
    """The losses and gradients of steps on batches of four."""
    recipe = DetectorRecipe(
        model=TINY,
        training=DetectorTraining(steps=steps, batch_size=4, lr=lr, schedule=AT_ONCE, gradient_clip=10.0),
        compute=compute,
    )
    losses, gradients = [], []
    stream = TrainingStream([TrainingSet(scenes, repeat=1)], recipe.seed)
    with closing(_Training(recipe, stream, [], device, Alone())) as training:
        if training.scaler.is_enabled():  # at the default scale some gradients overflow: steps are left out
            training.scaler.load_state_dict({**training.scaler.state_dict(), "scale": 1024.0})
        for step in range(steps):
            losses.append(float(training.step(step)["loss"]))
            gradients.append(_gradients(training.detector))
    return losses, gradients


@pytest.mark.parametrize("settings", [*SETTINGS, "compiled fp32"])
def test_a_detectors_gradients_are_those_on_a_cpu(tmp_path: Path, settings: str) -> None:
    """Also those of replayed graphs: a GPU's first steps compile and record them."""
    scenes = write_scenes(tmp_path, 8)
    compute = Compute.model_validate(SETTINGS.get(settings, {"compile": True}))
    _, expected = _detector_steps(scenes, torch.device("cpu"), Compute(), STILL, 5)
    _, found = _detector_steps(scenes, GPU, compute, STILL, 5)
    tolerance = {"fp32": 0.03, "fp16": 0.5, "bf16": 0.7}[compute.precision]
    for ours, theirs in zip(found, expected, strict=True):
        _assert_close(ours, theirs, tolerance)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_detectors_losses_are_those_on_a_cpu(tmp_path: Path, settings: str) -> None:
    scenes, compute = write_scenes(tmp_path, 8), Compute.model_validate(SETTINGS[settings])
    cpu, _ = _detector_steps(scenes, torch.device("cpu"), Compute(), 0.01, 12)
    gpu, _ = _detector_steps(scenes, GPU, compute, 0.01, 12)
    # Steps enlarge differences, on a CPU to 2 % in bf16; without learning, the last would be 20 % off.
    np.testing.assert_allclose(gpu, cpu, rtol=0.02 if settings == "fp32" else 0.05)
    assert np.mean(gpu[-3:]) < 0.9 * np.mean(gpu[:3])


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_detectors_step_does_not_wait_for_the_gpu(tmp_path: Path, settings: str) -> None:
    """Nothing in it copies to the host or synchronises: batch, losses, gradients, optimiser, metrics."""
    entries = [TrainingSet(write_scenes(tmp_path, 8), repeat=1)]
    compute = Compute.model_validate(SETTINGS[settings])
    recipe = DetectorRecipe(model=TINY, training=DetectorTraining(steps=20, batch_size=4), compute=compute)
    stream = TrainingStream(entries, recipe.seed)
    with closing(_Training(recipe, stream, [], GPU, Alone())) as training:
        for step in range(6):  # compiles, and records a CUDA graph
            training.step(step)
        with no_waiting():
            metrics = [training.step(step) for step in range(6, 10)]
    assert all(torch.isfinite(torch.as_tensor(row["loss"])) for row in metrics)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, "fp32") for kind in sorted(OBJECTIVE_FIELDS.keys() - {"metric_learning"})),
        *((kind, settings) for kind in ("batch_hard_triplet", "oim") for settings in ("compiled", "graphs")),
    ],
)
def test_a_branchs_step_does_not_wait_for_the_gpu(kind: str, settings: str) -> None:
    fields = {"compute": SETTINGS["fp32" if settings == "fp32" else "compiled"]}
    training = branch_training({"kind": kind}, GPU, cuda_graphs=settings == "graphs", **fields)
    with closing(training):
        for step in range(6):
            training.step(step)
        with no_waiting():
            metrics = [training.step(step) for step in range(6, 10)]
    assert all(torch.isfinite(torch.as_tensor(row["loss"])) for row in metrics)


@pytest.mark.parametrize("kind", ["oim", "iel", "center", "olp"])
def test_replayed_objectives_remember_what_eager_ones_do(kind: str) -> None:
    """A replay writes over its last results: what is remembered and logged must not be read from there."""
    losses: list[list[float]] = []
    memories: list[dict[str, torch.Tensor]] = []
    for settings in ({}, {"compute": {"compile": True}, "cuda_graphs": True}):
        with closing(branch_training({"kind": kind}, GPU, lr=STILL, **settings)) as training:
            metrics = [training.step(step)["loss"] for step in range(10)]
            losses.append([float(loss) for loss in metrics])
            memories.append(
                {name: each.float().cpu() for name, each in training.objectives.state_dict().items()}
            )
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert any(each.any() for each in memories[0].values())
    torch.testing.assert_close(memories[1], memories[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", ["fp32", "compiled"])
def test_nccl_joins_processes(tmp_path: Path, settings: str) -> None:
    """With one, since each needs a GPU of its own: the collectives, and a detector's steps."""
    gpu = torch.device("cuda", 0)
    meeting = dist.FileStore(str(tmp_path / "meeting"), 1)
    dist.init_process_group("nccl", store=meeting, rank=0, world_size=1, device_id=gpu)
    try:
        group = Together(gpu)
        own = torch.rand(5, 3, device=gpu, requires_grad=True)
        group.join(own, 5).square().sum().backward()
        torch.testing.assert_close(own.grad, 2 * own.detach())
        assert group.gather([1, "a"]) == [1, "a"] and group.any(True) and not group.any(False)
        assert torch.equal(group.of_first({"a": torch.ones(2)})["a"], torch.ones(2))
        recipe = DetectorRecipe(
            model=TINY,
            training=DetectorTraining(steps=3, batch_size=4),
            compute=Compute.model_validate(SETTINGS[settings]),
        )
        stream = TrainingStream([TrainingSet(write_scenes(tmp_path, 8), repeat=1)], recipe.seed)
        with closing(_Training(recipe, stream, [], gpu, group)) as training:
            losses = [float(training.step(step)["loss"]) for step in range(3)]
        assert np.isfinite(losses).all()
    finally:
        dist.destroy_process_group()


def test_suppression() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(6, 400, 2, generator=generator) * 560
    boxes = torch.cat([corners, corners + torch.rand(6, 400, 2, generator=generator) * 80 + 1], dim=2)
    scores = torch.rand(6, 400, generator=generator)
    expected = suppressed_by_image(boxes, scores, scores > 0.2, 0.5)
    found = suppressed_at_once(boxes.to(GPU), scores.to(GPU), (scores > 0.2).to(GPU), 0.5)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other[0].cpu(), one[0])
        torch.testing.assert_close(other[1].cpu(), one[1])


@pytest.mark.parametrize("compiled", [False, True])
def test_validation_between_steps_finds_what_a_cpu_finds(tmp_path: Path, compiled: bool) -> None:
    """The graphs of steps and of inference are replayed in turn, and steps change the weights of both."""
    scenes, schedule = write_scenes(tmp_path, 10), DetectorSchedule(warmup_steps=0)
    recipe = DetectorRecipe(
        model=TINY,
        training=DetectorTraining(steps=20, batch_size=4, lr=0.03, schedule=schedule, gradient_clip=10.0),
        compute=Compute(compile=compiled),
    )
    with closing(
        _Training(recipe, TrainingStream([TrainingSet(scenes, repeat=1)], 0), scenes, GPU, Alone())
    ) as training:
        for step in range(20):
            training.step(step)
            training.detector.eval()
            found = list(detect_boxes(training.detector, scenes, recipe.compute))
            best = _best_scores(training.detector, scenes[:8], recipe.compute)
            training.detector.train()
        cpu = build_detector(TINY).eval()
        cpu.load_state_dict(training.detector.state_dict())
    wanted = _best_scores(cpu, scenes[:8], Compute())
    assert wanted.max() > 0.1 and wanted.std() > 0.005  # the last step alone moves them by more than 0.01
    torch.testing.assert_close(best, wanted, rtol=0.002, atol=0.002)
    for (_, ours), (_, theirs) in zip(found, detect_boxes(cpu, scenes, Compute()), strict=True):
        assert len(ours) and len(theirs)
        np.testing.assert_allclose(ours[0], theirs[0], rtol=0.002, atol=0.002)


def _best_scores(detector: Detector, scenes: list[Scene], compute: Compute) -> torch.Tensor:
    """The twenty best of each image's candidates, before suppression: (B, 20), best first."""
    device = next(detector.parameters()).device
    placed = [place_scene(scene, TINY) for scene in scenes]
    images = batch_on(device, decoded([each.pixels for each in placed], device), compute, len(placed))
    with torch.inference_mode(), autocast(compute, device):
        candidates, _ = detector.candidates(images, [each.placement for each in placed])
        return candidates.scores.float().topk(20, dim=1).values.cpu()


def test_a_detectors_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    entries = [TrainingSet(write_scenes(tmp_path / "scenes", 8), repeat=1)]
    training = DetectorTraining(steps=12, batch_size=4, lr=0.01, schedule=AT_ONCE)
    recipe = DetectorRecipe(model=TINY, training=training)
    whole = train_detector(recipe, entries, [], tmp_path / "whole", device=GPU)
    asked = iter([False] * 5)
    with pytest.raises(TrainingStopped):
        train_detector(
            recipe, entries, [], tmp_path / "parts", device=GPU, should_stop=lambda: next(asked, True)
        )
    parts = train_detector(recipe, entries, [], tmp_path / "parts", device=GPU)
    assert parts.steps == whole.steps == 12
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=0.02)


def _people() -> tuple[ArrayRows, ReidLabels]:
    """Six rows of each of 24 people, in the shape that a j3 branch of TINY reads."""
    identities, rows_each = 24, 6
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(identities, 128, 8, 4))
    rows = (centres[:, None] + 1.5 * rng.normal(size=(identities, rows_each, 128, 8, 4))).reshape(
        -1, 128, 8, 4
    )
    labels = ReidLabels.from_columns(
        [f"p{row // rows_each}" for row in range(len(rows))], [f"i{row}" for row in range(len(rows))]
    )
    return ArrayRows(rows.astype(np.float16)), labels


def _branch_training(device: torch.device, kind: str, **settings: Any) -> ReidTraining:
    """Triplets from rows in memory; the weights stay as they are."""
    recipe = ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 16, "initial_weights": "random"},
            "phases": [{"objectives": [{"kind": kind}], "epochs": 10}],
            "identities_per_batch": 6,
            "shots": 4,
            "lr": STILL,
            **settings,
        }
    )
    torch.manual_seed(0)
    branch = build_branch("j3", TINY, recipe.branch)
    reader, labels = _people()
    everyone = np.arange(len(labels))
    sampler = PKSampler(labels, everyone, recipe.identities_per_batch, recipe.shots)
    rows = RowsInMemory(reader, device)
    return ReidTraining(recipe, branch, rows, sampler, labels, everyone[:0], device)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("semi_hard_triplet", {}),
        ("batch_hard_triplet", {}),
        ("batch_hard_triplet", {"compute": {"compile": True}}),
        ("batch_hard_triplet", {"compute": {"compile": True}, "cuda_graphs": True}),
    ],
    ids=["semi-hard", "batch-hard", "compiled", "graphs"],
)
def test_a_branchs_step_has_a_cpus_gradients_and_does_not_wait(kind: str, settings: dict[str, Any]) -> None:
    """Rows, losses, mining, gradients, optimiser, metrics; graphs are replayed by then."""
    found, losses = [], []
    with closing(_branch_training(GPU, kind, **settings)) as training:
        for step in range(6):  # compiles, and records a CUDA graph
            training.step(step)
        for step in range(6, 10):
            with no_waiting():
                metrics = training.step(step)
            found.append(_gradients(training.branch))
            losses.append(float(metrics["loss"]))
    with closing(_branch_training(torch.device("cpu"), kind)) as training:
        for step in range(10):
            expected = float(training.step(step)["loss"])
            if step >= 6:
                assert losses[step - 6] == pytest.approx(expected, rel=1e-3)
                _assert_close(found[step - 6], _gradients(training.branch), 0.02)


@pytest.mark.parametrize("settings", [*SETTINGS, "graphs", "from the disk"])
def test_a_branch_learns(tmp_path: Path, settings: str) -> None:
    reader, labels = _people()
    compute = SETTINGS.get(settings, SETTINGS["compiled"] if settings == "graphs" else {})
    recipe = ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 16, "initial_weights": "random"},
            "phases": [{"objectives": [{"kind": "batch_hard_triplet"}], "epochs": 30}],
            "identities_per_batch": 6,
            "shots": 4,
            "lr": 0.001,
            "held_out_identities": 0.25,
            "validate_every_epochs": 15,
            "compute": compute,
            "cuda_graphs": settings == "graphs",
        }
    )
    train_reid(
        recipe,
        build_branch("j3", TINY, recipe.branch),
        reader,
        labels,
        tmp_path,
        device=GPU,
        memory_budget=0 if settings == "from the disk" else 2**30,
        settings=LoopSettings(flush_steps=7),
    )
    history = pq.read_table(tmp_path / "history.parquet").to_pandas()
    assert history["loss"].iloc[-10:].mean() < 0.6 * history["loss"].iloc[:3].mean()
    assert history["validation/mAP"].iloc[-1] > 1.5 * 1 / 6


def test_a_batch_beyond_the_gpus_memory_is_told_what_to_lower(tmp_path: Path) -> None:
    entries = [TrainingSet(write_scenes(tmp_path / "scenes", 2), repeat=1)]
    recipe = DetectorRecipe(model=TINY, training=DetectorTraining(steps=1, batch_size=512))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(64 * 2**20 / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(PersonSearchError, match=r"out of memory: lower training\.batch_size"):
            train_detector(recipe, entries, [], tmp_path / "work", device=GPU)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

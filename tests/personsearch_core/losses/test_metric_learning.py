"""Losses and miners of pytorch-metric-learning: the package's own values, checked options, state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import nn

from personsearch_core.identities import UNLABELLED
from personsearch_core.losses import Batch, build, build_objective
from personsearch_core.losses.metric_learning import MetricLearning
from personsearch_core.recipes import Objective, ReidRecipe
from personsearch_core.training.loop import TrainingStopped
from personsearch_core.training.reid import train_reid
from tests.personsearch_core.training.synthetic_rows import people, small_branch

IDENTITIES, DIM = 6, 8


def objective(loss: str, miner: str | None = None, **options: Any) -> Objective:
    return Objective.model_validate(
        {"kind": "metric_learning", "loss": loss, "miner": miner, "loss_options": options}
    )


def batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([0, 0, 0, 2, 2, 2, 5, 5, 5, UNLABELLED, UNLABELLED])
    return Batch(torch.randn(len(labels), DIM, generator=generator).requires_grad_(), labels)


SIZED = {"num_classes": IDENTITIES, "embedding_size": DIM}
OWN: dict[str, tuple[Objective, Any, Any]] = {
    "circle, multi-similarity miner": (
        objective("CircleLoss", "MultiSimilarityMiner", gamma=64),
        lambda: losses.CircleLoss(gamma=64),
        miners.MultiSimilarityMiner,
    ),
    "triplet, batch-hard miner": (
        objective("TripletMarginLoss", "BatchHardMiner", margin=0.3),
        lambda: losses.TripletMarginLoss(margin=0.3),
        miners.BatchHardMiner,
    ),
    "contrastive, pair miner, another distance and reducer": (
        objective(
            "ContrastiveLoss",
            "PairMarginMiner",
            distance={"name": "LpDistance", "normalize_embeddings": False},
            reducer={"name": "MeanReducer"},
        ),
        lambda: losses.ContrastiveLoss(
            distance=distances.LpDistance(normalize_embeddings=False), reducer=reducers.MeanReducer()
        ),
        miners.PairMarginMiner,
    ),
    "margin, triplet miner": (
        objective("MarginLoss", "TripletMarginMiner", learn_beta=True),
        lambda: losses.MarginLoss(learn_beta=True),
        miners.TripletMarginMiner,
    ),
    "supervised contrastive": (objective("SupConLoss"), losses.SupConLoss, None),
    "multi-similarity": (objective("MultiSimilarityLoss"), losses.MultiSimilarityLoss, None),
    "smooth AP": (objective("SmoothAPLoss"), losses.SmoothAPLoss, None),
    "ArcFace": (objective("ArcFaceLoss", scale=16), lambda: losses.ArcFaceLoss(**SIZED, scale=16), None),
    "CosFace": (objective("CosFaceLoss"), lambda: losses.CosFaceLoss(**SIZED), None),
    "proxy anchor": (objective("ProxyAnchorLoss"), lambda: losses.ProxyAnchorLoss(**SIZED), None),
    "soft triple": (objective("SoftTripleLoss"), lambda: losses.SoftTripleLoss(**SIZED), None),
    "P2SGrad": (
        objective("P2SGradLoss"),
        lambda: losses.P2SGradLoss(descriptors_dim=DIM, num_classes=IDENTITIES),
        None,
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_values_and_gradients_are_the_packages_own(name: str) -> None:
    """On the rows with an identity alone; the unlabelled ones get no gradient."""
    recipe, build, mine = OWN[name]
    torch.manual_seed(1)
    ours = build_objective((recipe,), IDENTITIES, DIM)
    (term,) = ours.terms
    assert isinstance(term, MetricLearning)
    theirs = build()
    theirs.load_state_dict(term.loss.state_dict(), strict=False)
    given, expected = batch(), batch()
    found = ours(given)
    found.loss.backward()
    rows = expected.labels != UNLABELLED
    embeddings, labels = expected.embeddings[rows], expected.labels[rows]
    mined = mine()(embeddings, labels) if mine else None
    wanted = theirs(embeddings, labels, mined)
    wanted.backward()
    assert wanted > 0 and torch.equal(found.loss, wanted)
    assert given.embeddings.grad is not None and expected.embeddings.grad is not None
    assert torch.equal(given.embeddings.grad, expected.embeddings.grad)
    for parameter, own in zip(term.loss.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(parameter.grad, own.grad)  # type: ignore[arg-type]
    assert recipe.loss is not None and f"loss/{recipe.loss}" in found.watched
    assert ("mined" in found.watched) == (mine is not None)


def test_what_it_watches_is_on_the_embeddings_device() -> None:
    """Whatever torch's default is: a GPU's metrics are stacked there."""
    recipe, _, _ = OWN["circle, multi-similarity miner"]
    ours, given = build_objective((recipe,), IDENTITIES, DIM), batch()
    with torch.device("meta"):
        watched = ours(given).watched
    assert {value.device.type for value in watched.values()} == {"cpu"} and watched["mined"] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "metric_learning needs loss"),
        ({"loss": "circleloss"}, r"has no loss 'circleloss'; did you mean 'CircleLoss'\?"),
        ({"loss": "CrossBatchMemory"}, "CrossBatchMemory of .* does not fit: .* wraps others"),
        ({"loss": "CircleLoss", "miner": "MultiSimilarityMine"}, "did you mean 'MultiSimilarityMiner'"),
        ({"loss": "CircleLoss", "loss_options": {"gama": 64}}, "no option 'gama'; did you mean 'gamma'"),
        ({"loss": "ArcFaceLoss", "loss_options": {"num_classes": 9}}, "no option 'num_classes'"),
        ({"loss": "CircleLoss", "loss_options": {"gamma": "much"}}, "CircleLoss cannot be computed"),
        ({"loss": "CircleLoss", "loss_options": {"gamma": float("nan")}}, "options are finite numbers"),
        ({"loss": "NTXentLoss", "loss_options": {"temperature": 0.0}}, "NTXentLoss gives nan with these"),
        ({"loss": "CircleLoss", "miner": ""}, "has no miner ''; there are: AngularMiner"),
        ({"loss": "VICRegLoss"}, "VICRegLoss of pytorch-metric-learning does not fit: .* of batches; there"),
        ({"loss": "RankedListLoss"}, "RankedListLoss needs a value for margin and Tn among its options"),
        ({"loss": "PNPLoss", "miner": "BatchHardMiner"}, "PNPLoss with BatchHardMiner cannot be computed"),
        ({"loss": "CircleLoss", "miner_options": {"epsilon": 1}}, "miner_options need a miner"),
        ({"loss": "NCALoss", "loss_options": {"distance": "LpDistance"}}, "write {name: CLASS"),
        ({"loss": "NCALoss", "loss_options": {"distance": {"name": "Lp"}}}, "no distance 'Lp'; there are"),
        ({"loss": "NCALoss", "margin": 1}, "metric_learning has no margin"),
        (
            {"loss": "TripletMarginLoss", "loss_options": {"reducer": {"name": "DoNothingReducer"}}},
            "no single",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_when_the_recipe_is_read(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Objective.model_validate({"kind": "metric_learning", **fields})


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    build._try.cache_clear()
    for module in [name for name in sys.modules if name.startswith("pytorch_metric_learning")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(ValidationError, match=r"pip install 'personsearch\[metric-learning\]'"):
        objective("NCALoss")


def test_recipes_record_it_and_others_keep_their_keys() -> None:
    dumped = objective("CircleLoss", "BatchHardMiner", gamma=64).model_dump(mode="json")
    assert (dumped["loss"], dumped["miner"], dumped["loss_options"]) == (
        "CircleLoss",
        "BatchHardMiner",
        {"gamma": 64},
    )
    assert "miner_options" not in dumped and Objective.model_validate(dumped) == objective(
        "CircleLoss", "BatchHardMiner", gamma=64
    )
    ours = Objective(kind="oim").model_dump()
    assert not {"loss", "loss_options", "miner", "miner_options", "options"} & ours.keys()


STATEFUL = [
    objective("ArcFaceLoss"),
    objective("ProxyAnchorLoss"),
    objective("SoftTripleLoss"),
    objective("DynamicSoftMarginLoss"),
    objective("MarginLoss", "DistanceWeightedMiner", learn_beta=True),
    objective("TripletMarginLoss", triplets_per_anchor=3),
]


def test_parameters_statistics_and_draws_are_trained_and_resumed(tmp_path: Path) -> None:
    """Classifiers, proxies, a histogram, a learnt margin, random triplets; stopped after every third step."""
    phase = {"objectives": [each.model_dump() for each in STATEFUL], "epochs": 3}
    wanted = ReidRecipe.model_validate(
        {
            "branch": {"embedding_dim": 8},
            "phases": [phase],
            "identities_per_batch": 4,
            "shots": 3,
            "lr": 0.003,
        }
    )
    reader, labels = people()
    weights: list[dict[str, torch.Tensor]] = []

    def train(folder: str, stop_after: int) -> None:
        calls = iter(range(1000))
        stop = lambda: next(calls) == stop_after  # noqa: E731
        train_reid(wanted, small_branch(), reader, labels, tmp_path / folder, should_stop=stop)

    train("whole", 1000)
    for _ in range(20):
        try:
            train("pieces", 3)
            break
        except TrainingStopped:
            continue
    for folder in ("whole", "pieces"):
        last = max((tmp_path / folder / "checkpoints").glob("*.pt"))
        weights.append(torch.load(last, weights_only=False)["state"]["objectives"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for name in ("branch.safetensors", "history.parquet"):
        assert (tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.seed)
        fresh = nn.ModuleList([build_objective(wanted.phases[0].objectives, 12, 8)]).state_dict()
    learnt = {name for name in fresh if name.endswith((".W", ".proxies", ".fc", ".beta", ".hist_"))}
    assert len(learnt) == 5 and not any(torch.equal(fresh[name], weights[0][name]) for name in learnt)

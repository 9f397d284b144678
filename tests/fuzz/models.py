"""Exported models, and indexes with their judgements."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from flows.search import build_index, open_index
from flows.search.approximate import build_approximate
from flows.search.judgements import Judgements
from flows.search.layout import Settings
from flows.search.model import given_model
from personsearch_core import BranchModel, RoiRecipe, build_branch, build_detector, load_model, save_model
from personsearch_core.checksums import CHECKSUMS
from tests.fuzz.edits import Edit, Edits, Tree, of_tree
from tests.fuzz.target import Target, all_of
from tests.personsearch_core.scene_files import TINY, write_scenes

_JUDGEMENTS = "people.judgements.jsonl"


def _write_model(folder: Path) -> None:
    torch.manual_seed(0)
    branch = build_branch("j4", TINY, BranchModel(embedding_dim=8, initial_weights="random"))
    roi = RoiRecipe(variant="j4", roi_height=4, roi_width=2)
    finding = {"score_threshold": 0.0, "max_per_image": 3}
    save_model(folder, build_detector(TINY), branch, roi, {"finding": finding})
    (folder / CHECKSUMS).unlink()  # as one of earlier versions, so that its files are read for what they say


def _hostile_models(tree: Tree) -> SearchStrategy[Edits]:
    """Sizes out of range, weights that are not finite, and damage to the short files and to any."""
    small = {name: content for name, content in tree.items() if len(content) < 1 << 16}
    sides = st.sampled_from((0, 1, 3, 64, 4_097, 10**6, 2**31, 2**62))
    fields = st.sampled_from(
        (
            ("model.json", ("roi", "roi_height")),
            ("model.json", ("roi", "roi_width")),
            ("model.json", ("roi", "sampling_ratio")),
            ("detector.json", ("model", "image_width")),
            ("detector.json", ("model", "image_height")),
            ("detector.json", ("model", "fpn_channels")),
            ("detector.json", ("model", "head_convolutions")),
            ("detector.json", ("model", "anchor_sizes", 0)),
        )
    )
    sizes = st.builds(lambda field, side: (Edit(field[0], "value", field[1], side),), fields, sides)
    payload = st.sampled_from([name for name in tree if name.endswith(".safetensors")])
    numbers = st.sampled_from(
        (0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF)
    )  # NaN, infinities, the largest
    places = st.integers(1 << 14, 1 << 30)
    spoilt = st.builds(
        lambda file, at, number: (Edit(file, "number", (at,), number),), payload, places, numbers
    )
    return st.one_of(of_tree(small), sizes, spoilt, of_tree(tree))


def _use_model(folder: Path) -> None:
    scene = torch.full((3, 40, 60), 90, dtype=torch.uint8)
    all_of(
        (
            lambda: given_model(folder),
            lambda: _finite(load_model(folder).people(scene, score_threshold=0.0, max_per_image=3)),
        )
    )


def _finite(people: Any) -> None:
    assert all(np.isfinite(person.score) for person in people), "a score is not finite"
    assert all(np.isfinite(np.asarray(person.embedding)).all() for person in people), (
        "an embedding is not finite"
    )


def _write_index(folder: Path) -> None:
    write_scenes(folder / "scenes" / "hall", 2)
    _write_model(folder / "model")
    index = folder / "people"
    settings = Settings(score_threshold=0.0, max_per_image=2)
    build_index(index, [folder / "scenes"], given_model(folder / "model"), settings=settings)
    opened = open_index(index, "cpu")
    build_approximate(opened)
    judgements = Judgements(folder / _JUDGEMENTS)
    judgements.add(opened, "Ann", "confirmed", [1])
    judgements.add(opened, "Ann", "rejected", [2])
    for path in [*(folder / "model").iterdir(), *(index / "model").iterdir()]:
        path.unlink()  # another target's


def _use_index(folder: Path) -> None:
    index = open_index(folder / "people", "cpu")
    query = np.ones(index.description.dimensions, np.float32)
    all_of(
        (
            lambda: index.search(embedding=query, top=3).as_json(),
            lambda: index.search(
                embedding=query, top=2, cameras=["hall"], after="2020-01-01T00:00"
            ).as_json(),
            lambda: index.search(embedding=query, top=2, approximate=True),
            lambda: (repr(index), index.cameras, index.time_range),
            lambda: index.picture(0),
            partial(_use_judgements, folder),
        )
    )


def _use_judgements(folder: Path) -> None:
    judgements = Judgements(folder / _JUDGEMENTS)
    for name in (*judgements.names(), "Ann"):
        judgements.of(open_index(folder / "people", "cpu"), name)


def _hostile_judgements(tree: Tree) -> SearchStrategy[Edits]:
    return of_tree({_JUDGEMENTS: tree[_JUDGEMENTS]}, most=5)


TARGETS = [
    Target("index", _write_index, _use_index),
    Target("judgements", _write_index, _use_judgements, _hostile_judgements),
    Target("model", _write_model, _use_model, _hostile_models),
]

"""Searching an index, compared with a plain float32 search over freshly computed embeddings."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flows.errors import ConfigError
from flows.search import Index, open_index
from flows.search.approximate import build_approximate
from flows.search.model import GivenModel
from personsearch_core import read_image
from tests.flows.search.conftest import SETTINGS


@pytest.fixture(scope="module")
def index(built: Path) -> Index:
    return open_index(built)


@pytest.fixture(scope="module")
def everybody(built: Path, model: GivenModel) -> list[dict[str, Any]]:
    """The reference: everybody in the scenes, one image at a time, with float32 embeddings."""
    net = model.load("cpu")
    people = []
    for path in sorted((built.parent / "scenes").rglob("*.png")):
        (found,) = net.search([read_image(path)], **SETTINGS.finding())
        people += [
            {"image": str(path), "box": box, "embedding": embedding, "camera": path.parent.name}
            for box, embedding in zip(found.boxes.tolist(), found.embeddings, strict=True)
        ]
    return people


def plain_search(everybody: list[dict[str, Any]], query: torch.Tensor) -> list[dict[str, Any]]:
    return sorted(
        ({**each, "similarity": float(each["embedding"] @ query)} for each in everybody),
        key=lambda each: -each["similarity"],
    )


def test_a_search_equals_a_plain_one_in_float32(index: Index, everybody: list[dict[str, Any]]) -> None:
    image = Path(everybody[0]["image"])
    box = (10.0, 5.0, 40.0, 60.0)
    (query,) = index.net.search([read_image(image)], [np.array([box], np.float32)])[0].embeddings
    wanted = plain_search(everybody, query)
    results = index.search(image, box=box, top=len(everybody) + 5)
    assert len(results.matches) == len(everybody) == len(index)
    reference = []
    for match in results.matches:
        same = [
            each
            for each in wanted
            if each["image"] == match.image and each["box"] == pytest.approx(match.box, abs=0.01)
        ]
        assert len(same) == 1
        reference.append(same[0]["similarity"])
    assert [match.similarity for match in results.matches] == pytest.approx(reference, abs=1e-3)
    assert (np.diff(reference) <= 2e-3).all(), "the order differs where similarities differ"
    assert [match.rank for match in results.matches] == list(range(1, len(index) + 1))


def test_several_people_are_given_to_choose_from(index: Index, built: Path) -> None:
    image = built.parent / "scenes" / "hall" / "20240501_120000.png"
    people = index.people(image)
    results = index.search(image)
    assert not results.matches and results.choices == people and len(people) > 1
    body = results.as_json()
    assert body.keys() == {"people"}
    assert body["people"][0] == {"person": 1, "box": list(people[0].box), "score": people[0].score}
    assert "data:image/jpeg" in results._repr_html_()

    chosen = index.search(image, person=2, top=3)
    assert chosen.query["person"] == 2 and chosen.query["box"] == list(people[1].box)
    assert chosen.matches[0].image == str(image) and chosen.matches[0].box == people[1].box
    x1, y1 = people[1].box[:2]
    inside = [p for p in people if p.box[0] <= x1 + 1 < p.box[2] and p.box[1] <= y1 + 1 < p.box[3]]
    by_point = index.search(image, point=(x1 + 1, y1 + 1))
    assert by_point.query["person"] in {p.number for p in inside}


def test_an_image_without_people_is_the_query_as_a_whole(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = index.description.model_copy(
        update={"settings": SETTINGS.model_copy(update={"score_threshold": 1.0})}
    )
    monkeypatch.setattr(index, "description", strict)
    picture = Image.new("RGB", (30, 60), (200, 30, 20))
    results = index.search(picture, top=2)
    assert results.query["box"] == [0.0, 0.0, 30.0, 60.0] and len(results.matches) == 2
    assert index.search(picture, whole_image=True, top=2).matches == results.matches


def test_cameras_times_and_exclusions_filter(index: Index, built: Path) -> None:
    image = built.parent / "scenes" / "hall" / "20240501_120000.png"
    assert index.cameras == ("entrance", "hall")
    assert index.time_range == (datetime(2024, 5, 1, 12), datetime(2024, 5, 1, 12, 5))
    found = index.search(
        image, person=1, cameras=["entrance"], after="2024-05-01T12:01", before="2024-05-01 12:03", top=99
    )
    assert {match.time for match in found.matches} == {"2024-05-01T12:01:00", "2024-05-01T12:02:00"}
    assert {match.camera for match in found.matches} == {"entrance"}
    best = index.search(image, person=1).matches[0]
    assert best.image == str(image)
    for without in (
        index.search(image, person=1, exclude_query_image=True, top=99),
        index.search(image.read_bytes(), person=1, exclude_query_image=True, top=99),
        index.search(image, person=1, exclude=[image], top=99),
    ):
        assert str(image) not in {match.image for match in without.matches} and without.matches
    rows = [
        match.person_row for match in index.search(image, person=1, exclude=[best.person_row], top=99).matches
    ]
    assert best.person_row not in rows and len(rows) == len(index) - 1


def test_several_shots_are_one_query(index: Index, built: Path) -> None:
    image = built.parent / "scenes" / "hall" / "20240501_120000.png"
    first, second = index.people(image)[:2]
    mean = torch.nn.functional.normalize(
        torch.stack([torch.nn.functional.normalize(p.embedding, dim=0) for p in (first, second)]).mean(0),
        dim=0,
    )
    wanted = index.search(embedding=mean, top=5).matches
    by_shots = index.search(image, box=first.box, shots=[(image, second.box)], top=5)
    assert by_shots.query["shots"] == 2
    assert [m.person_row for m in by_shots.matches] == [m.person_row for m in wanted]
    crops = index.search(image, whole_image=True, shots=[(image, None), (image, first.box)], top=5)
    width, height = Image.open(image).size
    boxes = index.search(
        image, box=(0, 0, width, height), shots=[(image, (0, 0, width, height)), (image, first.box)], top=5
    )
    assert crops.matches == boxes.matches and crops.query["shots"] == 3
    rows = [match.person_row for match in index.search(image, person=1, top=1).matches]
    assert index.search(shots=rows, top=1).matches[0].person_row == rows[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "query is missing"),
        ({"image": "IMAGE", "box": (1, 2, 3)}, "four finite numbers"),
        ({"image": "IMAGE", "box": (500, 0, 600, 90)}, "no area inside the image, which is 120x80"),
        ({"image": "IMAGE", "box": (1, 1, 9, 9), "person": 1}, "choose one"),
        ({"image": "IMAGE", "person": 50}, "there is no person 50"),
        ({"image": "IMAGE", "point": (-5, -5)}, "no person was found at -5,-5"),
        ({"image": "IMAGE", "whole_image": True, "cameras": ["entrence"]}, "did you mean entrance"),
        ({"image": "IMAGE", "whole_image": True, "after": "yesterday"}, "not a time"),
        (
            {"image": "IMAGE", "whole_image": True, "after": "2024"},
            "a time code, and the index has no videos",
        ),
        ({"image": "IMAGE", "whole_image": True, "top": 0}, "at least one match"),
        ({"image": "IMAGE", "whole_image": True, "exclude": [10**9]}, "no person 1000000000"),
        ({"embedding": [1.0, 2.0]}, "16 finite numbers"),
        ({"embedding": [float("nan")] * 16}, "16 finite numbers"),
        ({"image": "absent.jpg"}, "absent.jpg does not exist"),
    ],
)
def test_a_wrong_query_is_refused(index: Index, built: Path, arguments: dict[str, Any], message: str) -> None:
    image = built.parent / "scenes" / "hall" / "20240501_120000.png"
    given = {name: image if value == "IMAGE" else value for name, value in arguments.items()}
    with pytest.raises(ValueError, match=message):
        index.search(**given)


def test_an_approximate_search_finds_the_same_here_and_says_its_recall(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "index"
    shutil.copytree(built, copy)
    index = open_index(copy, roots={str(built.parent / "scenes"): built.parent / "scenes"})
    with pytest.raises(ConfigError, match="personsearch index --approximate"):
        index.search(shots=[0], approximate=True)
    recall = build_approximate(index)
    assert recall.people == len(index) == recall.queries and recall.recall > 0.95
    ways: tuple[dict[str, Any], ...] = ({"top": 9}, {"top": 40, "cameras": ["hall"]})
    for filters in ways:
        exact, near = (index.search(shots=[0], approximate=way, **filters).matches for way in (False, True))
        assert [match.person_row for match in near] == [match.person_row for match in exact]
        similar = [match.similarity for match in exact]
        assert [match.similarity for match in near] == pytest.approx(similar, abs=1e-5)
    (copy / "approximate.json").write_text(json.dumps({**asdict(recall), "content": "of yesterday"}))
    with pytest.raises(ConfigError, match="older than the index"):
        open_index(copy).search(shots=[0], approximate=True)


@pytest.mark.parametrize("free", [None, 1000])
def test_processors_without_bfloat16_and_small_memories_find_the_same(
    index: Index, built: Path, monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    wanted = index.search(shots=[0], top=9).matches
    monkeypatch.setattr("personsearch_core.search.top_k.multiplies_bfloat16", lambda: False)
    if free is not None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    other = open_index(built)
    assert other.embeddings.coarse is None
    assert isinstance(other.blocks[0].base, np.memmap) == (free is not None)
    assert other.search(shots=[0], top=9).matches == wanted


def test_pictures_are_of_the_index_alone(index: Index, built: Path, tmp_path: Path) -> None:
    x1, y1, x2, y2 = index.box(0)
    crop = index.picture(0)
    assert crop.size == (max(1, round(x2) - round(x1)), max(1, round(y2) - round(y1)))
    assert index.picture(0, scene=True).size == (120, 80)
    assert index.picture(index.path(0), size=(60, 60)).size == (60, 40)
    stranger = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(stranger)
    with pytest.raises(ConfigError, match="is not an image of the index"):
        index.picture(stranger)


def test_an_index_and_results_draw_themselves(index: Index) -> None:
    assert "entrance, hall" in index._repr_html_() and "48 people in 12 files" in repr(index)
    drawn = index.search(shots=[0], top=3)._repr_html_()
    assert drawn.count("<img") == 3 and "2024-05-01" in drawn

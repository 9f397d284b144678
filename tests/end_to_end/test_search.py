"""The finished model at work: search by the command line, export, and search with what was exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.commands import here
from tests.end_to_end.conftest import TinyRun


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    outcome = here("export", tiny_run.config, folder)
    assert outcome.status == 0, outcome.stderr
    return folder


@pytest.fixture(scope="module")
def index(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed") / "index"
    frames = tiny_run.folder / "prw" / "frames"
    outcome = here("index", frames, "--model", tiny_run.config, "--score-threshold", "0", "--out", folder)
    assert outcome.status == 0, outcome.stderr
    assert "20 new" in outcome.stdout and "images/s" in outcome.stdout
    return folder


def test_an_index_is_searched_without_model_or_config(index: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    query = sorted((tiny_run.folder / "prw" / "frames").iterdir())[0]
    out = tmp_path / "out.json"
    outcome = here("search", index, "--query", query, json_to=out)
    assert outcome.status == 0, outcome.stderr
    people = json.loads(out.read_text())["people"]
    assert len(people) > 1 and people[0].keys() == {"person", "box", "score"}
    drawn = Path(outcome.stdout.strip().rpartition(" ")[2])
    with Image.open(drawn) as picture:
        assert picture.size == (96, 96)
    drawn.unlink()

    chosen = ["--query", query, "--person", people[-1]["person"], "--top", "3"]
    outcome = here("search", index, *chosen, json_to=out)
    assert outcome.status == 0, outcome.stderr
    body = json.loads(out.read_text())
    assert body["query"]["box"] == people[-1]["box"] and len(body["matches"]) == 3
    best = body["matches"][0]
    assert best.keys() == {"rank", "image", "box", "score", "similarity", "camera", "time"}
    assert best["image"] == str(query) and best["box"] == pytest.approx(people[-1]["box"], abs=0.5)
    assert best["similarity"] == pytest.approx(1, abs=1e-3) and best["camera"] in ("c1", "c2")
    outcome = here("search", index, *chosen, "--exclude-query-image", json_to=out)
    assert str(query) not in {match["image"] for match in json.loads(out.read_text())["matches"]}


def test_scenes_are_indexed_for_one_search(index: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    frames = tiny_run.folder / "prw" / "frames"
    wanted = ["--query", sorted(frames.iterdir())[0], "--whole-image", "--top", "100000"]
    found = []
    for words in ((index,), (tiny_run.config, frames, "--score-threshold", "0")):
        outcome = here("search", *words, *wanted, json_to=tmp_path / "found.json")
        assert outcome.status == 0, outcome.stderr
        found.append(json.loads((tmp_path / "found.json").read_text())["matches"])
    assert found[0] == found[1] and len({match["image"] for match in found[0]}) > 1
    similarities = [match["similarity"] for match in found[0]]
    assert similarities == sorted(similarities, reverse=True)


def test_a_bad_image_is_named_and_the_others_are_searched(
    exported: Path, tiny_run: TinyRun, tmp_path: Path
) -> None:
    frame = sorted((tiny_run.folder / "prw" / "frames").iterdir())[0]
    scenes = tmp_path / "scenes"
    (scenes / "deep").mkdir(parents=True)
    with Image.open(frame) as image:
        image.save(scenes / "deep" / "a.tif")
    (scenes / "._a.jpg").write_bytes(b"a file that a Mac leaves behind")
    (scenes / "bad.jpg").write_bytes(frame.read_bytes()[:300])
    out = tmp_path / "matches.json"
    wanted = ["--query", frame, "--whole-image", "--score-threshold", "0.0"]
    outcome = here("search", exported, scenes, *wanted, json_to=out)
    assert outcome.status == 0, outcome.stderr
    assert {Path(match["image"]).name for match in json.loads(out.read_text())["matches"]} == {"a.tif"}
    assert outcome.stderr.count("skipped: ") == 1 and "bad.jpg cannot be decoded" in outcome.stderr
    outcome = here("search", exported, scenes / "bad.jpg", *wanted)
    assert outcome.status == 2 and "none of the images can be read" in outcome.stderr


def test_a_case_from_the_field_is_searched(exported: Path, shared: Path, tmp_path: Path) -> None:
    case = shared / "cases" / "search_one_bad_image"
    for folder in ("gallery", "tif"):
        out = tmp_path / f"{folder}.json"
        wanted = ["--query", case / "good.jpg", "--whole-image", "--score-threshold", "0.0"]
        outcome = here("search", exported, case / folder, *wanted, json_to=out)
        assert outcome.status == 0 and "left out" not in outcome.stderr, outcome.stderr
        assert json.loads(out.read_text())["matches"]


def test_an_exported_model_says_how_it_was_trained(exported: Path) -> None:
    provenance = json.loads((exported / "model.json").read_text())["provenance"]
    assert provenance["detector"]["recipe"]["detector"]["training"]["steps"] == 12
    assert provenance["reid"]["recipe"]["reid"]["phases"][0]["epochs"] == 2
    card = (exported / "model_card.md").read_text()
    for said in (
        "scenes, split train (format prw)",
        "| scenes, test | prw |",
        "only 8 queries",
        "Responsible use",
    ):
        assert said in card


def test_an_exported_model_gives_the_same_matches(tiny_run: TinyRun, exported: Path, tmp_path: Path) -> None:
    frames = tiny_run.folder / "prw" / "frames"
    wanted = [frames, "--query", sorted(frames.iterdir())[0], "--whole-image", "--score-threshold", "0.0"]
    found = []
    for number, model in enumerate((tiny_run.config, exported)):
        outcome = here("search", model, *wanted, json_to=tmp_path / f"{number}.json")
        assert outcome.status == 0, outcome.stderr
        found.append(json.loads((tmp_path / f"{number}.json").read_text()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "1,2,3"], "4 numbers"),
        (["--point", "1"], "2 numbers"),
        (["--box", "1,2,3,4", "--box", "1,2,3,4"], "once per --query"),
        (["--box", "a,b,c,d"], "X1,Y1,X2,Y2"),
        (["--box", "500,0,600,90"], "no area inside"),
        (["--query", "absent.jpg"], "absent.jpg"),
    ],
)
def test_a_wrong_search_is_refused(tiny_run: TinyRun, arguments: list[str], message: str) -> None:
    frames = tiny_run.folder / "prw" / "frames"
    query = [] if "--query" in arguments else ["--query", sorted(frames.iterdir())[0]]
    outcome = here("search", tiny_run.config, frames, *query, *arguments)
    assert outcome.status == 2
    assert outcome.stderr.startswith("error: ") or "\nerror: " in outcome.stderr
    assert message in outcome.stderr and "Traceback" not in outcome.stderr


def test_a_model_that_is_not_made_yet_is_said(tiny_run: TinyRun, tmp_path: Path) -> None:
    outcome = here("export", tiny_run.config, tmp_path / "m", "--set", "reid.lr=0.7")
    assert outcome.status == 2
    assert (
        f"reid is not built yet; run first: personsearch run {tiny_run.config} --set reid.lr=0.7\n"
        in outcome.stderr
    )

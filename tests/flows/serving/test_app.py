"""The HTTP interface, as a program uses it."""

from __future__ import annotations

import io
import os
import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from benchmarks import hostile
from flows.search import build_index, open_index
from flows.search.judgements import Judgements
from flows.search.model import GivenModel
from flows.serving.searching import Served
from storage.locks import exclusive_now
from tests.flows.serving.conftest import LIMITS, Site, serving
from tests.personsearch_core.scene_files import write_scenes


def sent(site: Site, picture: bytes) -> dict[str, Any]:
    answer = site.client.post("/api/pictures", content=picture)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def found(site: Site, **query: object) -> dict[str, Any]:
    answer = site.client.get("/api/search", params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_picture_that_is_sent_finds_what_the_library_finds(site: Site, built: Path, picture: bytes) -> None:
    index = open_index(built, "cpu")
    sent_picture = sent(site, picture)
    people = index.people(picture)
    assert (sent_picture["width"], sent_picture["height"]) == (120, 80)
    assert [each["box"] for each in sent_picture["people"]] == [list(each.box) for each in people]
    queries: list[dict[str, Any]] = [{"person": 2}, {"box": (10, 5, 60, 75)}, {"whole_image": True}]
    for query in queries:
        expected = index.search(picture, **query, top=7, exclude_query_image=True)
        if "box" in query:
            query["box"] = ",".join(map(str, query["box"]))
        answer = found(site, picture=sent_picture["picture"], top=7, **query)
        rows = [each["row"] for each in answer["matches"]]
        assert rows == [match.person_row for match in expected.matches]
        similarity = [each["similarity"] for each in answer["matches"]]
        assert similarity == pytest.approx([match.similarity for match in expected.matches], abs=1e-4)
        assert [each["rank"] for each in answer["matches"]] == [1, 2, 3, 4, 5, 6, 7]
    own = found(site, picture=sent_picture["picture"], person=2, own_image=True)["matches"][0]
    assert own["image"] == "entrance/20240501_120000.png" and own["similarity"] == pytest.approx(1, abs=1e-3)


def test_a_row_of_the_index_is_a_query_and_filters_narrow_its_matches(site: Site) -> None:
    everybody = found(site, row=3, top=200)["matches"]
    cameras = {each["camera"] for each in everybody}
    assert cameras == {"entrance", "hall"}
    scene = site.client.get("/api/scenes/3").json()
    assert 3 in [each["row"] for each in scene["people"]] and (scene["width"], scene["height"]) == (120, 80)
    assert not {each["row"] for each in scene["people"]} & {each["row"] for each in everybody}
    one = found(site, row=3, camera="hall", after="2024-05-01T12:02", before="2024-05-01T12:04", top=200)
    assert {each["time"] for each in one["matches"]} == {"2024-05-01T12:02:00", "2024-05-01T12:03:00"}
    assert {each["camera"] for each in one["matches"]} == {"hall"}


def test_pictures_are_given_as_jpeg(site: Site, picture: bytes) -> None:
    token = sent(site, picture)["picture"]
    box = site.client.get("/api/scenes/3").json()["people"][0]["box"]
    sizes = {
        "/api/scenes/3/picture": (120, 80),
        f"/api/pictures/{token}/picture": (120, 80),
    }
    for address, size in sizes.items():
        answer = site.client.get(address)
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == size
    crop = site.client.get(f"/api/people/{site.client.get('/api/scenes/3').json()['people'][0]['row']}/crop")
    with Image.open(io.BytesIO(crop.content)) as image:
        assert image.width == pytest.approx(min(box[2], 120) - max(box[0], 0), abs=1)
    assert site.client.get(f"/api/pictures/{token}/picture", params={"person": 1}).status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({}, 422, "the query is missing"),
        ({"row": 10**6}, 404, "the index has no row"),
        ({"row": -1}, 422, "row"),
        ({"row": 1, "picture": "x"}, 422, "choose one"),
        ({"picture": "x", "person": 1}, 404, "not in memory any more"),
        ({"row": 1, "person": 1}, 422, "refer to a picture"),
        ({"row": 1, "camera": "hal"}, 422, "did you mean hall"),
        ({"row": 1, "after": "noon"}, 422, "not a time"),
        ({"row": 1, "top": 201}, 422, "top"),
        ({"row": 1, "tpo": 3}, 422, "tpo"),
        ({"name": "Nobody"}, 422, "no shot is confirmed for Nobody"),
        ({"row": 1, "version": "000000000000"}, 409, "updated since"),
    ],
)
def test_a_query_that_does_not_fit_is_refused_in_words(
    site: Site, query: dict[str, object], status: int, said: str
) -> None:
    answer = site.client.get("/api/search", params={name: str(value) for name, value in query.items()})
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_query_of_several_people_has_to_say_which(site: Site, picture: bytes) -> None:
    token = sent(site, picture)["picture"]
    for query, said in (
        ({}, "choose by person"),
        ({"person": 99}, "there is no person 99"),
        ({"box": "500,500,600,600"}, "no area inside"),
        ({"box": "1,2,3"}, "box"),
        ({"person": 1, "whole_image": "true"}, "give one of"),
    ):
        answer = site.client.get("/api/search", params={"picture": token, **query})
        assert answer.status_code in (404, 422) and said in answer.json()["error"]


def test_hostile_uploads_are_refused_and_the_server_stays_up(site: Site, picture: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    for content, status, said in (
        (hostile.png(25_000, 20_000), 413, "far too many pixels"),
        (hostile.text_bomb(), 415, "known format"),
        (hostile.jpeg_of_many_scans(), 415, "scans"),
        (b"This is a text, whatever its name says.", 415, "known format"),
        (picture[:2000], 415, "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "known format"),
        (b"", 422, "empty"),
        (large.getvalue(), 413, "larger than"),
    ):
        answer = site.client.post("/api/pictures", content=content, headers={"content-type": "image/jpeg"})
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert len(sent(site, picture)["people"]) > 0


@pytest.mark.parametrize(("pause", "status"), [(0.0, b"413"), (0.1, b"408")], ids=["endless", "slow"])
def test_an_upload_that_does_not_end_is_cut_off(site: Site, pause: float, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
        head = ("POST /api/pictures HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", "", "")
        client.sendall("\r\n".join(head).encode())
        amount, answered = 0, b""
        client.settimeout(0.001)
        for _ in range(100_000):
            try:
                answered += client.recv(1000)
                break
            except TimeoutError:
                pass
            except ConnectionError:
                break
            try:
                client.sendall(b"400\r\n" + bytes(1024) + b"\r\n")
            except (ConnectionError, TimeoutError):
                break
            amount += 1024
            time.sleep(pause)
        assert status in answered.partition(b"\r\n")[0]
    assert amount < 20 * LIMITS.upload_bytes
    assert site.client.get("/api/index").status_code == 200


def test_pictures_of_clients_go_when_there_is_no_room(site: Site, picture: bytes) -> None:
    tokens = [sent(site, picture)["picture"] for _ in range(8)]
    gone = site.client.get(f"/api/pictures/{tokens[0]}")
    assert gone.status_code == 404 and "choose it again" in gone.json()["error"]
    assert site.client.get(f"/api/pictures/{tokens[-1]}").status_code == 200


def test_what_is_confirmed_joins_the_query_and_what_is_rejected_leaves(site: Site) -> None:
    before = found(site, row=3, top=20)["matches"]
    first, third = before[0], before[2]
    judgement = {"name": "Ann", "verdict": "confirmed", "rows": [third["row"]]}
    assert site.client.post("/api/judgements", json=judgement).status_code == 200
    judgement = {"name": "Ann", "verdict": "rejected", "rows": [first["row"]]}
    judged = site.client.post("/api/judgements", json=judgement).json()
    assert [each["row"] for each in judged["confirmed"]] == [third["row"]]
    assert [each["row"] for each in judged["rejected"]] == [first["row"]]
    answer = found(site, row=3, name="Ann", top=20)
    assert answer["query"]["shots"] == 2 and answer["hidden"] == 1
    rows = {each["row"]: each for each in answer["matches"]}
    assert first["row"] not in rows and rows[third["row"]]["verdict"] == "confirmed"
    assert rows[third["row"]]["similarity"] > third["similarity"]
    assert found(site, row=3, top=20)["matches"] == before
    assert found(site, name="Ann")["matches"][0]["row"] == third["row"]
    assert site.client.get("/api/index").json()["names"] == ["Ann"]
    for row in (first["row"], third["row"]):
        judgement = {"name": "Ann", "verdict": "withdrawn", "rows": [row]}
        judged = site.client.post("/api/judgements", json=judgement).json()
    assert judged["confirmed"] == judged["rejected"] == []


def test_a_full_queue_is_said_with_when_to_come_back(site: Site, picture: bytes) -> None:
    with serving(
        Served(
            site.served.index.folder,
            site.served.judgements,
            device="cpu",
            limits=replace(LIMITS, model_queue=0),
        )
    ) as full:
        answer = full.client.post("/api/pictures", content=picture)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert full.client.get("/api/index").status_code == 200


def test_a_file_that_shows_something_else_now_is_not_given(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built.parent, tmp_path / "moved")
    with serving(
        Served(tmp_path / "moved" / "index", Judgements(tmp_path / "j.jsonl"), device="cpu")
    ) as site:
        assert site.client.get("/api/people/0/crop").status_code == 200
        for path in (tmp_path / "moved" / "scenes" / "entrance").iterdir():
            Image.new("RGB", (9, 9)).save(path)
        for address in ("/api/scenes/0", "/api/people/1/crop"):
            answer = site.client.get(address)
            assert answer.status_code == 404 and str(tmp_path) not in answer.text


def test_an_updated_index_is_served_at_once(built: Path, model: GivenModel, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "index")
    with serving(Served(tmp_path / "index", Judgements(tmp_path / "j.jsonl"), device="cpu")) as site:
        before = site.client.get("/api/index").json()
        write_scenes(tmp_path / "more", 2, seed=9)
        build_index(tmp_path / "index", [tmp_path / "more"], model)
        after = site.client.get("/api/index").json()
        assert after["files"] == before["files"] + 2 and after["people"] > before["people"]
        stale = httpx.get(f"{site.url}/api/search", params={"row": 0, "version": before["version"]})
        assert stale.status_code == 409


def test_while_an_update_is_put_in_place_the_index_of_before_is_served(built: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(built, index)
    served = Served(index, Judgements(tmp_path / "j.jsonl"), device="cpu")
    before = served.index
    (index / ".next").mkdir()
    (index / ".next" / "complete").touch()
    os.utime(index / "index.json", (1, 1))
    with exclusive_now(index / ".lock") as held:
        assert held and served.index is before
    assert served.index is not before and not (index / ".next").exists()


EXAMPLES = int(os.environ.get("PERSONSEARCH_API_EXAMPLES", "5"))
"""Generated requests per operation of the API; 100 make a thousand in all."""


def test_every_answer_is_as_the_description_of_the_api_says(site: Site) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    checks = schemathesis.checks
    checks.load_all_checks()
    promised = checks.CHECKS.get_by_names(
        [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        ]
    )
    described = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
    operations = [each.ok() for each in described.get_all_operations()]
    assert len(operations) == 11
    for operation in operations:

        @settings(
            max_examples=EXAMPLES, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def keeps_its_word(case: Any) -> None:
            case.call_and_validate(checks=promised)

        keeps_its_word()
    assert site.client.get("/api/index").status_code == 200

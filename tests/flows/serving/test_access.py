"""Who is let in: names, origins, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.errors import ConfigError
from flows.search.judgements import Judgements
from flows.serving.access import is_loopback
from flows.serving.running import TOKEN_VARIABLE, chosen_token, listen, run
from flows.serving.searching import Served
from tests.flows.serving.conftest import Site, serving

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def locked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    judgements = Judgements(tmp_path_factory.mktemp("locked") / "j.jsonl")
    with serving(Served(built, judgements, device="cpu"), TOKEN) as running:
        yield running


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "[::2]", "", "a:b:c"])
def test_a_server_without_a_token_answers_to_its_own_names_only(site: Site, host: str) -> None:
    answer = site.client.get("/api/index", headers={"Host": host})
    assert answer.status_code == 421 and "people" not in answer.json()
    for own in ("localhost", f"LOCALHOST:{site.port}", "[::1]:1", "127.0.0.1"):
        assert site.client.get("/api/index", headers={"Host": own}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(site: Site, headers: dict[str, str]) -> None:
    judgement = {"name": "Ann", "verdict": "confirmed", "rows": [0]}
    for address in ("/api/judgements", "/api/pictures"):
        assert site.client.post(address, json=judgement, headers=headers).status_code == 403
    own = {"Origin": site.url, "Sec-Fetch-Site": "same-origin"}
    assert site.client.post("/api/judgements", json=judgement | {"rows": []}, headers=own).status_code == 422
    answer = site.client.get("/api/index", headers=headers)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_every_answer_says_what_browsers_may_do_with_it(site: Site) -> None:
    for address in ("/", "/search.js", "/api/index", "/api/people/0/crop", "/nowhere"):
        headers = site.client.get(address).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer" and "server" not in headers
    assert "http" not in site.client.get("/").text.replace("http-equiv", "").replace("HTTP", "")
    for address in ("/docs", "/redoc", "/../../etc/passwd", "/api/scenes/..%2f..%2fetc%2fpasswd/picture"):
        assert site.client.get(address).status_code in (404, 422)


def test_a_long_body_is_not_read(site: Site) -> None:
    long = site.client.post("/api/judgements", content=b" " * 100_000)
    assert long.status_code == 413
    chunked = site.client.post("/api/judgements", content=iter([b"{", b"}"]))
    assert chunked.status_code == 411


def test_a_token_is_needed_for_everything(locked: Site) -> None:
    for address in ("/api/index", "/search.js", "/openapi.json", "/api/people/0/crop", "/nowhere"):
        assert httpx.get(locked.url + address).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(locked.url + address, headers=right).status_code in (200, 404)
    assert httpx.post(f"{locked.url}/api/pictures", content=b"x").status_code == 401
    for wrong in ("Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xe9"):
        header = (b"authorization", wrong.encode("latin-1"))
        answer = httpx.get(f"{locked.url}/api/index", headers=[header])
        assert answer.status_code == 401
    asks = httpx.get(locked.url)
    assert asks.status_code == 401 and 'name="token"' in asks.text and "people in" not in asks.text


@pytest.mark.parametrize("by", ["address", "form"])
def test_a_browser_signs_in_and_keeps_a_cookie_without_the_token(locked: Site, by: str) -> None:
    with httpx.Client(base_url=locked.url) as browser:
        if by == "address":
            answer = browser.get("/", params={"token": TOKEN})
        else:
            answer = browser.post("/sign-in", data={"token": TOKEN})
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and TOKEN not in cookie
        assert browser.get("/").status_code == 200 and browser.get("/api/index").status_code == 200
        assert (
            browser.post("/api/pictures", content=b"x", headers={"Origin": "http://evil"}).status_code == 403
        )
        assert browser.get("/", params={"token": "wrong"}).status_code == 401
        assert browser.post("/sign-in", data={"token": "wrong"}).status_code == 401


def test_beyond_this_machine_there_is_always_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert chosen_token("127.0.0.1", None) is None and chosen_token("localhost", None) is None
    first, second = chosen_token("0.0.0.0", None), chosen_token("0.0.0.0", None)
    assert first and second and first != second and len(first) >= 32
    assert not is_loopback("0.0.0.0") and not is_loopback("::") and is_loopback("127.1.2.3")
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert chosen_token("127.0.0.1", None) == TOKEN
    for weak in ("short", "with spaces in it!", "", "umläute-are-not-for-headers"):
        with pytest.raises(ConfigError, match="at least 16"):
            chosen_token("127.0.0.1", weak)


def test_nothing_is_served_to_other_machines_without_a_token(built: Path, tmp_path: Path) -> None:
    judgements = Judgements(tmp_path / "j.jsonl")
    with pytest.raises(ConfigError, match="a token is required"):
        run(built, judgements, host="0.0.0.0", port=0, token=None, say=print)


def test_an_address_that_cannot_be_had_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="choose another with --port"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match="--host no-such-host"):
        listen("no-such-host.invalid", 0)

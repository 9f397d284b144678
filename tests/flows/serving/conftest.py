"""One small index, served on loopback for a module's tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from flows.search.judgements import Judgements
from flows.serving.access import Access
from flows.serving.app import create_app
from flows.serving.limits import Limits
from flows.serving.running import listen
from flows.serving.searching import Served
from tests.flows.search.conftest import built, model, model_folder

__all__ = ["built", "model", "model_folder"]

LIMITS = Limits(
    upload_bytes=300_000, upload_pixels=200_000, upload_seconds=1.0, kept_bytes=200_000, uploads_at_once=2
)


@dataclass(frozen=True)
class Site:
    """A server that runs."""

    url: str
    served: Served
    client: httpx.Client

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0


@contextmanager
def serving(served: Served, token: str | None = None) -> Iterator[Site]:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        app = create_app(served, Access("127.0.0.1", port, token))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Site(url, served, client)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def site(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    judgements = Judgements(tmp_path_factory.mktemp("judgements") / "mine.jsonl")
    with serving(Served(built, judgements, device="cpu", limits=LIMITS)) as running:
        yield running


@pytest.fixture
def picture(built: Path) -> bytes:
    """One of the indexed scenes, 120x80."""
    return (built.parent / "scenes" / "entrance" / "20240501_120000.png").read_bytes()

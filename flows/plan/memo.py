"""Short answers that follow from digests, remembered beside the store's artifacts only to save time."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage import durable
from storage.digests import digest_json

log = logging.getLogger(__name__)


class Memo:
    """The answer of one kind to a question; if it is damaged or missing, it is computed again."""

    def __init__(self, store_root: Path, kind: str, question: Mapping[str, Any]) -> None:
        self.path = store_root / ".cache" / kind / digest_json(question)

    def read(self) -> str | None:
        try:
            answer, _, check = self.path.read_bytes().rpartition(b" ")
        except FileNotFoundError:
            return None
        if check != _check(answer):
            log.warning("%s is damaged: what it remembers is worked out again", self.path)
            return None
        return answer.decode()

    def write(self, answer: str) -> None:
        """Remember an answer; where nothing can be written, it is not remembered."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            durable.write(self.path, answer.encode() + b" " + _check(answer.encode()), lasting=False)
        except OSError as error:
            log.info("%s is not remembered: %s", self.path, error)


def _check(answer: bytes) -> bytes:
    return hashlib.sha256(answer).hexdigest()[:8].encode()

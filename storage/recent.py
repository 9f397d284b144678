"""The newest artifacts of a kind, so that who compares with earlier ones need not list the store.

<root>/.recent/<kind>     keys, the newest first

Only a memory: a key may be gone, and one that two processes publish at the same instant may be missing.
"""

from __future__ import annotations

import logging
import re
from itertools import islice
from pathlib import Path

from storage import durable
from storage.folders import visible_names
from storage.place import checked_name

log = logging.getLogger(__name__)

FOLDER = ".recent"
REMEMBERED = 200
KEY = re.compile(r"[0-9a-f]{32}")
"""What the key of an artifact looks like."""


class Recent:
    """What is remembered of one kind."""

    def __init__(self, root: Path, kind: str) -> None:
        self._path = root / FOLDER / checked_name(kind)
        self._artifacts = root / kind

    def keys(self) -> list[str]:
        """At most REMEMBERED keys, the newest first.

        A store of an earlier version remembers none: then any of the artifacts that this machine holds, of
        which no more are looked at.
        """
        try:
            text = self._path.read_text(errors="replace")
        except FileNotFoundError:
            return list(islice(visible_names(self._artifacts), REMEMBERED))
        return [key for key in text.splitlines() if KEY.fullmatch(key)][:REMEMBERED]

    def add(self, key: str) -> None:
        """Remember a key as the newest; where nothing can be written, it is not remembered."""
        known = [each for each in self.keys() if each != key]
        try:
            durable.make_folder(self._path.parent)
            durable.write(self._path, "\n".join([key, *known][:REMEMBERED]) + "\n", lasting=False)
        except OSError as error:
            log.info("%s/%s is not remembered: %s", self._artifacts.name, key, error)

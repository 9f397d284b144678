"""The memory of a store's last verification: the stat of every file, which stands for its bytes.

A file whose stat equals that of its last verification is trusted; any other is digested again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage import durable
from storage.digests import digest_file
from storage.manifest import Manifest
from storage.place import checked_name

log = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True)
class Digested:
    """A file's SHA-256, in hex, and the `stat_key` for which it is valid."""

    sha256: str
    stat: list[int]


class Trust:
    """The memory of one store, as <folder>/<kind>/<key>.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def problems(self, folder: Path, manifest: Manifest, *, trust_stat: bool) -> list[str]:
        """The problems with an artifact's files; `trust_stat`: files with a known stat are not digested."""
        trusted = self._read(manifest) if trust_stat else {}
        problems, verified = [], {}
        for name, entry in manifest.files.items():
            try:
                stat = (folder / name).stat()
                # Trusted is the stat from before the digest: a file that changes meanwhile has another.
                verified[name] = stat_key(stat)
                if trusted.get(name) == verified[name]:
                    continue
                if stat.st_size != entry.size:
                    problems.append(f"{name} has {stat.st_size} bytes, not {entry.size}")
                elif digest_file(folder / name) != entry.sha256:
                    problems.append(f"{name} does not match its digest")
            except FileNotFoundError:
                problems.append(f"{name} is missing")
        if verified != trusted and not problems:
            self.remember(manifest.kind, manifest.key, verified)
        return problems

    def unchanged(self, folder: Path, manifest: Manifest) -> frozenset[str]:
        """The files whose stat is that of their last verification."""
        found = set()
        for name, stat in self._read(manifest).items():
            with contextlib.suppress(FileNotFoundError):
                if stat_key((folder / name).stat()) == stat:
                    found.add(name)
        return frozenset(found)

    def _read(self, manifest: Manifest) -> dict[str, list[int]]:
        try:
            trust = json.loads(self._path(manifest.kind, manifest.key).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return trust if isinstance(trust, dict) else {}

    def remember(self, kind: str, key: str, verified: Mapping[str, list[int]]) -> None:
        """Remember the stat of verified files; in a read-only store they are verified again next time."""
        target = self._path(kind, key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            durable.write(target, json.dumps(verified), lasting=False)
        except OSError as error:
            log.info("the verification of %s/%s is not remembered: %s", kind, key, error)

    def forget(self, kind: str, key: str) -> None:
        """Make the next `problems` digest every file of an artifact again."""
        with contextlib.suppress(OSError):  # where nothing can be written, nothing was trusted either
            self._path(kind, key).unlink(missing_ok=True)

    def _path(self, kind: str, key: str) -> Path:
        return self.folder.joinpath(checked_name(kind), f"{checked_name(key)}.json")


def in_short(problems: Sequence[str]) -> str:
    """The first problem and their number: an artifact may have lost a thousand files."""
    rest = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + rest


def stat_keys(folder: Path, manifest: Manifest) -> dict[str, list[int]]:
    """The stat of every file of a manifest, in the form in which it is remembered."""
    return {name: stat_key((folder / name).stat()) for name in manifest.files}


def stat_key(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]

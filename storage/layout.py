"""Where everything of a store lies on a local file system.

<root>/<kind>/<key>/manifest.json + files     artifacts
<root>/.work/<kind>/<key>/                    work areas: what a resume finds
<root>/.locks/<kind>/<key>                    kernel locks of running writers
<root>/.locks/collecting.<n>                  what a collection's locks are further names of
<root>/.trust/<kind>/<key>.json               the stat of every file at its last verification
<root>/.damaged/<kind>-<key>-<n>/             what failed verification, set aside
<root>/.replaced/<kind>-<key>/                what is being replaced, until its successor is in place
<root>/.removed/                              what is being deleted
<root>/.tags/<tag>                            the artifact that a person gave a name
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from storage.errors import StorageError
from storage.folders import visible_names
from storage.manifest import FILE_NAME


class Layout:
    """The folders and files under one root directory, by the names of what they hold."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self.root.is_dir()

    def path_of(self, kind: str, key: str) -> Path:
        """Where an artifact lies. Raises StorageError when `kind` or `key` is not one plain name."""
        return self.root.joinpath(plain_name(kind), plain_name(key))

    def work_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".work" / plain_name(kind) / plain_name(key)

    @property
    def removed_path(self) -> Path:
        """Where artifacts wait for their deletion; what is found here can be deleted."""
        return self.root / ".removed"

    @property
    def leftover_paths(self) -> tuple[Path, ...]:
        """Folders whose content is nobody's: set aside, or half deleted."""
        return self.root / ".damaged", self.removed_path

    def replaced(self) -> Iterator[tuple[str, str, Path]]:
        """(kind, key, folder) of what was replaced and is not deleted yet, or waits for its successor."""
        for name in sorted(visible_names(self.root / ".replaced")):
            kind, _, key = name.rpartition("-")
            if kind and key:
                yield kind, key, self.root / ".replaced" / name

    def read_tags(self) -> dict[str, bytes]:
        """What every tag holds; see `storage.tags`."""
        try:
            files = sorted(path for path in self._tags_path.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return {}
        return {path.name: path.read_bytes() for path in files}

    def write_tag(self, tag: str, artifact: str) -> None:
        self._tags_path.mkdir(parents=True, exist_ok=True)
        temporary = self._tags_path / f".{tag}.tmp"
        temporary.write_text(artifact + "\n")
        temporary.replace(self._tags_path / tag)

    def remove_tag(self, tag: str) -> None:
        """Raises FileNotFoundError when there is none of that name."""
        (self._tags_path / tag).unlink()

    @property
    def _tags_path(self) -> Path:
        return self.root / ".tags"

    def log_path_of(self, kind: str, key: str) -> Path:
        return self.root / ".logs" / plain_name(kind) / f"{plain_name(key)}.log"

    def keys(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """(kind, key) of every finished artifact, in order."""
        kinds = [plain_name(kind)] if kind else sorted(visible_names(self.root))
        for each in kinds:
            for key in sorted(visible_names(self.root / each)):
                if self.root.joinpath(each, key, FILE_NAME).is_file():
                    yield each, key

    def manifests(self, kind: str | None = None) -> Iterator[tuple[str, str, bytes]]:
        """(kind, key, manifest as it is stored, unchecked) of every finished artifact; for listings."""
        for each, key in self.keys(kind):
            with contextlib.suppress(FileNotFoundError):
                yield each, key, self.root.joinpath(each, key, FILE_NAME).read_bytes()

    def written_since(self, moment: datetime) -> set[str]:
        """The artifacts, `kind/key`, put here after a moment by the clock of whoever keeps them."""
        found = set()
        for kind, key in self.keys():
            with contextlib.suppress(FileNotFoundError):
                if (self.path_of(kind, key) / FILE_NAME).stat().st_mtime > moment.timestamp():
                    found.add(f"{kind}/{key}")
        return found

    def work_areas(self) -> Iterator[tuple[str, str]]:
        """(kind, key) of every unfinished work area."""
        for kind in sorted(visible_names(self.root / ".work")):
            for key in sorted(visible_names(self.root / ".work" / kind)):
                yield kind, key

    def _lock_path(self, kind: str, key: str) -> Path:
        return self.root.joinpath(".locks", plain_name(kind), plain_name(key))

    def _replaced_path(self, kind: str, key: str) -> Path:
        return self.root / ".replaced" / f"{plain_name(kind)}-{plain_name(key)}"


def plain_name(name: str) -> str:
    """A kind or a key as it may be joined to the root: listings and tags come from other people, too."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise StorageError(f"{name!r} cannot be the kind or the key of an artifact")
    return name

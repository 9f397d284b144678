"""What a store on object storage looks at: objects and folders under its URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.manifest import FILE_NAME
from storage.object_storage import reaching
from storage.urls import filesystem

_REFUSED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
"""How S3 answers a write whose condition did not hold, or may not have held."""


class Bucket:
    """The objects under a URL. Each call asks the server, since other machines write there, too."""

    def __init__(self, url: str) -> None:
        self.system, self.prefix = filesystem(url, use_listings_cache=False, skip_instance_cache=True)
        protocol = self.system.protocol
        self._on_s3 = "s3" in ((protocol,) if isinstance(protocol, str) else protocol)
        # What is read here is small. s3fs would ask for each size first, to read a large object in parts.
        self._in_one = {"max_concurrency": 1} if self._on_s3 else {}

    @reaching()
    def listed(self, name: str) -> dict[str, dict[str, Any]]:
        """Every object under a prefix, by path."""
        folder = f"{self.prefix}/{name}".rstrip("/")
        return dict(self.system.find(folder, detail=True))

    def manifests(self, listed: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Those of the objects that are manifests of finished artifacts."""
        parts = {path: path.removeprefix(f"{self.prefix}/").split("/") for path in listed}
        return {
            path: listed[path]
            for path, (kind, *rest) in parts.items()
            if rest[1:] == [FILE_NAME] and not kind.startswith(".") and not rest[0].startswith(".")
        }

    def tag_path(self, tag: str) -> str:
        """Where a tag is; of an empty one, the folder of all."""
        return f"{self.prefix}/.tags/{tag}".rstrip("/")

    @reaching()
    def read(self, path: str) -> bytes | None:
        """The content; None if there is no such object."""
        try:
            return bytes(self.system.cat_file(path, **self._in_one))
        except FileNotFoundError:
            return None

    @reaching()
    def swap(self, path: str, before: str | None, after: str | None) -> bool:
        """Put the line `after` in the place of an object with the line `before`; None stands for no object.

        False if the content differs. S3 compares as it writes; elsewhere, and for a removal, the content is
        read first.
        """
        condition = {} if before is None or after is None else self._condition(path)
        if condition is None or self._line(path) != before:
            return False
        try:
            if after is not None:
                mode = "create" if before is None else "overwrite"
                self.system.pipe_file(path, f"{after}\n".encode(), mode=mode, **condition)
            elif before is not None:
                self.system.rm_file(path)
        except OSError as error:
            # A try of the client whose answer was lost may have written it.
            found = self._line(path)
            if found == before != after and not _is_refused(error):
                raise
            return found == after
        return True

    def _line(self, path: str) -> str | None:
        content = self.read(path)
        return None if content is None else content.decode(errors="replace").strip()

    def _condition(self, path: str) -> dict[str, str] | None:
        """What makes S3 write only over the object that is there now; None without one."""
        if not self._on_s3:
            return {}
        try:
            return {"IfMatch": self.system.info(path)["ETag"]}
        except FileNotFoundError:
            return None

    @reaching()
    def is_there(self, path: str) -> bool:
        """Whether there is an object, or one below the path."""
        return bool(self.system.exists(path))

    @reaching()
    def contents(self, paths: list[str]) -> dict[str, bytes]:
        """The content at these paths, without objects deleted in the meantime."""
        found = self.system.cat(paths, on_error="return", **self._in_one) if paths else {}
        for content in found.values():
            if not isinstance(content, bytes | FileNotFoundError):
                raise content
        return {path: found[path] for path in paths if isinstance(found[path], bytes)}

    @reaching()
    def folders(self, path: str) -> list[str]:
        """Folders right below a path, without hidden ones."""
        try:
            entries = self.system.ls(path, detail=True)
        except FileNotFoundError:
            return []
        names = (entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory")
        return sorted(name for name in names if not name.rpartition("/")[2].startswith("."))


def _is_refused(error: OSError) -> bool:
    """Whether S3 did not write because of the condition; s3fs keeps its answer in the cause."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in _REFUSED

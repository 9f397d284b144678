"""The artifact store on object storage, which has neither renames nor locks.

<url>/<kind>/<key>/manifest.json              written last, and only if there is none
<url>/<kind>/<key>/<version>/...              the files; `version` is a digest over all of them
<url>/.damaged/<kind>-<key>-<n>/              artifacts that failed verification
<url>/.tags/<tag>                             the artifact that has this tag
<url>/.leases/<kind>/<key>/<number>           who builds a key now; see `storage.leases`

Work happens in a local folder, which also caches artifacts that were built here or downloaded. A version is
named after its content, so writers of different bytes never touch each other's files, and an interrupted
upload resumes where it stopped. The first writer of a manifest wins; another one uses that artifact.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from storage.bucket import Bucket
from storage.errors import StorageError
from storage.folders import cache_folder
from storage.leases import FOLDER as LEASES
from storage.leases import Leases
from storage.local import LocalStore
from storage.locks import exclusive
from storage.manifest import FILE_NAME, Manifest, manifest_or_problem, parse_manifest
from storage.object_storage import modified, reaching, tag_of
from storage.parts import Parts, version_of
from storage.place import checked_name
from storage.receiving import OpenFile, Received, relatives
from storage.store import Artifact, FirstLooks, Inspection, Objects, Store
from storage.trust import in_short

log = logging.getLogger(__name__)

_DAMAGED = ".damaged"
_LEFT = timedelta(hours=1)
"""Much longer than a lease lasts without a beat, since clocks differ."""


class _DamagedPart(StorageError):
    """A file of an artifact that is missing or does not match its digest."""


class RemoteStore(Store):
    """Artifacts under a URL of object storage.

    The local folder `root` holds locks, work, logs and the cache of artifacts built here or downloaded.
    """

    def __init__(self, url: str, root: Path | None = None, *, verify_first: bool = False) -> None:
        self.url = url.rstrip("/")
        folder = root or cache_folder() / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._cache = LocalStore(folder, verify_first=verify_first)
        self._looks = FirstLooks(verify_first)
        self.place = self._cache.place
        self._bucket = Bucket(self.url)
        self._parts = Parts(self._bucket, self.url)
        self.system, self.prefix = self._bucket.system, self._bucket.prefix
        self._leases = Leases(self._bucket, folder)

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        return self._bucket.is_there(self.prefix)

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, downloaded to this machine; every byte is digested once on the way."""
        self.place.path_of(kind, key)  # refuses what is not a plain name
        with exclusive(self.root / ".locks" / "fetching" / f"{kind}-{key}", what=f"a copy of {kind}/{key}"):
            raw = self._raw(kind, key)
            while raw is not None:
                artifact, problem = self._bring(kind, key, raw)
                seen, raw = raw, self._raw(kind, key)
                if artifact is not None:
                    return artifact
                if raw == seen:
                    self.set_aside(kind, key, problem)
                    return None
                # Another machine has replaced it in the meantime.
            with contextlib.suppress(FileNotFoundError):
                self._cache.remove(kind, key)
            return None

    def find_in_place(self, kind: str, key: str) -> Artifact | None:
        """Like `find`; only what is on this machine already is read from it."""
        found = self.inspect(kind, key)
        if found.problem is not None:
            self.set_aside(kind, key, found.problem)
        if found.artifact is None:
            return None
        return self._kept(found.artifact.manifest) or found.artifact

    def place_of(self, artifact: Artifact) -> str:
        kept = self._cache.peek(artifact.kind, artifact.key)
        is_here = kept is not None and kept.manifest == artifact.manifest
        return str(artifact.path) if is_here else self._parts.place(artifact.manifest)

    @reaching()
    def inspect(self, kind: str, key: str) -> Inspection:
        """Whether the artifact exists and every file has the right size."""
        raw = self._raw(kind, key)
        if raw is None:
            return Inspection()
        manifest = self._parsed(kind, key, raw)
        if isinstance(manifest, str):
            return Inspection(problem=manifest)
        there = self._bucket.listed(f"{kind}/{key}")
        problems = []
        for name, entry in manifest.files.items():
            part = there.get(self._parts.path(manifest, name))
            if part is None:
                problems.append(f"{name} is missing")
            elif part["size"] != entry.size:
                problems.append(f"{name} has {part['size']} bytes, not {entry.size}")
        if not problems and self._looks.must_verify(kind, key):
            problems = self.verify(kind, key)
            self._cache.inspect(kind, key)  # a damaged copy on this machine is not trusted any more
        if problems:
            return Inspection(problem=in_short(problems))
        return Inspection(Artifact(self.place.path_of(kind, key), manifest))

    def lease(self, kind: str, key: str, *, again: bool) -> AbstractContextManager[None]:
        def is_built() -> bool:
            return not again and self._raw(kind, key) is not None

        return self._leases.held(kind, key, is_built)

    def find_alone(self, kind: str, key: str) -> Artifact | None:
        return self.find(kind, key)

    def manifest_of(self, kind: str, key: str) -> Manifest:
        raw, where = self._raw(kind, key), f"{self.url}/{kind}/{key}/{FILE_NAME}"
        if raw is None:
            raise FileNotFoundError(where)
        return parse_manifest(raw, where)

    def local_path(self, kind: str, key: str) -> Path:
        found = self.find(kind, key)
        if found is None:
            raise StorageError(f"{self.url}/{kind}/{key} is missing or damaged")
        return found.path

    def kinds(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self._bucket.folders(self.prefix)]

    def keys(self, kind: str | None = None) -> Iterator[tuple[str, str]]:
        for each in [checked_name(kind)] if kind else self.kinds():
            for folder in self._bucket.folders(f"{self.prefix}/{each}"):
                if self._bucket.is_there(f"{folder}/{FILE_NAME}"):
                    yield each, folder.rpartition("/")[2]

    def stamps(self, kind: str) -> Iterator[tuple[str, str]]:
        for path, entry in self._bucket.manifests(self._bucket.listed(checked_name(kind))).items():
            yield _names(path)[1], f"{entry['size']}.{tag_of(entry)}"

    def read_manifests(self, kind: str, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        paths = [self._parts.key_path(kind, key, FILE_NAME) for key in keys]
        for path, raw in self._bucket.contents(paths).items():
            yield _names(path)[1], raw

    def kind_folder(self, kind: str) -> None:
        return None

    def hidden_manifests(self) -> Iterator[bytes]:
        hidden = [f"{path}/{FILE_NAME}" for path in self._bucket.folders(f"{self.prefix}/{_DAMAGED}")]
        return iter(self._bucket.contents(hidden).values())

    @reaching()
    def read_tags(self) -> dict[str, bytes]:
        found = self._bucket.contents(sorted(self.system.find(self._bucket.tag_path(""))))
        return {path.rpartition("/")[2]: content for path, content in found.items()}

    @reaching()
    def write_tag(self, tag: str, artifact: str) -> None:
        self.system.pipe_file(self._bucket.tag_path(tag), f"{artifact}\n".encode())

    def swap_tag(self, tag: str, before: str | None, after: str | None) -> bool:
        return self._bucket.swap(self._bucket.tag_path(tag), before, after)

    @reaching()
    def remove_tag(self, tag: str) -> None:
        if not self.system.exists(self._bucket.tag_path(tag)):
            raise FileNotFoundError(self._bucket.tag_path(tag))
        self.system.rm_file(self._bucket.tag_path(tag))

    @reaching()
    def written_since(self, moment: datetime) -> set[str]:
        there = self._bucket.manifests(self._bucket.listed(""))
        return {"/".join(_names(path)) for path, entry in there.items() if modified(entry) > moment}

    @reaching()
    def stray_objects(self, before: datetime) -> list[Objects]:
        """Unfinished uploads, replaced versions, damaged artifacts and left leases, older than `before`."""
        listed = self._bucket.listed("")
        manifests = self._bucket.contents(list(self._bucket.manifests(listed)))
        versions = {"/".join(_names(path)): version_of(raw) for path, raw in manifests.items()}
        groups: dict[str, list[dict[str, Any]]] = {}
        for path, entry in listed.items():
            parts = path.removeprefix(f"{self.prefix}/").split("/")
            depth = 2 if parts[0] == _DAMAGED else 3
            # This store writes nothing at a higher level, and tags under the only other hidden name.
            if len(parts) > depth and (parts[0] in (_DAMAGED, LEASES) or not parts[0].startswith(".")):
                groups.setdefault("/".join(parts[:depth]), []).append(entry)
        return [
            Objects(name, sum(entry["size"] for entry in entries))
            for name, entries in sorted(groups.items())
            if all(modified(entry) < _latest(name, before) for entry in entries)
            and not self._is_needed(name, versions)
        ]

    @reaching()
    def remove_objects(self, objects: Objects, before: datetime) -> None:
        """Delete them, unless objects were added since, or a manifest names them now."""
        artifact = objects.name.rpartition("/")[0]
        raw = self._bucket.read(f"{self.prefix}/{artifact}/{FILE_NAME}")
        versions = {} if raw is None else {artifact: version_of(raw)}
        listed = self._bucket.listed(objects.name)
        young = any(modified(entry) >= _latest(objects.name, before) for entry in listed.values())
        if not young and not self._is_needed(objects.name, versions):
            for path in listed:
                self.system.rm_file(path)

    @reaching()
    def verify(self, kind: str, key: str) -> list[str]:
        raw = self._raw(kind, key)
        if raw is None:
            return [f"{self.url}/{kind}/{key}: artifact not found"]
        manifest = self._parsed(kind, key, raw)
        if isinstance(manifest, str):
            return [manifest]
        problems = []
        for name, entry in manifest.files.items():
            try:
                if self._parts.transfer(manifest, name, None) != entry.sha256:
                    problems.append(f"{name} does not match its digest")
            except FileNotFoundError:
                problems.append(f"{name} is missing")
        return problems

    def distrust(self, kind: str, key: str) -> None:
        self._cache.distrust(kind, key)

    def trusted(self, artifact: Artifact) -> frozenset[str]:
        return self._cache.trusted(artifact)

    @reaching()
    def set_aside(self, kind: str, key: str, why: str) -> Path:
        number = 0
        while self.system.exists(target := f"{self.prefix}/{_DAMAGED}/{kind}-{key}-{number}"):
            number += 1
        log.warning("artifact %s/%s was set aside as %s: %s", kind, key, target, why)
        source = self._parts.key_path(kind, key)
        for path in self.system.find(source):
            self.system.cp_file(path, target + path.removeprefix(source))
        self.remove(kind, key)
        return Path(target)

    @reaching()
    def take_away(self, kind: str, key: str) -> Path | None:
        self.system.rm_file(self._parts.key_path(kind, key, FILE_NAME))
        for path in self.system.find(self._parts.key_path(kind, key)):
            self.system.rm_file(path)
        with contextlib.suppress(FileNotFoundError):
            return self._cache.take_away(kind, key)
        return None

    @reaching()
    def reopen(self, kind: str, key: str) -> Path:
        self.local_path(kind, key)
        self.system.rm_file(self._parts.key_path(kind, key, FILE_NAME))
        return self._cache.reopen(kind, key)

    @reaching()
    def publish(
        self,
        work: Path,
        manifest: Manifest,
        *,
        replace: bool = False,
        verified: Mapping[str, list[int]] | None = None,
    ) -> Artifact:
        """Upload the files, then the manifest unless there is one."""
        kind, key = manifest.kind, manifest.key
        self._parts.upload(work, manifest)
        if not self._name(manifest, replace=replace):
            log.info("%s/%s was built by another machine at the same time; using its artifact", kind, key)
            shutil.rmtree(work)
            found = self.find(kind, key)
            if found is None:
                raise StorageError(f"{self.url}/{kind}/{key} was built elsewhere, but has been deleted since")
            return found
        return self._cache.publish(work, manifest, replace=replace, verified=verified)

    @reaching()
    def receive(self, manifest: Manifest, open_file: OpenFile) -> Received | None:
        found = self.inspect(manifest.kind, manifest.key)
        if found.artifact is not None:
            return None
        if found.problem is not None:
            self.set_aside(manifest.kind, manifest.key, found.problem)
        received = self._parts.receive(manifest, open_file, relatives(self, manifest))
        return received if self._name(manifest, replace=False) else None

    def open_file(self, manifest: Manifest, name: str) -> BinaryIO:
        with reaching():
            return self._parts.open(manifest, name)

    def _name(self, manifest: Manifest, *, replace: bool) -> bool:
        """Write the manifest, which makes the artifact; False if it has one that is not to be replaced."""
        path = self._parts.key_path(manifest.kind, manifest.key, FILE_NAME)
        try:
            self.system.pipe_file(
                path, manifest.to_json().encode(), mode="overwrite" if replace else "create"
            )
        except FileExistsError:
            return False
        return True

    def _bring(self, kind: str, key: str, raw: bytes) -> tuple[Artifact | None, str]:
        """The artifact of this manifest on this machine, or the problem with it."""
        manifest = self._parsed(kind, key, raw)
        if isinstance(manifest, str):
            return None, manifest
        try:
            return self._kept(manifest) or self._fetch(manifest), ""
        except _DamagedPart as error:
            return None, str(error)

    def _parsed(self, kind: str, key: str, raw: bytes) -> Manifest | str:
        """The manifest, or the problem with it."""
        return manifest_or_problem(raw, f"{self.url}/{kind}/{key}/{FILE_NAME}", kind, key)

    def _kept(self, manifest: Manifest) -> Artifact | None:
        """The local copy, if it is intact and has the same manifest."""
        kept = self._cache.find(manifest.kind, manifest.key)
        return kept if kept is not None and kept.manifest == manifest else None

    @reaching()
    def _fetch(self, manifest: Manifest) -> Artifact:
        kind, key = manifest.kind, manifest.key
        folder = self.root / ".fetching" / f"{kind}-{key}"
        if folder.exists():
            shutil.rmtree(folder)
        for name, entry in manifest.files.items():
            try:
                whole = self._parts.transfer(manifest, name, folder / name) == entry.sha256
            except FileNotFoundError:
                whole = False
            if not whole:
                raise _DamagedPart(f"{name} is missing or does not match its digest")
        folder.mkdir(parents=True, exist_ok=True)
        return self._cache.publish(folder, manifest)

    def _is_needed(self, name: str, versions: Mapping[str, str | None]) -> bool:
        """Whether the manifest of `kind/key/version` names this version, or it is being built here now."""
        artifact, _, version = name.rpartition("/")
        if artifact == _DAMAGED:
            return False
        if artifact.startswith(f"{LEASES}/"):  # .leases/<kind>/<key>
            return self.place.holder(artifact.partition("/")[2], version) is not None
        return (
            versions.get(artifact, "") in (version, None)
            or self.place.holder(*artifact.split("/")) is not None
        )

    def _raw(self, kind: str, key: str) -> bytes | None:
        return self._bucket.read(self._parts.key_path(kind, key, FILE_NAME))


def _latest(name: str, before: datetime) -> datetime:
    """When objects that may go were last written: a lease that is held is written again and again."""
    return min(before, datetime.now(UTC) - _LEFT) if name.startswith(f"{LEASES}/") else before


def _names(manifest_path: str) -> tuple[str, str]:
    """The kind and key of the artifact whose manifest is at this path."""
    kind, key = manifest_path.split("/")[-3:-1]
    return kind, key

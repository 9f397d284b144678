"""Whether images decode, asked once per content: a damaged file is named before anything trains on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_catalog.errors import CatalogError
from data_catalog.files import path_fault
from data_catalog.images import Unreadable, read_header
from data_catalog.parallel import cores
from data_catalog.row_checks import unreadable_images
from data_catalog.snapshot import Snapshot

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_SHOWN = 3
_BATCH = 1024
"""Images; what was decoded is remembered after each, so that an interrupted check goes on from there."""


def faults_in_short(faults: Mapping[str, str]) -> str:
    """The first of the images that cannot be decoded, and why."""
    shown = [f"{path}: {fault}" for path, fault in sorted(faults.items())[:_SHOWN]]
    return "; ".join([*shown, *(["..."] if len(faults) > _SHOWN else [])])


class DecodedImages:
    """Digests of the images that were decoded whole; a file of lines that only grows. None remembers nothing.

    A line that was cut short or damaged is the digest of no image: that image is decoded again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def known(self) -> frozenset[str]:
        if self._path is None or not self._path.is_file():
            return frozenset()
        return frozenset(self._path.read_bytes().decode("ascii", "replace").split("\n"))

    def forget(self, digests: Collection[str]) -> None:
        """Leave these digests out; images that another process adds meanwhile are decoded again."""
        known = self.known()
        if self._path is not None and known & set(digests):
            kept = sorted(known - set(digests) - {""})
            partial = self._path.with_name(f".{self._path.name}.partial")
            partial.write_text("".join(f"\n{digest}\n" for digest in kept))
            partial.replace(self._path)

    def add(self, digests: list[str]) -> None:
        if self._path is None or not digests:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:  # one write, so that two processes do not mix their lines
                file.write(("\n" + "\n".join(digests) + "\n").encode())
        except OSError as error:
            log.info("%s: decoded images are not remembered: %s", self._path, error)


def undecodable_images(
    root: Path, images: Mapping[str, str], memory: DecodedImages, progress: Progress | None = None
) -> dict[str, str]:
    """What is wrong with each image that does not decode, by its path under the root.

    `images` maps paths to SHA-256. Those whose digests `memory` knows are not opened. The file that a path
    leads to is the one that has the digest: an ingest holds them to each other before this is called.
    """
    known = memory.known()
    todo = {path: digest for path, digest in images.items() if digest not in known}
    faults: dict[str, str] = {}
    paths = list(todo)
    with ThreadPoolExecutor(cores()) as pool:  # decoding leaves the interpreter to others
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            found = dict(zip(batch, pool.map(lambda path: _fault(root / path), batch), strict=True))
            faults |= {path: fault for path, fault in found.items() if fault is not None}
            memory.add([todo[path] for path in batch if found[path] is None])
            if progress is not None:
                progress(start + len(batch), len(paths))
    return faults


def undecodable_rejects(root: Path, snapshot: Snapshot) -> dict[str, str]:
    """The same for images that the ingest has left out with their boxes, since not even their headers can be
    read.
    """
    paths = (path for path in unreadable_images(snapshot) if path_fault(path) is None)
    faults = {path: _fault(root / path) for path in paths if (root / path).exists()}
    return {path: fault for path, fault in faults.items() if fault is not None}


def _fault(path: Path) -> str | None:
    try:
        read_header(path, decode=True)
    except (Unreadable, CatalogError) as error:
        return str(error)
    return None


def memory_of(store: Path) -> DecodedImages:
    """The memory beside a store's artifacts."""
    return DecodedImages(store / ".cache" / "decoded_images")

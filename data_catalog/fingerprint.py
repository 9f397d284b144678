"""What a dataset's root holds, by content: cheap to ask again while its files stay as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.adapters.protocol import Adapter, Layout, Options, check_options
from data_catalog.errors import CatalogError
from data_catalog.forgotten import NO_ONE, Forgotten, without_images
from data_catalog.hash_cache import HashCache
from data_catalog.reading import layout_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DatasetRoot:
    """A dataset's root, and how it is read: with the headers of its images or from annotations alone.

    Images that are `forgotten` are not read.
    """

    root: Path
    adapter: Adapter
    options: Options = field(default_factory=dict)
    read_images: bool = True
    forgotten: Forgotten = NO_ONE

    @property
    def read_of_images(self) -> str:
        """What is read of an image; it decides on the rows, so it goes into digests."""
        return "headers" if self.read_images else "none"


@dataclass(frozen=True)
class Fingerprint:
    """What a root holds, by content. `images` maps their names to SHA-256; it is empty where they are left
    out. `forgotten` are paths of files that are not looked at, since they show forgotten images.
    """

    digest: str
    layout: Layout
    annotations: Mapping[str, str]
    images: Mapping[str, str]
    forgotten: frozenset[str] = frozenset()


def fingerprint(source: DatasetRoot, hash_cache: HashCache, *, rehash: bool = False) -> Fingerprint:
    """Digest of everything that an ingest would read; cheap when nothing changed since the last time.

    `rehash` ignores the stat cache.

    Raises:
        CatalogError: when the root is not of the adapter's format, a file is missing, or the adapter cannot
            do without the images that are left out.
    """
    root, adapter = source.root, source.adapter
    check_options(adapter, source.options)
    if getattr(adapter, "needs_images", False) and not source.read_images:
        raise CatalogError(
            f"adapter {adapter.name!r} takes sizes from the images: they cannot be left out (--no-images)"
        )
    layout, left_out = without_images(layout_of(adapter, root, source.options), source.forgotten)
    names = {unit.source for unit in layout.units if unit.has_file} | {
        name for unit in layout.units for name in unit.also
    }
    annotations = hash_cache.digests(root, sorted(names | set(layout.shared)), rehash=rehash)
    shown = {name for unit in layout.units for name in unit.images} | set(layout.images)
    pictures = sorted(shown - left_out)
    images = hash_cache.digests(root, pictures, rehash=rehash) if source.read_images else {}
    total = hashlib.sha256(source.read_of_images.encode())
    for part in (annotations, images or dict.fromkeys(pictures, "")):
        total.update(json.dumps(sorted(part.items())).encode("utf-8", "surrogatepass"))
    return Fingerprint(total.hexdigest(), layout, annotations, images, left_out)

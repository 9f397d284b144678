"""Images of a snapshot by name: those of a pattern, and those that a wrong name may have meant."""

from __future__ import annotations

import bisect
import difflib
import unicodedata
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.snapshot import Snapshot

MOST_COMPARED = 4096
"""Ids that are compared letter by letter: those next to the wrong one in the alphabet."""
MOST_NEAR = 3


def find_images(snapshot: Snapshot, split: str | None = None, like: str | None = None) -> pa.Table:
    """Image id, split, path and number of boxes, in the catalog's order.

    `like` is a part of the id, in any case, or a pattern with `*` and `?` for all of it. Accents
    may be one character or two.

    Raises:
        CatalogError: when there are no images in that split.
    """
    images = snapshot.table("images", ["image_id", "split", "rel_path", "n_boxes"])
    if split is not None:
        snapshot.require_splits([split])
        images = images.filter(pc.equal(images["split"], split))
    if like is None:
        return images
    ids = pc.utf8_normalize(images["image_id"].cast(pa.string()), "NFC")
    like = unicodedata.normalize("NFC", like)
    if not set("*?") & set(like):
        return images.filter(pc.match_substring(ids, like, ignore_case=True))
    pattern = like.replace("%", r"\%").replace("_", r"\_").replace("*", "%").replace("?", "_")
    return images.filter(pc.match_like(ids, pattern, ignore_case=True))


def spelled_id(snapshot: Snapshot, written: str) -> str:
    """The id as the snapshot spells it, whose accents may be one character or two; else as it is written."""
    if written.isascii():
        return written
    ids = snapshot.table("images", ["image_id"])["image_id"].cast(pa.string())
    same = pc.equal(pc.utf8_normalize(ids, "NFC"), unicodedata.normalize("NFC", written))
    found = ids.filter(same).to_pylist()
    return written if written in found or not found else str(found[0])


def near_ids(snapshot: Snapshot, wrong: str) -> list[str]:
    """At most MOST_NEAR ids that the wrong one may have meant: with its file's name in them, else spelled
    nearly as it is.
    """
    stem = PurePosixPath(wrong.replace("\\", "/")).stem
    ids = snapshot.table("images", ["image_id"])["image_id"].cast(pa.string())
    if stem:
        found = ids.filter(pc.match_substring(ids, stem, ignore_case=True))
        if len(found):
            by_length = sorted(found.to_pylist(), key=lambda each: (len(each), each))
            return by_length[:MOST_NEAR]
    listed = sorted(ids.to_pylist())
    at = bisect.bisect(listed, wrong)
    around = listed[max(0, at - MOST_COMPARED // 2) : at + MOST_COMPARED // 2]
    return difflib.get_close_matches(wrong, around, n=MOST_NEAR)

"""A view's digest depends on its own rows and pixels, and on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data_catalog.errors import CatalogError
from data_catalog.matfile import only_variable
from data_catalog.views import View, protocol_view


def _pixels_and_rows(snapshot: Any, split: str = "train") -> tuple[str, str]:
    view = View(snapshot, split)
    return view.digests("boxes")["images"], view.digests("truth")["boxes"]


def test_other_splits_protocols_and_names_do_not_count(prw_root: Path, ingest_into: Any) -> None:
    before = ingest_into(prw_root, "prw")
    _add_test_frame(prw_root)
    with (prw_root / "query_info.txt").open("a") as file:
        file.write("1 2 3 4 5 nowhere\r\n")
    after = ingest_into(prw_root, "prw", name="renamed")
    assert _pixels_and_rows(before) == _pixels_and_rows(after)
    assert _pixels_and_rows(before, "test") != _pixels_and_rows(after, "test")


def test_pixels_count_where_they_are_used(prw_root: Path, ingest_into: Any) -> None:
    before = ingest_into(prw_root, "prw")
    name = View(before, "train").images["rel_path"][0].as_py()
    path = prw_root / name
    Image.effect_noise(Image.open(path).size, 40).convert("RGB").save(path)
    pixels, rows = _pixels_and_rows(ingest_into(prw_root, "prw"))
    assert pixels != _pixels_and_rows(before)[0]
    assert rows == _pixels_and_rows(before)[1]


def test_a_snapshot_without_images_has_no_pixels_to_digest(prw_root: Path, ingest_into: Any) -> None:
    with pytest.raises(CatalogError, match="without images"):
        View(ingest_into(prw_root, "prw", images=False), "train").digests("people")


def test_an_unknown_split_is_named(prw_root: Path, ingest_into: Any) -> None:
    with pytest.raises(CatalogError, match=r"split 'tran'; there is: test, train"):
        View(ingest_into(prw_root, "prw"), "tran").digests("truth")


def test_rows_come_in_canonical_order(mot_root: Path, ingest_into: Any) -> None:
    view = View(ingest_into(mot_root, "mot17"), "train")
    keys = list(zip(view.boxes["image_id"].to_pylist(), view.boxes["source_row"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert view.images["image_id"].to_pylist() == sorted(view.images["image_id"].to_pylist())


def test_low_boxes_become_ignore_regions(mot_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(mot_root, "mot17")
    whole = View(snapshot, "train")
    heights = whole.boxes["y2"].to_numpy() - whole.boxes["y1"].to_numpy()
    limit = float(np.sort(heights)[len(heights) // 2])
    low = View(snapshot, "train", min_height=limit)
    assert len(low.boxes) == len(whole.boxes)
    expected = whole.boxes["ignore"].to_numpy() | (heights < limit)
    assert limit in heights and low.boxes["ignore"].to_numpy().tolist() == expected.tolist()
    assert (
        low.boxes.filter(low.boxes["ignore"])["person_id"].null_count == low.boxes["ignore"].to_numpy().sum()
    )
    assert low.digests("boxes") != whole.digests("boxes")


def test_protocol_view(prw_root: Path, ingest_into: Any) -> None:
    snapshot = ingest_into(prw_root, "prw")
    view = protocol_view(snapshot, "prw")
    assert len(view.queries)
    assert len(view.gallery) == 0
    assert view.digest() == protocol_view(snapshot, "prw").digest()
    with pytest.raises(CatalogError, match="there is: prw"):
        protocol_view(snapshot, "TestG100")


def _add_test_frame(root: Path) -> None:
    plain = [cell[0] for cell in only_variable(root / "frame_test.mat")[1]]
    shutil.copy(root / "frames" / f"{plain[0]}.jpg", root / "frames" / "c1s1_999999.jpg")
    savemat(root / "annotations" / "c1s1_999999.jpg.mat", {"box_new": np.array([[-2.0, 1, 1, 9, 9]])})
    cells = np.empty((len(plain) + 1, 1), dtype=object)
    cells[:, 0] = [*plain, "c1s1_999999"]
    savemat(root / "frame_test.mat", {"img_index_test": cells})

"""COCO files and pictures that tests write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

Ingest = Callable[..., Any]
PERSON = [{"id": 1, "name": "person"}]


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (shade, shade, 9)).save(path)


def box(number: Any = 1, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": [10, 8, 12, 30], "iscrowd": 0, **more}


def write(
    path: Path,
    names: Iterable[str],
    annotations: Iterable[Mapping[str, Any]] | None = None,
    *,
    images: Iterable[Mapping[str, Any]] | None = None,
    categories: Any = PERSON,
) -> None:
    """A COCO file of images with these names and one box each, unless told otherwise."""
    listed = list(images or ({"id": n, "file_name": name} for n, name in enumerate(names, start=1)))
    rows = list(annotations) if annotations is not None else [box(n, n) for n in range(1, len(listed) + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": listed, "annotations": rows, "categories": categories}))


def column(snapshot: Any, table: str, name: str) -> list[Any]:
    return list(snapshot.table(table)[name].to_pylist())

"""Single files: .mat, images, weights, the tables of `score`."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image
from scipy.io import savemat

from benchmarks.hostile import chunk, jpeg_of_many_scans, png, text_bomb
from data_catalog.images import ImageFile, read_header
from data_catalog.matfile import read_mat
from data_catalog.matstream import StructStream, named_boxes
from data_catalog.synthetic import write_protocol
from flows.cli.protocol_files import Subsets, read_protocol
from flows.cli.score_inputs import SearchFiles, read_boxes, read_listed, read_prw
from flows.cli.score_options import standard_setting
from personsearch_core.data.decoding import read_image
from personsearch_core.evaluation import tables
from personsearch_core.evaluation.front import evaluate
from personsearch_core.models.states import load_weights, save_weights
from personsearch_core.recipes import EvaluationRecipe
from tests.fuzz.edits import Edit, Edits, Tree, of_tree
from tests.fuzz.target import Target, all_of

# .mat: elements whose tags, sizes and dimensions need not fit (MAT-File Format, chapter "Level 5").

_SIZES = st.sampled_from((0, 1, 2, 3, 4, 8, 16, 65_536, 2**31 - 1, 2**32 - 1))


def _tagged(kind: int, data: bytes, claimed: int | None = None) -> bytes:
    size = len(data) if claimed is None else claimed
    return struct.pack("<II", kind, size) + data + bytes(-len(data) % 8)


@st.composite
def _elements(draw: Any) -> bytes:
    kind = draw(st.sampled_from((1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 15, 16, 17, 18, 99)))
    data = draw(st.binary(max_size=24))
    if draw(st.booleans()) and len(data) <= 4:  # a small element
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return _tagged(kind, data, draw(st.none() | _SIZES))


@st.composite
def _matrices(draw: Any, inner: SearchStrategy[bytes]) -> bytes:
    flags = struct.pack("<II", draw(st.integers(0, 20)) | draw(st.sampled_from((0, 0x0400, 0x0800))), 0)
    dims = draw(st.lists(st.one_of(st.integers(-1, 3), _SIZES.map(lambda n: min(n, 2**31 - 1))), max_size=4))
    body = _tagged(6, flags) + _tagged(5, struct.pack(f"<{len(dims)}i", *dims))
    body += _tagged(1, draw(st.sampled_from((b"", b"x", b"Train", b"\xff\0"))))
    if draw(st.booleans()):
        body += _tagged(5, struct.pack("<i", draw(st.integers(-1, 9)))) + _tagged(
            1, draw(st.binary(max_size=16))
        )
    body += b"".join(draw(st.lists(inner, max_size=3)))
    return _tagged(14, body, draw(st.none() | st.none() | _SIZES))


_matrix = st.recursive(_elements(), _matrices, max_leaves=8)


def _packed(matrix: bytes, how: str) -> bytes:
    if how == "bomb":
        return _tagged(15, zlib.compress(matrix + bytes(64 << 20), 9))
    return _tagged(15, zlib.compress(matrix)) if how == "packed" else matrix


def _mat_files(tree: Tree) -> SearchStrategy[Edits]:
    header = b"MATLAB 5.0".ljust(124) + b"\0\x01IM"
    how = st.sampled_from(("plain",) * 6 + ("packed",) * 3 + ("bomb",))
    parts = st.lists(st.builds(_packed, _matrix, how), min_size=1, max_size=2)
    grown = parts.map(
        lambda each: (Edit("grown.mat", "whole", (), (header + b"".join(each)).decode("latin-1")),)
    )
    return st.one_of(grown, of_tree(tree))


def _write_mat(folder: Path) -> None:
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = "name", np.array([[1, 2]], np.uint8)
    savemat(folder / "a.mat", {"s": {"name": "x", "cells": cells}, "n": np.eye(3)})
    savemat(folder / "packed.mat", {"s": {"name": "x", "cells": cells}}, do_compression=True)
    write_protocol(folder / "TestG50.mat", queries=2, gallery=4, images=9)


def _read_mat(folder: Path) -> None:
    files = sorted(folder.glob("*.mat"))
    streams = [path for path in files if path.name in ("TestG50.mat", "grown.mat")]
    all_of([*(partial(read_mat, path) for path in files), *(partial(_read_stream, path) for path in streams)])


def _read_stream(path: Path) -> None:
    with StructStream(path) as stream:
        for value in stream:
            for each in value.values():
                named_boxes(each, stream.order)


# Images


def _write_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    grey = (pixels[:, :, 0].astype(np.uint16) << 8) | 7
    image = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "a.jpg", exif=turned)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "a.png", exif=turned)
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(grey).save(folder / "deep.png")
    Image.fromarray(grey).save(folder / "deep.tif")
    image.convert("CMYK").save(folder / "cmyk.tif", compression="tiff_lzw")
    image.save(folder / "a.tiff", exif=turned)
    image.save(folder / "a.bmp")
    image.save(folder / "a.webp")
    image.save(folder / "frames.gif", save_all=True, append_images=[image.rotate(90)])


def _hostile_images(tree: Tree) -> SearchStrategy[Edits]:
    sizes = st.sampled_from((0, 1, 8, 4_000, 20_000, 65_500, 2**31 - 1, 2**32 - 1))
    made = st.one_of(
        st.builds(lambda width, height: _claiming(width, height), sizes, sizes),
        st.just(png(9_000, 9_000)),
        st.just(text_bomb(8)),
        st.just(jpeg_of_many_scans(2_000)),
    )
    return st.one_of(
        of_tree(tree),
        of_tree(tree),
        made.map(lambda data: (Edit("made.png", "whole", (), data.decode("latin-1")),)),
    )


def _claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its pixels do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(99))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _read_images(folder: Path) -> None:
    all_of(
        partial(read, path)
        for path in sorted(folder.iterdir())
        for read in (_read_whole, _read_rgb, _read_upload)
    )


def _read_whole(path: Path) -> None:
    read_header(path, decode=True)


def _read_rgb(path: Path) -> None:
    assert ImageFile(path).rgb().size[::-1] == tuple(read_image(path).shape[1:])


def _read_upload(path: Path) -> None:
    read_image(path.read_bytes() if path.is_file() else b"", max_pixels=50_000_000)


# Weights


def _write_weights(folder: Path) -> None:
    state = {
        "a.weight": torch.ones(2, 3),
        "a.bias": torch.zeros(2),
        "half": torch.ones(4, dtype=torch.float16),
    }
    save_weights(folder / "a.safetensors", state, {"branch": "{}"})
    torch.save(state, folder / "a.pth")
    torch.save({"model": state, "epoch": 3}, folder / "checkpoint.pth")


def _read_weights(folder: Path) -> None:
    all_of(partial(load_weights, path) for path in sorted(folder.iterdir()))


# The tables of `score`


def _write_tables(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = [f"i{number}" for number in range(4)]

    def boxes(names: list[str], **more: Any) -> pa.Table:
        corners = {
            name: [side] * len(names) for name, side in zip(tables.BOX, (1.0, 2.0, 30.0, 60.0), strict=True)
        }
        return pa.table({"image": names, **corners, **more})

    vectors = pa.array(rng.standard_normal((8, 4)).astype(np.float32).tolist(), pa.list_(pa.float32()))
    found = boxes([*images, *images], score=[0.9, 0.8, 0.7, 0.9, 0.2, 0.1, 0.2, 0.3], embedding=vectors)
    people = ["a", "b", "a", "b"]
    queries = boxes(images[:2], query=[0, 1], person_id=people[:2], embedding=vectors[:2])
    truth = boxes(images, person_id=people, ignore=[False] * 4, embedding=vectors[:4])
    pq.write_table(found, folder / "detections.parquet")
    pq.write_table(queries, folder / "queries.parquet")
    pq.write_table(truth, folder / "boxes.parquet")
    pq.write_table(pa.table({"image": images, "camera_id": [1, 2, 2, 1]}), folder / "images.parquet")


def _score(folder: Path) -> None:
    names = ("detections", "queries", "images", "boxes")
    detections, queries, images, boxes = (folder / f"{name}.parquet" for name in names)
    all_of(
        (
            lambda: _scored(read_prw(detections, queries, images, boxes, truth_embeddings=True)),
            lambda: read_boxes(detections, images, boxes),
        )
    )


def _scored(files: SearchFiles) -> None:
    results = evaluate(EvaluationRecipe(protocol="prw"), files.inputs, settings=[standard_setting(0.5)])
    assert all(((search.result.ap >= 0) & (search.result.ap <= 1)).all() for search in results.searches)


def _write_listed(folder: Path) -> None:
    write_protocol(folder / "TestG50.mat", queries=2, gallery=4, images=9)
    protocol = read_protocol(folder / "TestG50.mat", None)
    asked = protocol.queries
    vectors = pa.array([[1.0, 0.5], [0.5, 1.0]], pa.list_(pa.float32()))
    corners = {name: asked[name] for name in tables.BOX}
    queries = pa.table({"query": [0, 1], "image": asked["image_id"], **corners, "embedding": vectors})
    pq.write_table(queries, folder / "queries.parquet")
    listed = protocol.gallery["image_id"].cast(pa.string()).combine_chunks().unique().to_pylist()
    count = len(listed)
    found = {
        "image": listed, "x1": [1.0] * count, "y1": [1.0] * count, "x2": [30.0] * count, "y2": [60.0] * count,
        "score": [0.9] * count, "embedding": pa.array([[1.0, 0.1]] * count, pa.list_(pa.float32())),
    }  # fmt: skip
    pq.write_table(pa.table(found), folder / "detections.parquet")


def _score_listed(folder: Path) -> None:
    found = tables.open_detections(folder / "detections.parquet", embeddings=True)
    queries = tables.open_queries(folder / "queries.parquet", person_id=False)
    file = folder / "TestG50.mat"
    protocol = read_protocol(file, folder.with_name("cache"))
    files = read_listed(found, queries, protocol, file, Subsets(), None, whole=False)
    evaluate(EvaluationRecipe(protocol="cuhk_sysu"), files.inputs, settings=[standard_setting(0.5)])


TARGETS = [
    Target("mat", _write_mat, _read_mat, _mat_files),
    Target("images", _write_images, _read_images, _hostile_images),
    Target("weights", _write_weights, _read_weights),
    Target("score prw", _write_tables, _score),
    Target("score cuhk-sysu", _write_listed, _score_listed),
]

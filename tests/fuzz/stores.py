"""What `storage` reads: a feature store's metadata, index and shards; URLs of stores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from storage.feature_store import (
    create_features,
    open_features,
    summarise_features,
    verify_features,
    write_index,
)
from storage.opening import open_store
from tests.fuzz.edits import Edit, Edits, Tree, of_tree, values
from tests.fuzz.target import Target, all_of
from tests.storage.feature_store.conftest import make_index

# Feature stores

_METADATA = "store/features/zarr.json"


def _write_features(folder: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((6, 2, 3, 2)).astype(np.float16)
    for name, compression in (("store", "none"), ("packed", "zstd")):
        with create_features(
            folder / name, 6, (2, 3, 2), rows_per_shard=4, compression=compression
        ) as writer:  # type: ignore[arg-type]
            writer.write(0, rows)
        write_index(folder / name, make_index(6))


_SIDES = st.sampled_from((0, 1, 2, 3, 6, 256, 10**6, 10**9, 2**31, 2**62, -1))
_SHAPES = st.lists(_SIDES, min_size=0, max_size=5)
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CODECS = st.one_of(
    st.just(_BYTES),
    st.builds(lambda order: {"name": "transpose", "configuration": {"order": order}}, _SHAPES),
    st.builds(lambda level: {"name": "gzip", "configuration": {"level": level}}, values),
    st.builds(lambda level: {"name": "zstd", "configuration": {"level": level, "checksum": False}}, values),
    st.builds(
        lambda size, name: {
            "name": "blosc",
            "configuration": {
                "cname": name,
                "clevel": 9,
                "shuffle": "shuffle",
                "typesize": size,
                "blocksize": size,
            },
        },
        _SIDES,
        st.sampled_from(("zstd", "lz4", "x")),
    ),
    st.builds(
        lambda name: {"name": name},
        st.sampled_from(("crc32c", "vlen-utf8", "vlen-bytes", "numcodecs.zlib", "x")),
    ),
)


def _sharding(codecs: list[Any], chunk: list[int], index: list[Any]) -> dict[str, Any]:
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": chunk, "codecs": codecs, "index_codecs": index, "index_location": "end",
        },
    }  # fmt: skip


_CHAINS = st.recursive(
    st.lists(_CODECS, max_size=3),
    lambda inner: st.builds(
        lambda *parts: [_sharding(*parts)], inner, _SHAPES, st.lists(_CODECS, max_size=2)
    ),
    max_leaves=4,
)


def _hostile_metadata(tree: Tree) -> SearchStrategy[Edits]:
    def at(*path: Any, new: SearchStrategy[Any]) -> SearchStrategy[Edit]:
        return new.map(lambda value: Edit(_METADATA, "value", path, value))

    grid = ("chunk_grid", "configuration", "chunk_shape")
    row = st.lists(_SIDES, min_size=3, max_size=3)
    same_rows = st.builds(  # shapes that fit together, so that they are believed
        lambda n, shard, sides: (
            Edit(_METADATA, "value", ("shape",), [n, *sides]),
            Edit(_METADATA, "value", grid, [shard, *sides]),
            Edit(_METADATA, "value", ("codecs", 0, "configuration", "chunk_shape"), [1, *sides]),
        ),
        _SIDES,
        _SIDES,
        row,
    )
    rows_alone = st.builds(
        lambda n, shard: (
            Edit(_METADATA, "value", ("shape", 0), n),
            Edit(_METADATA, "value", (*grid, 0), shard),
        ),
        _SIDES,
        _SIDES,
    )
    codecs = st.lists(
        st.one_of(
            at("codecs", new=_CHAINS),
            at("codecs", 0, "configuration", "codecs", new=_CHAINS),
            at("codecs", 0, "configuration", "index_codecs", new=_CHAINS),
            at("shape", new=_SHAPES),
            at(*grid, new=_SHAPES),
            at(
                "data_type", new=st.sampled_from(("float64", "bool", "string", "r4096", "complex128", "int4"))
            ),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple)
    return st.one_of(same_rows, rows_alone, codecs, of_tree(tree))


def _read_features(folder: Path) -> None:
    stores = (folder / "store", folder / "packed")
    readings = (_read_rows, verify_features, summarise_features)
    all_of(partial(read, store) for store in stores for read in readings)


def _read_rows(store: Path) -> None:
    with open_features(store) as reader:
        _ = reader.index
        if len(reader):
            reader.rows([0, min(5, len(reader) - 1)])


# URLs of stores

_SCHEMES = st.sampled_from(
    ("s3", "gs", "http", "https", "file", "memory", "zip", "tar", "reference", "simplecache", "blockcache",
     "github", "git", "ftp", "sftp", "hdfs", "dask", "local", "data", "x", "", "libarchive", "dir",
     "jupyter", "asynclocal", "generic", "hf", "abfs", "smb", "lakefs", "wandb", "oci", "root", "dbfs",
     "webhdfs", "dropbox", "gdrive")
)  # fmt: skip
_PLACES = st.sampled_from(
    ("", "/", "x", "x/y", "bucket", "bucket/", "/tmp/none", "{folder}/x.zip", "{folder}", "127.0.0.1:1",
     "[", "[::1", "user:word@x:99999/y", "x?a=b", "x#y", "%00", "..", "../..", "a//b", "\\x", "é", " ",
     "text/plain,x", "x:y", "*")
)  # fmt: skip


def _urls(_: Tree) -> SearchStrategy[Edits]:
    one = st.builds(lambda scheme, place: f"{scheme}://{place}", _SCHEMES, _PLACES)
    chained = st.lists(one, min_size=2, max_size=3).map("::".join)
    headless = st.builds(lambda scheme, rest: f"{scheme}::{rest}", _SCHEMES, one)
    plain = st.one_of(_PLACES, st.text(max_size=6))
    url = st.one_of(one, chained, chained, headless, plain).filter(lambda text: _is_latin(text))
    return url.map(lambda text: (Edit("url.txt", "whole", (), text),))


def _is_latin(text: str) -> bool:
    return all(ord(character) < 256 for character in text)


def _write_url(folder: Path) -> None:
    (folder / "url.txt").write_bytes(b"{folder}/store")
    (folder / "x.zip").write_bytes(b"PK\x05\x06" + bytes(18))


def _open_url(folder: Path) -> None:
    url = (folder / "url.txt").read_bytes().decode("latin-1").replace("{folder}", str(folder))
    all_of(
        (
            lambda: open_store(url).exists(),
            lambda: open_store(url).kinds(),
            lambda: list(open_store(url).keys("features")),
        )
    )


TARGETS = [
    Target("zarr", _write_features, _read_features, _hostile_metadata),
    Target("store url", _write_url, _open_url, _urls),
]

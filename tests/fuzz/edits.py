"""Damage to valid files: edits that are data, so that a finding is kept as a few lines of JSON.

A JSON document is edited by its paths, a safetensors file by its header, a Parquet file by its columns, and
any file by its bytes. Bytes are kept as text in Latin-1.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Tree = dict[str, bytes]
"""The files of a valid input, by their paths below its folder."""
How = Literal["whole", "splice", "number", "value", "header", "column", "kind"]

REMOVED = {"$": "removed"}
OUTSIDE = "outside"
"""A folder beside an input's own that nothing may touch; see `limits`."""
_LONG = 1 << 20
_RAW = "\ue000raw\ue000"
_KINDS = ("missing", "folder", "loop", "pipe", "zero")


@dataclass(frozen=True)
class Edit:
    """One change of one file.

    whole: `value` is its content. splice: `value` in the place of the bytes `at` = (start, stop), modulo the
    file's length. number: the 32 bits at word `at` are `value`. value, header: `value` at the path `at` of a
    document. column: `value` = (what, argument) is done to the column `at`. kind: it becomes `value`.
    """

    file: str
    how: How
    at: tuple[Any, ...] = ()
    value: Any = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> Edit:
        return cls(body["file"], body["how"], tuple(body.get("at", ())), body.get("value"))

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


Edits = tuple[Edit, ...]


def lay_out(tree: Tree, folder: Path, edits: Edits, pristine: Path | None = None) -> None:
    """Write a valid input into an empty folder, and damage it. An edit that does not fit is left out.

    Long files that stay as they are may be links to those of a `pristine` folder.
    """
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if pristine is not None and len(content) >= _LONG:
            os.link(pristine / name, folder / name)
        else:
            (folder / name).write_bytes(content)
    raw: set[str] = set()
    for edit in edits:
        path = folder / edit.file
        if edit.how in ("whole", "splice", "number"):
            raw.add(edit.file)
        elif edit.file in raw:
            continue  # a document is edited by its parser, which damaged bytes may hang
        if edit.how == "kind":
            _become(path, edit.value)
        elif edit.how == "whole" or path.is_file():
            content = _bytes(edit.value) if edit.how == "whole" else _changed(path.read_bytes(), edit)
            _become(path, "missing")
            if not path.exists():
                path.write_bytes(content)


def _changed(content: bytes, edit: Edit) -> bytes:
    if edit.how == "splice":
        start, stop = sorted(int(place) % (len(content) + 1) for place in edit.at)
        return content[:start] + _bytes(edit.value) + content[stop:]
    if edit.how == "number":
        start = 4 * (int(edit.at[0]) % max(1, len(content) // 4))
        return content[:start] + struct.pack("<I", edit.value) + content[start + 4 :]
    try:
        if edit.how == "value":
            return document(content, edit)
        if edit.how == "header":
            size = int.from_bytes(content[:8], "little")
            header = document(content[8 : 8 + size], edit)
            return len(header).to_bytes(8, "little") + header + content[8 + size :]
        return _with_column(content, edit)
    except (
        *(ValueError, TypeError, LookupError, OSError, OverflowError, RecursionError),
        *(yaml.YAMLError, pa.ArrowException),
    ):
        return content  # another edit has damaged the file before


def _bytes(value: Any) -> bytes:
    """Text in Latin-1, or ("repeated", text, times, end)."""
    if isinstance(value, str):
        return value.encode("latin-1")
    text, times, *end = value
    return text.encode("latin-1") * times + "".join(end).encode("latin-1")


def _become(path: Path, kind: str) -> None:
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")


def document(content: bytes, edit: Edit) -> bytes:
    """A JSON or YAML document with a value set, or removed."""
    is_yaml = edit.file.endswith((".yaml", ".yml"))
    text = content.decode()
    value = yaml.safe_load(text) if is_yaml else json.loads(text)
    raw = ""
    new = edit.value
    if isinstance(new, dict) and "raw" in new:
        raw, new = _bytes(new["raw"]).decode("latin-1"), _RAW
    value = _set(value, edit.at, new)
    dumped = yaml.safe_dump(value, sort_keys=False) if is_yaml else json.dumps(value)
    return dumped.replace(json.dumps(_RAW), raw).replace(_RAW, raw).encode("utf-8", "surrogatepass")


def _set(value: Any, at: Sequence[Any], new: Any) -> Any:
    if not at:
        return new
    first, *rest = at
    if isinstance(value, list):
        value = list(value)
        if not rest and new == REMOVED:
            del value[first]
        else:
            value[first] = _set(value[first], rest, new)
        return value
    if not rest and new == REMOVED:
        return {name: each for name, each in value.items() if name != first}
    return {**value, first: _set(value.get(first), rest, new) if rest else new}


def _with_column(content: bytes, edit: Edit) -> bytes:
    table = pq.read_table(pa.BufferReader(content))
    what, *more = edit.value
    name = edit.at[0]
    place = table.column_names.index(name)
    if what == "drop":
        table = table.drop_columns([name])
    elif what == "twice":
        table = table.append_column(name, table[name])
    elif what == "empty":
        table = table.slice(0, 0)
    elif what == "metadata":
        table = table.replace_schema_metadata({"content": more[0]})
    elif what == "type":
        table = table.set_column(place, name, _as(table[name], more[0]))
    elif values := table[name].to_pylist():  # one of them
        row, value = more
        values[int(row) % len(values)] = value
        try:
            column = pa.array(values, table[name].type)
        except (pa.ArrowException, TypeError, OverflowError):
            column = pa.array(values)
        table = table.set_column(place, name, column)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written


TYPES = {
    "string": pa.string(), "binary": pa.binary(), "int64": pa.int64(), "uint64": pa.uint64(),
    "double": pa.float64(), "half": pa.float16(), "bool": pa.bool_(), "null": pa.null(),
    "decimal": pa.decimal128(38, 2), "time": pa.timestamp("ns"), "list": pa.list_(pa.float32()),
    "lists": pa.list_(pa.list_(pa.float64())), "struct": pa.struct([("a", pa.int8())]),
    "dictionary": pa.dictionary(pa.int32(), pa.string()), "map": pa.map_(pa.string(), pa.int8()),
}  # fmt: skip


def _as(column: pa.ChunkedArray, kind: str) -> pa.Array | pa.ChunkedArray:
    try:
        return column.cast(TYPES[kind])
    except pa.ArrowException:
        return pa.nulls(len(column), TYPES[kind])


ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 2**31, 2**63, 2**64, 10**6, 10**9, -(10**9), 10**40, math.inf,
    -math.inf, math.nan, 1e-320, "", "x", "person", " ", "../../outside/secret",
    f"../{OUTSIDE}/secret.jpg", "/etc/passwd", "\0", "a\nb", "é\u202e", "NaN", "0x7fc00000", "1e999", "[",
    "${HOME}", "~", "~nobody/x", "!!python/name:os.system", [], [[]], {}, {"a": 1}, [1e9] * 5, [None],
    ["x"] * 3, [0, 0, 0, 0], [-1, 2, "3", None], {"": {}}, {"raw": ("[", 20_000)}, {"raw": ("[", 20_000,
    "0" + "]" * 20_000)}, {"raw": ('{"a":', 5_000, "0" + "}" * 5_000)}, {"raw": ("9", 5_000)},
    {"raw": "1e400"}, {"raw": "NaN"}, {"raw": '"\\ud800"'}, REMOVED,
)  # fmt: skip
TOKENS = (
    "NaN", "-1", "1e400", "99999999999999999999", f"../../{OUTSIDE}/secret.jpg", "/etc/passwd", "a\nb",
    "\0", "\xff\xfe", '"', "{", "}", "[", "]", ",", "\r\n", "null", "", "true", "&a", "*a", "<<: ", "!!",
    "<!ENTITY a '&b;'>", "&a;", "<a>", "-", ":", "0", "=",
)  # fmt: skip
values = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
)


def of_bytes(file: str) -> SearchStrategy[Edit]:
    """Damage that knows nothing of a file's format."""
    place = st.integers(0, 1 << 20)
    near = st.tuples(place, st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
    content = st.one_of(
        st.sampled_from(TOKENS),
        st.binary(max_size=6).map(lambda data: data.decode("latin-1")),
        st.sampled_from(TOKENS).map(lambda token: (token, 2_000)),
    )
    numbers = st.sampled_from((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF8, 0x10000000, 1 << 16))
    wholes = st.sampled_from(
        ("", "7", "[]", "[[]]", "{}", "null", '"x"', "PK\x03\x04", "\xef\xbb\xbf", "\0" * 99)
    )
    return st.one_of(
        st.builds(lambda at, value: Edit(file, "splice", at, value), near, content),
        st.builds(lambda at, value: Edit(file, "splice", at, value), st.tuples(place, place), content),
        st.builds(lambda at, value: Edit(file, "number", (at,), value), place, numbers),
        st.builds(lambda value: Edit(file, "whole", (), value), wholes),
    )


def of_kind(file: str) -> SearchStrategy[Edit]:
    """Something that is not a file, or nothing, in the place of a file."""
    return st.builds(lambda kind: Edit(file, "kind", (), kind), st.sampled_from(_KINDS))


def of_document(file: str, content: bytes, how: How = "value") -> SearchStrategy[Edit]:
    """An odd value somewhere in a JSON or YAML document, or a field more or less."""
    is_yaml = file.endswith((".yaml", ".yml"))
    places = list(_places(yaml.safe_load(content) if is_yaml else json.loads(content)))
    at = st.sampled_from(places)
    strange = st.tuples(at, st.text(max_size=4)).map(lambda pair: (*pair[0][:-1], pair[1]))
    return st.builds(lambda at, value: Edit(file, how, at, value), st.one_of(at, at, at, strange), values)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:3]):
            yield from _places(inner, (*at, number))


def of_table(file: str, content: bytes) -> SearchStrategy[Edit]:
    """A column of a Parquet file that is missing, repeated, of another type, or holds an odd value."""
    plain = st.one_of(
        st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5), st.just(3.5e38),
        st.lists(st.floats(), max_size=4), st.booleans(), st.just(f"../../{OUTSIDE}/secret.jpg"),
    )  # fmt: skip
    change = st.one_of(
        st.sampled_from((("drop",), ("twice",), ("empty",))),
        st.tuples(st.just("metadata"), st.text(max_size=3)),
        st.tuples(st.just("type"), st.sampled_from(sorted(TYPES))),
        st.tuples(st.just("value"), st.integers(0, 99), plain),
    )
    names = pq.read_schema(pa.BufferReader(content)).names
    return st.builds(lambda name, what: Edit(file, "column", (name,), what), st.sampled_from(names), change)


def of_file(file: str, content: bytes) -> SearchStrategy[Edit]:
    """Damage that fits a file's name, or any file."""
    fitting: list[SearchStrategy[Edit]] = [of_bytes(file), of_bytes(file), of_kind(file)]
    if file.endswith((".json", ".yaml", ".yml")):
        fitting = [of_document(file, content)] * 5 + fitting
    elif file.endswith(".parquet"):
        fitting = [of_table(file, content)] * 4 + fitting
    elif file.endswith(".safetensors"):
        size = int.from_bytes(content[:8], "little")
        fitting += [of_document(file, content[8 : 8 + size], "header")] * 3
    return st.one_of(fitting)


def of_tree(tree: Tree, most: int = 3) -> SearchStrategy[Edits]:
    """One to `most` edits of the files of a valid input, each file as likely as any other."""
    each = st.one_of([of_file(file, content) for file, content in sorted(tree.items())])
    return st.lists(each, min_size=1, max_size=most).map(tuple)


def read_tree(folder: Path) -> Tree:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

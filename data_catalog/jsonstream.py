"""The arrays of a long JSON object, in parts: a file of gigabytes needs the memory of a few megabytes.

numpy finds where the elements of an array end, and orjson parses many of them at once; an event parser would
take ten times as long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from data_catalog.errors import CatalogError
from data_catalog.files import open_file

BLOCK = 1 << 22
LARGEST_ELEMENT = 1 << 28
"""Bytes."""

GLANCE, GROWTH = 1 << 8, 16
"""Bytes that are looked at first for the end of a value, and how many times more each time that it is not
there: many small values cost what they hold.
"""

_STRUCTURE = bytes(byte in b'{}[]"' for byte in range(256))
_DEPTH = np.zeros(256, np.int64)
_DEPTH[list(b"{[")] = 1
_DEPTH[list(b"}]")] = -1
_QUOTE, _BACKSLASH, _COMMA, _NEWLINE = (ord(character) for character in '"\\,\n')
_WHITE_SPACE = np.frombuffer(b" \t\r\n", np.uint8)
_SPACES, _SPACES_AND_COMMAS = re.compile(rb"[ \t\r\n]*+"), re.compile(rb"[ \t\r\n,]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_END_OF_SCALAR = re.compile(rb"[,}]")


@dataclass(frozen=True)
class ArrayPart:
    """Some elements of an array: their text, separated by commas, and where each object or list among them
    ends.
    """

    path: Path
    start: int
    """Offset in the file."""
    text: bytes
    ends: np.ndarray

    @property
    def count(self) -> int:
        """Number of elements, where all are objects or lists."""
        return len(self.ends)

    def lines(self) -> bytes:
        """The elements, a line break instead of the comma between each two."""
        data = np.frombuffer(self.text, np.uint8).copy()
        after = self.ends + 1
        while len(after):
            after = after[after < len(data)]
            found = data[after]
            data[after[found == _COMMA]] = _NEWLINE
            after = after[np.isin(found, _WHITE_SPACE)] + 1
        return data.tobytes()

    def first(self, count: int) -> list[Any]:
        """The elements up to the `count`-th object or list, parsed; raises as `elements` does."""
        end = int(self.ends[count - 1]) + 1 if len(self.ends) > count else len(self.text)
        return ArrayPart(self.path, self.start, self.text[:end], self.ends[:count]).elements()

    def elements(self) -> list[Any]:
        """The elements, parsed.

        Raises:
            CatalogError: when they are not JSON.
        """
        try:
            return list(parse_json(b"[" + self.text + b"]"))
        except ValueError as error:
            raise CatalogError(
                f"{self.path}: not readable, near byte {self.start}: not JSON: {str(error)[:120]}"
            ) from error


def top_level_arrays(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, ArrayPart]]:
    """(key, some of its elements) for the arrays of the file's top-level object whose key is wanted, in
    order; of an empty array one part without elements.

    Raises:
        CatalogError: when the file cannot be read or is not JSON of that form.
    """
    with open_file(path) as file:
        yield from _Reader(path, file).arrays(wanted)


def parse_json(text: bytes) -> Any:
    """Parse JSON; NaN and infinities, which some writers leave in, are accepted.

    Raises:
        ValueError: when it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


class _Reader:
    """A window onto the file; what lies behind `at` is read already, and dropped when more is needed."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.start = 0
        """Offset in the file of the buffer's first byte."""
        self.buffer = file.read(BLOCK).removeprefix(b"\xef\xbb\xbf")
        self.at = 0

    def arrays(self, wanted: frozenset[str]) -> Iterator[tuple[str, ArrayPart]]:
        self._expect(b"{")
        if self._peek() == b"}":
            return
        while True:
            key = self._key()
            self._expect(b":")
            if self._peek() == b"[" and key in wanted:
                self.at += 1
                for end, ends in self._elements():
                    text = self.buffer[self.at : end]
                    yield key, ArrayPart(self.path, self.start + self.at, text, ends - self.at)
            else:
                self._skip_value()
            if self._peek() == b"}":
                return
            self._expect(b",")

    def _elements(self) -> Iterator[tuple[int, np.ndarray]]:
        """Parts of the array or object that has just been opened, from `at` on: where each ends, and its
        objects and lists. Ends behind the closing bracket.
        """
        first, size = True, GLANCE  # once the array is long, all that is read is looked at
        while True:
            if not first:  # its comma may have come with the next block
                self._skip(_SPACES_AND_COMMAS)
            positions, depths = self._structure(size)
            ends = np.flatnonzero(depths < 0)
            closed = int(ends[0]) if len(ends) else None
            if closed is None and self.at + size < len(self.buffer):
                size *= GROWTH
                continue
            complete = np.flatnonzero(depths[:closed] == 0)
            if closed is not None:
                cut = int(positions[closed])
                if first or self.buffer[self.at : cut].strip():
                    yield cut, positions[complete]
                self.at = cut + 1
                return
            if len(complete):
                cut = int(positions[complete[-1]]) + 1
                yield cut, positions[complete]
                self.at = cut
                first = False
            self._read_more()

    def _structure(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the buffer of brackets outside of strings, and the depth behind each, for the next
        `size` bytes.
        """
        text = self.buffer[self.at : self.at + size]
        data = np.frombuffer(text, np.uint8)
        positions = np.flatnonzero(np.frombuffer(text.translate(_STRUCTURE), bool))
        characters = data[positions]
        quotes = characters == _QUOTE
        if b"\\" in text:
            quotes &= ~_escaped(data, positions)
        outside = np.cumsum(quotes, dtype=np.int32) & 1 == 0
        brackets = outside & (characters != _QUOTE)
        return positions[brackets] + self.at, np.cumsum(_DEPTH[characters[brackets]])

    def _skip_value(self) -> None:
        first = self._peek()
        if first in (b"{", b"["):
            self.at += 1
            for _ in self._elements():
                pass
        elif first == b'"':
            self._key()
        else:
            while (end := _END_OF_SCALAR.search(self.buffer, self.at)) is None:
                self.at = len(self.buffer)
                self._read_more()
            self.at = end.start()

    def _key(self) -> str:
        """The string that comes next."""
        if self._peek() != b'"':
            raise self._damaged("expected a string")
        while (found := _STRING.match(self.buffer, self.at)) is None:
            self._read_more()
        try:
            key = parse_json(found[0])
        except ValueError as error:
            raise self._damaged(f"not JSON: {error}") from error
        self.at = found.end()
        return str(key)

    def _peek(self) -> bytes:
        """The next byte that is not white space."""
        self._skip(_SPACES)
        while self.at == len(self.buffer):
            self._read_more()
            self._skip(_SPACES)
        return self.buffer[self.at : self.at + 1]

    def _skip(self, what: re.Pattern[bytes]) -> None:
        found = what.match(self.buffer, self.at)
        self.at = found.end() if found is not None else self.at

    def _expect(self, character: bytes) -> None:
        if self._peek() != character:
            found = self.buffer[self.at : self.at + 20]
            raise self._damaged(f"expected {character.decode()!r}, found {found!r}")
        self.at += 1

    def _read_more(self) -> None:
        rest = self.buffer[self.at :]
        self.start += self.at
        self.at = 0
        self.buffer = rest
        more = self.file.read(max(BLOCK, len(rest)))
        if not more:
            raise self._damaged("it ends too early")
        if len(rest) > LARGEST_ELEMENT:
            raise self._damaged(f"one value has more than {LARGEST_ELEMENT} bytes")
        self.buffer += more

    def _damaged(self, why: str) -> CatalogError:
        return CatalogError(f"{self.path}: not readable, near byte {self.start + self.at}: {why}")


def _escaped(data: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Which of the positions follow an odd number of backslashes."""
    slashes = np.flatnonzero(data == _BACKSLASH)
    opens = np.diff(slashes, prepend=-2) != 1
    run_starts = np.maximum.accumulate(np.where(opens, slashes, 0))
    before = np.minimum(np.searchsorted(slashes, positions - 1), len(slashes) - 1)
    follows = slashes[before] == positions - 1
    return np.asarray(follows & ((positions - run_starts[before]) % 2 == 1))

"""The arrays of a long JSON object, in parts: a file of gigabytes needs the memory of a few megabytes.

numpy finds where the elements of an array end, and orjson parses many of them at once; an event parser would
take ten times as long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from data_catalog.errors import CatalogError

BLOCK = 1 << 22
LARGEST_ELEMENT = 1 << 28
"""Bytes."""

_STRUCTURE = np.zeros(256, bool)
_STRUCTURE[list(b'{}[]"')] = True
_DEPTH = np.zeros(256, np.int64)
_DEPTH[list(b"{[")] = 1
_DEPTH[list(b"}]")] = -1
_QUOTE, _BACKSLASH, _COMMA, _NEWLINE = (ord(character) for character in '"\\,\n')
_WHITE_SPACE = np.frombuffer(b" \t\r\n", np.uint8)


@dataclass(frozen=True)
class Part:
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

    def elements(self) -> list[Any]:
        """The elements, parsed.

        Raises:
            CatalogError: when they are no JSON.
        """
        try:
            return list(parse_json(b"[" + self.text + b"]"))
        except ValueError as error:
            raise CatalogError(
                f"{self.path}: not readable, near byte {self.start}: no JSON: {str(error)[:120]}"
            ) from error


def top_level_arrays(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, Part]]:
    """(key, some of its elements) for the arrays of the file's top-level object whose key is wanted, in
    order.

    Raises:
        CatalogError: when the file cannot be read or is not such JSON.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(path, file).arrays(wanted)
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(text: bytes) -> Any:
    """Parse JSON; NaN and infinities, which some writers leave in, are accepted.

    Raises:
        ValueError: when it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.start = 0
        """Offset in the file of the buffer's first byte."""
        self.buffer = file.read(BLOCK).removeprefix(b"\xef\xbb\xbf")

    def arrays(self, wanted: frozenset[str]) -> Iterator[tuple[str, Part]]:
        self._expect(b"{")
        if self._peek() == b"}":
            return
        while True:
            key = self._key()
            self._expect(b":")
            if self._peek() == b"[" and key in wanted:
                self._advance(1)
                for part in self._elements():
                    yield key, part
            else:
                self._skip_value()
            if self._peek() == b"}":
                return
            self._expect(b",")

    def _elements(self) -> Iterator[Part]:
        """Parts of the array that has just been opened; ends behind its closing bracket."""
        behind_element = False
        while True:
            if behind_element:  # its comma may have come with the next block
                self._skip_comma()
            positions, depths = self._structure()
            ends = np.flatnonzero(depths < 0)
            closed = int(ends[0]) if len(ends) else None
            complete = np.flatnonzero((depths[:closed] == 0) & (np.diff(depths[:closed], prepend=0) < 0))
            if closed is not None:
                cut = int(positions[closed])
                if self.buffer[:cut].strip():
                    yield self._part(cut, positions[complete])
                self._advance(cut + 1)
                return
            if len(complete):
                cut = int(positions[complete[-1]]) + 1
                yield self._part(cut, positions[complete])
                self._advance(cut)
                behind_element = True
            self._read_more()

    def _part(self, end: int, ends: np.ndarray) -> Part:
        return Part(self.path, self.start, self.buffer[:end], ends)

    def _structure(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of brackets outside of strings, and the depth behind each."""
        data = np.frombuffer(self.buffer, np.uint8)
        positions = np.flatnonzero(_STRUCTURE[data])
        characters = data[positions]
        quotes = characters == _QUOTE
        if b"\\" in self.buffer:
            quotes &= ~self._escaped(data, positions, quotes)
        outside = np.cumsum(quotes) % 2 == 0
        brackets = outside & (characters != _QUOTE)
        return positions[brackets], np.cumsum(_DEPTH[characters[brackets]])

    def _escaped(self, data: np.ndarray, positions: np.ndarray, quotes: np.ndarray) -> np.ndarray:
        """Which quotes follow an odd number of backslashes."""
        escaped = np.zeros(len(positions), bool)
        after = quotes & (positions > 0) & (data[np.maximum(positions - 1, 0)] == _BACKSLASH)
        for index in np.flatnonzero(after).tolist():
            before = self.buffer[: positions[index]]
            escaped[index] = (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
        return escaped

    def _skip_value(self) -> None:
        if self._peek() in (b"{", b"["):
            self._advance(1)
            while True:
                positions, depths = self._structure()
                ends = np.flatnonzero(depths < 0)
                if len(ends):
                    self._advance(int(positions[ends[0]]) + 1)
                    return
                complete = np.flatnonzero(depths == 0)
                if len(complete):
                    self._advance(int(positions[complete[-1]]) + 1)
                self._read_more()
        elif self._peek() == b'"':
            self._key()
        else:
            while self._peek() not in (b",", b"}"):
                self._advance(1)

    def _key(self) -> str:
        """The string at the buffer's start."""
        if self._peek() != b'"':
            raise self._damaged("expected a string")
        end = 1
        while True:
            end = self.buffer.find(b'"', end)
            if end < 0:
                end = len(self.buffer)
                self._read_more()
                continue
            before = self.buffer[1:end]
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                break
            end += 1
        try:
            key = parse_json(self.buffer[: end + 1])
        except ValueError as error:
            raise self._damaged(f"no JSON: {error}") from error
        self._advance(end + 1)
        return str(key)

    def _peek(self) -> bytes:
        """The next byte that is not white space, now at the buffer's start."""
        while True:
            left = self.buffer.lstrip(b" \t\r\n")
            self._advance(len(self.buffer) - len(left))
            if self.buffer:
                return self.buffer[:1]
            self._read_more()

    def _skip_comma(self) -> None:
        left = self.buffer.lstrip(b" \t\r\n,")
        self._advance(len(self.buffer) - len(left))

    def _expect(self, character: bytes) -> None:
        if self._peek() != character:
            raise self._damaged(f"expected {character.decode()!r}, found {self.buffer[:20]!r}")
        self._advance(1)

    def _advance(self, count: int) -> None:
        self.buffer = self.buffer[count:]
        self.start += count

    def _read_more(self) -> None:
        more = self.file.read(max(BLOCK, len(self.buffer)))
        if not more:
            raise self._damaged("it ends too early")
        if len(self.buffer) > LARGEST_ELEMENT:
            raise self._damaged(f"one value has more than {LARGEST_ELEMENT} bytes")
        self.buffer += more

    def _damaged(self, why: str) -> CatalogError:
        return CatalogError(f"{self.path}: not readable, near byte {self.start}: {why}")

"""XML from strangers, as a stream of elements: a file of 500 MB needs the memory of one block.

The standard library's expat reads it. Entities are refused where they are declared, so that nothing expands
and nothing is fetched; depth and the length of texts are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from data_catalog.files import open_file

BLOCK = 1 << 16
DEEPEST = 64
LONGEST_TEXT = 1 << 20
"""Characters within one element."""
MOST_CHILDREN = 1 << 20
"""Elements of a tree that is held as a whole."""


class DamagedXml(ValueError):
    """The file is not XML that may be read; `elements` says where."""


class Start(NamedTuple):
    """An element begins. `line` counts from 1."""

    tag: str
    attributes: Mapping[str, str]
    line: int


class End(NamedTuple):
    """An element ends; `text` is what stands directly in it, without white space around it."""

    tag: str
    text: str


@dataclass(frozen=True)
class Element:
    """An element of a small file, with all that is in it."""

    tag: str
    attributes: Mapping[str, str]
    line: int
    children: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What stands directly in it, without white space around it."""
        return self.texts[0] if self.texts else ""

    def child(self, tag: str) -> Element | None:
        """Its first child of that tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """The text of its first child of that tag; empty where there is none."""
        found = self.child(tag)
        return found.text if found is not None else ""


def elements(path: Path) -> Iterator[Start | End]:
    """Starts and ends of all elements, in the order of the file.

    Raises:
        CatalogError: when the file cannot be read.
        DamagedXml: when it is not XML, declares an entity, or is nested too deeply.
    """
    reader = _Reader()
    with open_file(path) as file:
        while block := file.read(BLOCK):
            yield from reader.feed(block)
    yield from reader.feed(b"", final=True)


def read_tree(path: Path) -> Element:
    """The root element of a small file with all that is in it; raises what `elements` raises."""
    top = Element("", {}, 0)
    open_elements = [top]
    count = 0
    for each in elements(path):
        if isinstance(each, Start):
            count += 1
            if count > MOST_CHILDREN:
                raise DamagedXml(f"it has more than {MOST_CHILDREN:,} elements")
            found = Element(each.tag, each.attributes, each.line)
            open_elements[-1].children.append(found)
            open_elements.append(found)
        else:
            open_elements.pop().texts.append(each.text)
    return top.children[0]


def root_tag(path: Path) -> str | None:
    """Tag of the root element; None when the file does not begin as XML does."""
    try:
        for each in elements(path):
            return each.tag
    except DamagedXml:
        pass  # whoever reads all of it says what is wrong
    return None


class _Reader:
    """Collects what expat finds in a block."""

    def __init__(self) -> None:
        self._found: list[Start | End] = []
        self._texts: list[list[str]] = []
        self._length = 0
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = self._refuse_entity
        parser.ExternalEntityRefHandler = self._refuse_entity
        self._parser = parser

    def feed(self, block: bytes, *, final: bool = False) -> list[Start | End]:
        self._found = []
        try:
            self._parser.Parse(block, final)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error.code))
            raise DamagedXml(f"line {error.lineno}, column {error.offset + 1}: {reason}") from error
        except DamagedXml:
            raise
        except (ValueError, LookupError) as error:  # an encoding that is declared and not known
            raise DamagedXml(f"its encoding is unknown ({error}): save it as UTF-8") from error
        return self._found

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._texts) >= DEEPEST:
            raise DamagedXml(f"line {self._parser.CurrentLineNumber}: nested more than {DEEPEST} deep")
        self._texts.append([])
        self._length = 0
        self._found.append(Start(tag, attributes, self._parser.CurrentLineNumber))

    def _end(self, tag: str) -> None:
        self._found.append(End(tag, "".join(self._texts.pop()).strip()))
        self._length = 0

    def _text(self, text: str) -> None:
        self._length += len(text)
        if self._length > LONGEST_TEXT:
            raise DamagedXml(
                f"line {self._parser.CurrentLineNumber}: a text of more than {LONGEST_TEXT:,} characters"
            )
        if self._texts:
            self._texts[-1].append(text)

    def _refuse_entity(self, *_: object) -> int:
        raise DamagedXml(
            f"line {self._parser.CurrentLineNumber}: it declares an entity, which is refused; "
            "write the text out in its place"
        )

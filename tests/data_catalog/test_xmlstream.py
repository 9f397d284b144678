"""XML as a stream: entities are refused, and damage is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_catalog.xmlstream import BLOCK, DEEPEST, DamagedXml, End, Start, elements, read_tree, root_tag

LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;">]>
<lolz>&c;</lolz>"""


def test_elements_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<a>\n <b x='1'> t&amp;u </b>\n <c/>\n</a>")
    assert list(elements(path)) == [
        Start("a", {}, 1), Start("b", {"x": "1"}, 2), End("b", "t&u"), Start("c", {}, 3), End("c", ""),
        End("a", ""),
    ]  # fmt: skip
    tree = read_tree(path)
    assert (tree.tag, tree.text_of("b"), tree.child("d"), tree.text_of("d")) == ("a", "t&u", None, "")


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://localhost/x.dtd"> %x;]><a/>',
        '<!DOCTYPE a [<!ENTITY x "harmless">]><a/>',
    ],
)
def test_entities_are_refused_where_they_are_declared(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DamagedXml, match=r"line \d+: it declares an entity"):
        read_tree(path)


def test_an_external_dtd_is_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f'<!DOCTYPE a SYSTEM "{(tmp_path / "gone.dtd").as_uri()}"><a>t</a>')
    assert read_tree(path).text == "t"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no element found"),
        (b"<a>\n<b>\n", "line 3.*no element found"),
        (b"<a></b>", "line 1, column 6.*mismatched tag"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not well-formed"),
        (b"<a>\xff</a>", "not well-formed"),
        (b"<?xml version='1.0' encoding='gbk'?><a/>", "encoding is unknown"),
        (b"<?xml version='1.0' encoding='no-such'?><a/>", "unknown encoding|encoding is unknown"),
        (b"<a>" * (DEEPEST + 1), "nested more than"),
        (b"<a>" + b"x" * (1 << 21), "a text of more than"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    with pytest.raises(DamagedXml, match=message):
        read_tree(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_encodings_of_exporters(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.xml"
    declared = "" if encoding == "utf-8-sig" else f"<?xml version='1.0' encoding='{encoding}'?>"
    path.write_bytes(f"{declared}<a>é</a>".encode(encoding))
    assert read_tree(path).text == "é"


def test_a_value_across_blocks_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"<a><!--{'x' * (BLOCK - 12)}-->{'<b>one value</b>' * 3}</a>")
    assert [each.text for each in elements(path) if isinstance(each, End) and each.tag == "b"] == [
        "one value"
    ] * 3


def test_the_root_is_known_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotation><object>")
    assert root_tag(path) == "annotation"
    path.write_text("junk")
    assert root_tag(path) is None

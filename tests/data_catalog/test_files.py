"""Paths that files name: many at once are judged as each by itself."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.files import (
    NameLookup,
    files_with_suffix,
    folders,
    image_files,
    path_fault,
    plain_name,
    suspicious,
    walk,
)

NAMES = st.lists(
    st.sampled_from(["a", "..", ".", "/", "é", "\n", "\\", "~", ":", "x.jpg", "-", "a" * 300]), max_size=8
)


@settings(deadline=None)
@given(st.lists(NAMES.map("".join), max_size=5))
def test_what_is_not_suspicious_has_no_fault(names: list[str]) -> None:
    found = suspicious(pa.array(names, pa.string())).tolist()
    assert all(strange or path_fault(name) is None for name, strange in zip(names, found, strict=True))


@pytest.mark.parametrize("name", ["a.jpg", "train2017/000000000785.jpg", "a_b/c-d/e,f.png"])
def test_usual_names_are_not_suspicious(name: str) -> None:
    assert suspicious(pa.array([name])).tolist() == [False]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_a_walk_follows_links_and_no_loop(tmp_path: Path) -> None:
    touch(tmp_path / "root", "b.jpg", "deep/er/a.JPG", "deep/notes.txt")
    touch(tmp_path / "elsewhere", "c.png", "more/d.tif")
    root = tmp_path / "root"
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again.jpg").symlink_to(root / "b.jpg")
    (root / "deep" / "up").symlink_to(root)
    (root / "itself").symlink_to("itself")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    images = ("again.jpg", "b.jpg", "deep/er/a.JPG", "linked/c.png", "linked/more/d.tif")
    assert image_files(root, "", recursive=True) == images
    assert walk(root) == (*images[:3], "deep/notes.txt", *images[3:])
    assert image_files(root, "") == ("again.jpg", "b.jpg")
    assert files_with_suffix(root, "deep", ".TXT") == ("deep/notes.txt",)
    assert folders(root) == ("deep", "linked") and folders(root, "nowhere") == ()


@pytest.mark.parametrize(
    "name",
    [
        "._a.jpg",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "__MACOSX/a.jpg",
        ".git/a.jpg",
        "@eaDir/a.jpg",
        "Icon\r",
    ],
)
def test_what_systems_leave_behind_is_not_data(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "a.jpg")
    assert walk(tmp_path) == ("a.jpg",)


def test_only_regular_files_are_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    assert image_files(tmp_path, "", recursive=True) == ()


def test_a_name_that_is_not_utf_8_is_told_by_its_fault(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))).write_bytes(b"")
    (name,) = image_files(tmp_path, "")
    assert path_fault(name) == "the name is not UTF-8"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("./a.jpg", "a.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        (".\\a\\.\\b.jpg", "a/b.jpg"),
        ("a//b.jpg", "a/b.jpg"),
        ("cafe\u0301.jpg", "café.jpg"),
        ("/a.jpg", "/a.jpg"),
        ("../a.jpg", "../a.jpg"),
        ("a..b/c.jpg", "a..b/c.jpg"),
    ],
)
def test_a_name_as_it_is_meant(given: str, meant: str) -> None:
    assert plain_name(given) == meant == plain_name(meant)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_file_is_found_however_its_name_is_spelled(form: Literal["NFC", "NFD"]) -> None:
    on_disk = unicodedata.normalize(form, "images/André.jpg")
    lookup = NameLookup([on_disk, "images/b.jpg"])
    for spelled in ("images/André.jpg", "./images\\Andre\u0301.jpg"):
        assert lookup.find(spelled) == on_disk
    assert lookup.find("images\\b.jpg") == "images/b.jpg" and lookup.find("images/c.jpg") is None


@given(st.lists(NAMES.map("".join), max_size=5))
def test_a_plain_name_stays_and_every_file_finds_itself(names: list[str]) -> None:
    assert all(plain_name(plain_name(name)) == plain_name(name) for name in names)
    assert all(NameLookup(names).find(name) == name for name in names)

"""YAML that people write by mistake, and YAML that hangs what reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.yaml_text import MOST_BYTES, MOST_DEPTH
from flows.config.loading import load_config
from flows.config.yaml_text import parse_yaml, read_yaml
from flows.errors import ConfigError


def _bomb(start: str, level: str) -> str:
    """Twelve levels, each of nine aliases of the one before."""
    lines = [f"a0: &a0 {start}"]
    lines += [f"a{i}: &a{i} " + level.replace("@", ", ".join([f"*a{i - 1}"] * 9)) for i in range(1, 12)]
    return "\n".join(lines)


_BOMB = _bomb("[x]", "[@]")
_MERGE_BOMB = _bomb("{x: 1}", "{<<: [@]}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"^f\.yaml: a appears twice, in lines 1 and 3; keep one$"),
        ("a:\n  b: 1\n  'b': 2\n", r"a\.b appears twice, in lines 2 and 3"),
        ("a: [{b: 1}, {c: 1, c: 2}]", r"a\.1\.c appears twice, in line 1, columns 14 and 20"),
        ('{"a": 1,\n "a": 2}', "a appears twice, in lines 1 and 2"),
        ("x: &x {p: 1}\ny: {<<: *x, q: 1, q: 2}", r"y\.q appears twice"),
        (
            "x: &x {p: 1}\ny:\n  <<: *x\n  <<: *x\n",
            r"y\.<< appears twice, in lines 3 and 4; name all of them",
        ),
        ("no: 1", r"'no' \(line 1\) is not read as text; put the name in quotes"),
        ("a:\n  1: x\n", r"a\.'1' \(line 2\) is not read as text"),
        ("? [a]\n: 1", "a list or a mapping"),
        ("a: &a [*a]", r"an alias \(\*\) stands for something that contains it"),
        (_BOMB, r"aliases \(\*\) stand for more than 100,000 values"),
        (_MERGE_BOMB, r"aliases \(\*\) stand for more than 100,000 values"),
        ("[" * 20_000, "more than 50 mappings or lists lie inside each other"),
        ("{a: " * 20_000, "more than 50 mappings or lists lie inside each other"),
        ("- " * 20_000, "more than 50 mappings or lists lie inside each other"),
        ("a: !!timestamp x", "a value does not fit its !!tag"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: 1\n---\nb: 1", "another document"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_one_message(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        parse_yaml(text, "f.yaml")
    assert "\n" not in str(raised.value)


def test_anchors_and_merges_are_taken() -> None:
    text = "x: &x {p: 1, q: 1}\ny: {<<: *x, p: 2}\nz: *x\nw: {<<: [*x, {r: 3}]}\n"
    found = parse_yaml(text, "f.yaml")
    assert found["y"] == {"p": 2, "q": 1} and found["z"] == found["x"]
    assert found["w"] == {"p": 1, "q": 1, "r": 3}
    assert parse_yaml("[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1), "f.yaml")
    assert parse_yaml("", "f.yaml") is None


@given(st.text("[]{}:,&*!|>-? \nab\"'<", max_size=60))
def test_any_text_is_a_value_or_one_message(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert str(error).startswith("f.yaml: ") and "\n" not in str(error)


def test_what_is_not_a_regular_file_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    zero = tmp_path / "zero.yaml"
    zero.symlink_to("/dev/zero")
    for path in (pipe, zero):
        with pytest.raises(ConfigError, match="it is a pipe or a device; name a YAML file"):
            read_yaml(path)
        own = tmp_path / "own.yaml"
        own.write_text(f"extends: {path.name}\n")
        with pytest.raises(ConfigError, match=r"own\.yaml: extends: cannot read the config"):
            load_config(own)
    with pytest.raises(ConfigError, match="it is a folder"):
        read_yaml(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_text("#" * (MOST_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_yaml(large)


def test_a_name_twice_in_an_extended_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("store: a\nstore: b\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(ConfigError, match=r"own\.yaml: extends: .*base\.yaml: store appears twice"):
        load_config(tmp_path / "own.yaml")


def test_a_json_config_is_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n\t"store": "a",\n\t"store": "b"\n}')
    with pytest.raises(ConfigError, match="store appears twice, in lines 2 and 3"):
        read_yaml(path)

"""Links of the documentation, as a checkout shows it; the menu of the site; files of the project's root."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import PROJECT

PAGES = sorted(
    path.relative_to(PROJECT).as_posix()
    for path in [*(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("*.md")]
    if "examples" not in path.parts
)
_LINK = re.compile(r"!?\[[^\]]*\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
GENERATED = re.compile(r"reference/(config|study|commands)\.md|(changelog|contributing)\.md|examples/\w+\.md")
"""Pages that docs/site makes."""


def anchors(page: Path) -> set[str]:
    """The names that headings have, by GitHub's rule."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in _HEADING.findall(text)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = PROJECT / name
    for target, anchor in _LINK.findall(_CODE.sub("", page.read_text())):
        found = (page.parent / target).resolve() if target else page
        if found.is_relative_to(PROJECT / "docs") and GENERATED.fullmatch(
            found.relative_to(PROJECT / "docs").as_posix()
        ):
            pytest.fail(f"{name}: {target} is a page of the site only; a checkout does not have it")
        assert found.exists(), f"{name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name}: {target}#{anchor}"


def entries(node: Any) -> list[str]:
    """The pages of a part of the menu, in order."""
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node
    return [page for child in children for page in entries(child)]


def test_the_menu_has_every_page_once() -> None:
    menu = entries(yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["nav"])
    assert len(menu) == len(set(menu))
    there = {name.removeprefix("docs/") for name in PAGES if name.startswith("docs/")}
    assert {page for page in menu if not GENERATED.fullmatch(page)} == there


def test_the_readme_names_the_documentation() -> None:
    readme = (PROJECT / "README.md").read_text()
    for page in ("docs/index.md", "docs/tutorials/scheduled-runs.md", "docs/machines.md", "CONTRIBUTING.md"):
        assert f"({page})" in readme


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert (citation["title"], str(citation["version"])) == (project["name"], project["version"])
    (paper,) = citation["references"]
    assert paper["title"] == citation["preferred-citation"]["title"]
    assert [author["family-names"] for author in paper["authors"]] == ["Loesch", "Rabarisoa", "Audigier"]


def test_the_container_has_everything_that_a_wheel_is_made_of() -> None:
    wheel = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names >= {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "constraints.txt"}
    sent = set((PROJECT / ".dockerignore").read_text().split())
    assert {f"!{name}" for name in names} <= sent
    assert all((PROJECT / name).exists() for name in names)

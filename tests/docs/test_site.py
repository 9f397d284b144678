"""The hooks that make the site, without building it: `make docs` does that."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

from flows.cli.main import COMMANDS
from flows.config.fields import config_fields
from tests.pages import PROJECT


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hook_{name}", PROJECT / "docs" / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_field_and_every_command() -> None:
    config = load_config(
        str(PROJECT / "mkdocs.yml"), hooks=[str(PROJECT / "docs" / "site" / "reference.py")], plugins=[]
    )
    made = config.plugins.run_event("files", Files([]), config=config)
    pages = {file.src_uri: file.content_string for file in made}
    for field in config_fields():
        assert f"`{field.path}` " in pages["reference/config.md"]
    for name in COMMANDS:
        assert f"## personsearch {name}\n" in pages["reference/commands.md"]
    assert "### personsearch store gc\n" in pages["reference/commands.md"]
    assert "`tables`" in pages["reference/study.md"]


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("operations.md", "[it](examples/nightly)", "[it](examples/nightly.md)"),
        ("tutorials/a.md", "[it](../examples/nightly)", "[it](../examples/nightly.md)"),
        ("a.md", "[it](examples/nightly/nightly.yaml)", "[it](examples/nightly/nightly.yaml)"),
        ("operations.md", "[prefect.yaml](../prefect.yaml)", "prefect.yaml"),
        ("tutorials/a.md", "[all](../../CHANGELOG.md#changed)", "[all](../changelog.md#changed)"),
        ("changelog.md", "[security](docs/security.md#x)", "[security](security.md#x)"),
        ("search.md", "[b](benchmarks.md#search) [here](#x)", "[b](benchmarks.md#search) [here](#x)"),
    ],
)
def test_links_of_a_checkout_become_links_of_the_site(page: str, written: str, shown: str) -> None:
    file = SimpleNamespace(src_uri=page)
    moved = hook("project_files").on_page_markdown(
        written, page=SimpleNamespace(file=file), config=None, files=None
    )
    assert moved == shown


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img alt="x" src=https://example.org/x.png>',
        "<style>a { background: url(https://example.org/x.png) }</style>",
    ],
)
def test_a_page_that_fetches_from_elsewhere_fails_the_build(text: str, tmp_path: Path) -> None:
    check = hook("nothing_from_elsewhere").on_post_build
    site = SimpleNamespace(site_dir=str(tmp_path))
    (tmp_path / "a.html").write_text('<a href="https://example.org">a link</a> <img src="own.png">')
    check(site)
    (tmp_path / "b.html").write_text(text)
    with pytest.raises(PluginError, match=r"b.html fetches from elsewhere"):
        check(site)


def test_a_drawing_becomes_part_of_the_page() -> None:
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(PROJECT / "docs" / "concepts.md")))
    shown = hook("pictures").on_page_markdown("![The stages](pictures/concepts.svg)", page=page)
    assert '<svg role="img" aria-label="The stages"' in shown and "![" not in shown
    assert "\n\n" not in shown.strip()  # a blank line would end the block of HTML

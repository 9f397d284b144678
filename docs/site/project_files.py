"""A hook of MkDocs: pages of files that lie outside `docs`, and of the examples; links to them lead there."""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "docs" / "examples"

PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the project's root that are pages of the site."""
ONLY_NAMED = {"README.md": "index.md"}
"""Those that the site has another page for."""
SUFFIXES = {".py": "python", ".yaml": "yaml", ".toml": "toml"}
_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per example and per file of the root."""
    for folder in sorted(path for path in EXAMPLES.iterdir() if path.is_dir()):
        files.append(File.generated(config, f"examples/{folder.name}.md", content=_example(folder)))
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(PROJECT / source).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they hold on a checkout of the project become links within the site, or plain text."""
    at = {name: source for source, name in PAGES.items()}.get(page.file.src_uri)
    folder = "." if at else normpath(f"docs/{page.file.src_uri}/..")
    here = normpath(f"{page.file.src_uri}/..")

    def moved(found: re.Match[str]) -> str:
        text, target, anchor = found[1], normpath(f"{folder}/{found[2]}"), found[3] or ""
        if target in PAGES | ONLY_NAMED:
            inside = (PAGES | ONLY_NAMED)[target]
        elif target.startswith("docs/"):
            is_example = (PROJECT / target).is_dir()  # which has a page; its files are there as they are
            inside = target.removeprefix("docs/") + ".md" * is_example
        else:
            return text
        return f"[{text}]({relpath(inside, here)}{anchor})"

    return _LINK.sub(moved, markdown)


def _example(folder: Path) -> str:
    """The files of an example, one after another."""
    parts = [f"# Example: {folder.name.replace('_', ' ')}\n\nThe files of `docs/examples/{folder.name}`.\n"]
    for file in sorted(folder.iterdir()):
        if file.suffix in SUFFIXES:
            parts.append(f"## {file.name}\n\n```{SUFFIXES[file.suffix]}\n{file.read_text()}```\n")
    return "\n".join(parts)

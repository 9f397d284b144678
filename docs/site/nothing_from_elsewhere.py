"""A hook of MkDocs: the build fails if opening a page would fetch anything from another host."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?=[^>]*rel=["']?(?:stylesheet|preload|prefetch|preconnect|icon))[^>]*href=["']?(?:https?:)?//"""
    r"""|@import\s+["']?(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//""",
    re.IGNORECASE,
)


def on_post_build(config: MkDocsConfig) -> None:
    """Look through every page and style sheet of the site."""
    site = Path(config.site_dir)
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        found = _FETCHED.search(file.read_text())
        if found is not None:
            raise PluginError(f"{file.relative_to(site)} fetches from elsewhere: {found[0][:200]}")

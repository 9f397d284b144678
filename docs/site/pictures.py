"""A hook of MkDocs: drawings become part of the page, so that they have its colours, light or dark.

As a file, which is how a checkout shows it, a drawing follows the system's preference.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from mkdocs.structure.pages import Page

_DRAWING = re.compile(r"!\[([^\]]*)\]\(([^)\s]+\.svg)\)")


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Put the text of each SVG file where the page shows it."""
    folder = Path(page.file.abs_src_path).parent if page.file.abs_src_path else Path()

    def drawn(found: re.Match[str]) -> str:
        text = (folder / found[2]).read_text()
        label = html.escape(found[1], quote=True)
        drawing = text.strip().replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        return f"\n<div>\n{drawing}\n</div>\n"

    return _DRAWING.sub(drawn, markdown)

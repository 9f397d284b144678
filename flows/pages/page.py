"""Render a page of the one design: a single HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.wording import duration
from storage.space import in_units

_DESIGN = Path(__file__).with_name("template")

SELF_CONTAINED = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy of a file: no scripts, pictures only inline."""
SERVED = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
)
"""Of a page that a server of ours gives out: scripts, pictures and requests of that server only."""


def render_page(
    folder: Path, template: str, *, title: str, lead: str, policy: str = SELF_CONTAINED, **values: object
) -> str:
    """The template of `folder`, which extends `base.html.j2`, as one HTML document.

    `title` is its heading, `lead` the sentence below. Everything inserted is escaped unless it is Markup; a
    name that the template uses and that was not given raises jinja2.UndefinedError.
    """
    style = Markup((_DESIGN / "style.css").read_text())
    page = _environment(folder).get_template(template)
    return page.render(title=title, lead=lead, policy=policy, style=style, **values)


def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, _DESIGN]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "duration": duration,
        "size": size,
        "count": "{:,}".format,
        "moment": moment,
        "named": _Namer(),
    }
    return environment


def percent(fraction: float | None) -> str:
    """A fraction as a number of percent, a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def size(n_bytes: int | None) -> str:
    """A number of bytes in its unit, a dash for None."""
    return "–" if n_bytes is None else in_units(n_bytes)


def moment(written: str) -> str:
    """A time of day in ISO 8601, as "29 November 2026, 08:04 UTC"."""
    at = datetime.fromisoformat(written).astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


class _Namer:
    """The filter `named` of one page; ids inside of SVGs are numbered, for they must differ on a page."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __call__(self, svg: Markup, name: str) -> Markup:
        """An `<svg ...>` element as a picture that screen readers call by its name."""
        own = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>s{next(self._numbers)}-", str(svg))
        opening, bracket, rest = own.partition(">")
        title = Markup("<title>{}</title>").format(name)
        return Markup(f'{opening} role="img"{bracket}{title}{rest}')

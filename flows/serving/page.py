"""The pages that the server gives out: the search, and where a token is entered."""

from __future__ import annotations

from pathlib import Path

from flows.pages.page import SERVED, render_page
from flows.serving.answers import About

FOLDER = Path(__file__).with_name("template")
SCRIPT = FOLDER / "search.js"


def search_page(about: About) -> str:
    """The search page of an index; the rest is up to its script."""
    return render_page(
        FOLDER,
        "search.html.j2",
        title="Search people",
        lead="Choose a picture of a person to see where else that person appears.",
        policy=SERVED,
        about=about,
    )


def sign_in_page(action: str, *, wrong: bool = False) -> str:
    """Asks for the token."""
    return render_page(
        FOLDER,
        "sign_in.html.j2",
        title="Search people",
        lead="This server asks for the token that was printed where it was started.",
        policy=SERVED,
        action=action,
        wrong=wrong,
    )

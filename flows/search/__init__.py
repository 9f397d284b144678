"""Search indexes: the people of folders, lists and videos, found once and searched many times.

Each name loads its part when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.search.building import build_index
    from flows.search.index import Index, open_index
    from flows.search.removing import remove_images
    from flows.search.results import Match, Results

_HOMES = {
    "Index": "index",
    "Match": "results",
    "Results": "results",
    "build_index": "building",
    "open_index": "index",
    "remove_images": "removing",
}

__all__ = ["Index", "Match", "Results", "build_index", "open_index", "remove_images"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

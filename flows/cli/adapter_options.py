"""What commands say about how a dataset is to be read."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from data_catalog.adapters import adapter_names, load_adapter
from data_catalog.errors import CatalogError
from flows.errors import ConfigError

log = logging.getLogger(__name__)


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """`key=value` texts as a mapping; raises ConfigError where one is none."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {text}: give key=value")
        options[key] = value
    return options


def fitting_adapter(root: Path, options: dict[str, str]) -> str:
    """The adapter whose layout the root has; raises CatalogError when none fits or several do.

    An adapter that is broken is left out, with a warning: it may be of a package that has nothing to do with
    this root.
    """
    if not root.is_dir():
        raise CatalogError(f"{root}: no such folder")
    fitting = []
    for name in adapter_names():
        try:
            adapter = load_adapter(name)
        except CatalogError as error:
            log.warning("left out: %s", error)
            continue
        try:
            adapter.discover(root, options)
        except CatalogError:
            continue
        except Exception as error:  # whatever a package of somebody else does
            log.warning("left out: adapter %r: %s: %s", name, type(error).__name__, error)
            continue
        fitting.append(name)
    if len(fitting) != 1:
        found = f"it could be {' or '.join(fitting)}" if fitting else "no adapter knows its layout"
        raise CatalogError(f"{root}: {found}; name the format with --adapter ({', '.join(adapter_names())})")
    return fitting[0]

"""The error that the catalog raises for input it cannot use."""

from __future__ import annotations


class CatalogError(ValueError):
    """Something about a dataset is wrong; the message says what, where (file, row, field) and what to do."""


class UnknownImage(CatalogError):
    """A dataset has no image of that id."""

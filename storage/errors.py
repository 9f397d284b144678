"""What the storage room raises for bad input."""

from __future__ import annotations


class StorageError(ValueError):
    """Stored bytes, or a request about them, that cannot be used.

    The message says what was wrong, where (file, shard, row) and what to do.
    """


class NewerVersionError(StorageError):
    """What a newer version of this software wrote: it is whole, and only an upgrade can use it."""

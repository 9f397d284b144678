"""Errors of the storage room."""


class StorageError(ValueError):
    """What is stored is damaged, does not fit or cannot be reached; the message says what and where."""

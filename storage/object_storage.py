"""What the clients of object stores leave to their callers: errors that are known everywhere, and times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from storage.errors import StorageError

_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


@contextmanager
def reaching() -> Iterator[None]:
    """Turn what an S3 client raises by itself into errors that are known everywhere.

    Raises ConnectionError when the server does not answer, which is worth another try, else StorageError.
    """
    try:
        from botocore.exceptions import BotoCoreError, HTTPClientError
        from botocore.exceptions import ConnectionError as NoConnection
    except ImportError:
        # Other object stores raise OSError by themselves.
        yield
        return
    try:
        yield
    except (HTTPClientError, NoConnection) as error:
        raise ConnectionError(str(error)) from error
    except BotoCoreError as error:
        raise StorageError(f"the object store cannot be used: {error}") from error


def modified(entry: Mapping[str, Any]) -> datetime:
    """When an object was written, as its file system says; where it does not, now."""
    found = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if not isinstance(found, datetime):
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)

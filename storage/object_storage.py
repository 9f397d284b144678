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
        yield
    except NotImplementedError as error:
        raise StorageError("this kind of URL cannot hold a store: its files cannot be listed") from error
    except Exception as error:
        told = _of_botocore(error)
        if told is None:  # other object stores raise OSError by themselves
            raise
        raise told from error


def _of_botocore(error: Exception) -> Exception | None:
    """What an error of the S3 client is known as everywhere; None for any other error."""
    try:
        from botocore.exceptions import (
            BotoCoreError,
            HTTPClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )
        from botocore.exceptions import ConnectionError as NoConnection
    except ImportError:
        return None
    if isinstance(error, HTTPClientError | NoConnection):
        return ConnectionError(str(error))
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageError(
            "the object store needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        )
    if isinstance(error, BotoCoreError):
        return StorageError(f"the object store cannot be used: {error}")
    return None


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


def tag_of(entry: Mapping[str, Any]) -> str:
    """A text that changes with an object's content: its entity tag, or else when it was written."""
    found = entry.get("ETag") or entry.get("etag")
    return str(found).strip('"') if found else modified(entry).isoformat()

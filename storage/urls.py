"""One notation for places: a local path, or an fsspec URL (`s3://`, `gs://`, `http://`, `memory://`, `file://`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from storage.errors import StorageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Location = str | Path


def is_remote(location: Location) -> bool:
    """True for a URL of anything but the local file system."""
    return isinstance(location, str) and "://" in location and not location.startswith("file://")


def names_a_place(url: str) -> bool:
    """Whether more than a scheme is given: `s3://` alone names no bucket."""
    return bool(url.partition("://")[2].strip("/"))


def local_path(location: Location) -> Path:
    """The local path that `location` names.

    Raises StorageError when it is the URL of something remote, or cannot be a path.
    """
    if is_remote(location):
        raise StorageError(f"{location} is not on this machine: give a local path")
    text = str(location)
    try:
        path = unquote(urlsplit(text).path) if text.startswith("file://") else text
    except ValueError as error:
        raise StorageError(f"{text} is not a valid URL: {error}") from error
    if "\0" in path:  # %00 in a URL
        raise StorageError(f"{text!r} is not a valid location: it contains a null character")
    return Path(path)


def join(location: Location, *parts: str) -> str:
    """`location` with `parts` appended, slash-separated; a query string stays at the end."""
    text = str(location)
    base, mark, query = text.partition("?") if is_remote(location) else (text, "", "")
    return "/".join((base.rstrip("/"), *parts)) + mark + query


def filesystem(url: str, **options: object) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of a URL, and the URL's path on it; `options` go to the file system.

    Raises StorageError when no driver for the scheme is installed, the driver refuses the URL, or the URL is
    a chain such as `zip://x::file://y`.
    """
    from fsspec.core import url_to_fs

    if "::" in url:
        raise StorageError(
            f"{url} cannot be opened: a chain of URLs (::) is not supported; name the place itself"
        )
    if url.startswith(("http://", "https://")):
        _require_host(url)
    try:
        system, path = url_to_fs(url, **options)
    except OSError:
        raise  # it says what was refused, and where
    except Exception as error:  # drivers raise nearly anything for a URL that they cannot read
        said = " ".join(str(error).split()) or type(error).__name__
        if said.startswith("Protocol not known"):
            said = f"{url.partition('://')[0]}:// is not known here; give a folder, or a URL such as s3://bucket/prefix"
        raise StorageError(f"{url} cannot be opened: {said}") from error
    return system, path


def _require_host(url: str) -> None:
    """Raise StorageError for a URL without a host that can be asked for: a client would say so much later."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        problem = "it names no host" if not host.encode("idna") or port == 0 else None
    except ValueError as error:  # UnicodeError, too
        problem = str(error)
    if problem is None and "\\" in parts.netloc:
        problem = "a host has no backslash"
    if problem is not None:
        raise StorageError(f"{url} is not a valid URL: {problem}")

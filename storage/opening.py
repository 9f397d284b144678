"""One way to open a store, wherever it is."""

from __future__ import annotations

from storage.errors import StorageError
from storage.local import LocalStore
from storage.store import Store
from storage.urls import is_remote, local_path, names_a_place


def open_store(location: str, *, verify_first: bool = False) -> Store:
    """The store at a folder, or at an object store's URL (`s3://bucket/prefix`).

    With `verify_first`, every file of an artifact is digested when the store first looks at it, whatever its
    size and time.

    Raises StorageError when no driver for the URL's scheme is installed, or the URL is a scheme alone.
    """
    if "\0" in location:
        raise StorageError(f"{location!r} is not a valid location of a store: it contains a null character")
    if is_remote(location):
        if not names_a_place(location):
            raise StorageError(
                f"{location} is not a valid location of a store: give the whole URL, such as s3://bucket/prefix"
            )
        from storage.remote import RemoteStore

        return RemoteStore(location, verify_first=verify_first)
    folder = local_path(location)
    if folder.is_file():
        raise StorageError(f"the store {location} is a file: name a folder, which need not exist yet")
    return LocalStore(folder, verify_first=verify_first)

"""A tag that is moved from one artifact to another: of several that move it at once, one does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from storage.errors import StorageError
from storage.local import LocalStore
from storage.remote import RemoteStore
from storage.store import Store
from storage.tags import move_tag, set_tag, tags
from tests.storage.making import make_artifact, name_of


@pytest.fixture(params=["local", "s3"])
def opened(request: pytest.FixtureRequest, s3: str, tmp_path: Path) -> Callable[[str], Store]:
    """One store, as processes of a machine or several machines open it."""
    if request.param == "local":
        return lambda _: LocalStore(tmp_path / "store")
    return lambda machine: RemoteStore(f"{s3}/{tmp_path.name}", tmp_path / machine)


def test_a_tag_moves_only_from_what_it_points_to(opened: Callable[[str], Store]) -> None:
    store = opened("one")
    first, second = (name_of(make_artifact(store, "reid", number)) for number in (1, 2))
    assert not move_tag(store, "production", second, first) and tags(store) == {}
    assert move_tag(store, "production", None, first) and tags(store) == {"production": first}
    assert not move_tag(store, "production", None, second), "it has one by now"
    assert not move_tag(store, "production", second, second)
    assert move_tag(store, "production", first, second) and tags(store) == {"production": second}
    assert move_tag(store, "production", second, second), "again"
    with pytest.raises(StorageError, match="has no artifact 'reid/none' to tag"):
        move_tag(store, "production", second, "reid/none")
    assert not store.swap_tag("production", first, None) and tags(store) == {"production": second}
    assert store.swap_tag("production", second, None) and tags(store) == {}
    assert store.swap_tag("production", None, None)


@pytest.mark.parametrize("before", [None, "reid/0"])
def test_of_two_that_move_a_tag_at_once_one_does(
    opened: Callable[[str], Store], before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second moves it, or waits, after the first has looked and before it writes."""
    one, two = opened("one"), opened("two")
    if before is not None:
        one.write_tag("production", before)
    looking = one._bucket if isinstance(one, RemoteStore) else one
    look = "read" if isinstance(one, RemoteStore) else "read_tags"
    as_before, done = getattr(looking, look), dict[str, bool]()
    second = threading.Thread(target=lambda: done.update(two=two.swap_tag("production", before, "reid/2")))

    def and_then_the_other(*args: str) -> object:
        found = as_before(*args)
        if second.ident is None:
            second.start()
            second.join(20 if isinstance(one, RemoteStore) else 0.2)  # locally, it waits
        return found

    monkeypatch.setattr(looking, look, and_then_the_other)
    done["one"] = one.swap_tag("production", before, "reid/1")
    second.join()
    assert sorted(done.values()) == [False, True]
    assert tags(two) == {"production": "reid/1" if done["one"] else "reid/2"}


@pytest.mark.parametrize("before", [None, "reid/1"])
def test_a_move_whose_answer_is_lost_has_happened(
    machines: tuple[RemoteStore, RemoteStore], before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    if before is not None:
        one.write_tag("production", before)
    put = one.system.pipe_file

    def put_twice(*args: object, **options: object) -> None:
        put(*args, **options)
        put(*args, **options)  # as the client does that got no answer

    monkeypatch.setattr(one.system, "pipe_file", put_twice)
    assert one.swap_tag("production", before, "reid/3") and tags(two) == {"production": "reid/3"}
    monkeypatch.setattr(one.system, "pipe_file", _refuse)
    with pytest.raises(PermissionError):
        one.swap_tag("production", "reid/3", "reid/4")


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_write_that_s3_refuses_by_its_condition_is_one_that_lost(
    machines: tuple[RemoteStore, RemoteStore], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = machines

    def lost(*_: object, **__: object) -> None:
        raise translate_boto_error(ClientError({"Error": {"Code": code, "Message": ""}}, "PutObject"))

    monkeypatch.setattr(one.system, "pipe_file", lost)
    assert not one.swap_tag("production", None, "reid/1")


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Access Denied")


def test_a_tag_taken_back_after_a_collection_leaves_what_another_has_set(tmp_path: Path) -> None:
    """The artifact goes just after it was tagged, and in that moment another process moves the tag."""
    store, other = LocalStore(tmp_path / "store"), LocalStore(tmp_path / "store")
    old, gone, new = (make_artifact(store, "reid", number) for number in (1, 2, 3))
    set_tag(store, "production", name_of(old))
    write = store.write_tag

    def then_the_rest_happens(tag: str, artifact: str) -> None:
        write(tag, artifact)
        other.remove(gone.kind, gone.key)
        other.write_tag(tag, name_of(new))

    store.write_tag = then_the_rest_happens  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="a collection has just deleted"):
        set_tag(store, "production", name_of(gone))
    assert tags(other) == {"production": name_of(new)}

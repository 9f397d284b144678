"""Small artifacts for the tests of this room."""

from __future__ import annotations

from storage.manifest import Identity
from storage.store import Artifact, Store


def make_artifact(
    store: Store,
    kind: str,
    seed: int = 0,
    *,
    sources: tuple[Artifact, ...] = (),
    content: bytes = b"rows",
) -> Artifact:
    """An artifact of two files that says it was made from `sources`."""
    inputs = {str(number): source.content_digest for number, source in enumerate(sources)}
    identity = Identity(kind=kind, version=1, recipe={"seed": seed}, inputs=inputs)
    with store.making(identity) as work:
        if work.made is not None:
            return work.made
        (work.path / "nested").mkdir(exist_ok=True)
        (work.path / "nested" / "data.bin").write_bytes(content)
        (work.path / "note.txt").write_text(f"{kind} {seed}")
        named = {str(number): f"{source.kind}/{source.key}" for number, source in enumerate(sources)}
        return work.commit(f"{kind}-{seed}", sources=named)


def name_of(artifact: Artifact) -> str:
    return f"{artifact.kind}/{artifact.key}"

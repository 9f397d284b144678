"""Rules for what a dataset's files do not bring: queries that are drawn, and splits.

They are applied by the ingest, after all rows are read, and are part of its key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

if TYPE_CHECKING:
    from data_catalog.snapshot import Snapshot

DRAWN = "drawn"
"""The protocol of drawn queries."""
LEFT_OUT = "left_out"
"""The split of images that belong to no part: the frames of a gap. They stay in the catalog, so that nothing
is lost without a word."""
FILE_NAME = "rules.json"


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class QueryRule(_Rule):
    """How queries are drawn from the identities of one split.

    An identity that holds within a sequence only is searched in the query's sequence; the gallery of any
    other is the whole split, without the query's image.
    """

    per_identity: PositiveInt = 2
    """Queries per identity, each of an image of its own."""
    at_least_images: Annotated[int, Field(ge=2)] = 3
    """An identity with boxes in fewer images of the split is not asked for."""
    cross_camera: Literal["auto"] | bool = "auto"
    """`auto`: if an identity was seen by several cameras, its queries are boxes whose camera is known, spread
    over the cameras; so another camera's box is in the gallery of each. Identities of a single camera, or of
    unknown cameras, are asked for as well. `true`: only identities that several cameras saw are asked for.
    `false`: cameras play no part. The gallery is the same for all three; the evaluation's `cross_camera`
    leaves out what the query's camera saw."""
    split: str | None = None
    """Where queries are drawn; by default `test`, or the only split that there is."""
    seed: Annotated[int, Field(ge=0)] = 0


def _pairs(value: Any) -> Any:
    """Parts come as a mapping, and are kept as pairs: their order counts, and is to be part of a key."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


class SplitRule(_Rule):
    """How the images of a dataset without splits of its own are shared out among parts.

    What goes where depends on names and the seed alone: one more sequence, or identity, moves at most one
    other across each border between parts.
    """

    by: Literal["sequence", "time", "identity"]
    """`sequence`: whole sequences; the shares are of their number. `time`: the first frames of each sequence
    go to the first part, and so on; the parts share identities. `identity`: no identity is in two parts; the
    shares are of their number. An image goes where most of its identities are, and people of another part are
    unknown people there, so no image is lost."""
    parts: Annotated[tuple[tuple[str, PositiveFloat], ...], BeforeValidator(_pairs)] = (
        ("train", 0.6),
        ("test", 0.4),
    )
    """Splits with their shares, which sum to 1: {train: 0.6, test: 0.4}. `time` takes them in this order."""
    gap: Annotated[int, Field(ge=0)] = 50
    """With `time`: frames at the beginning of each later part that go to the split `left_out`, counted by
    their numbers. A sequence that ends before the gap does has no frames in that part."""
    of: tuple[str, ...] = ()
    """Splits of the dataset that are pooled and split again; others stay. Needed where there are several."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _parts_fit(self) -> SplitRule:
        names = [name for name, _ in self.parts]
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError("parts: give two or more, each under a name of its own")
        if LEFT_OUT in names or "" in names:
            raise ValueError(f"parts: {LEFT_OUT!r} and '' cannot name a part")
        total = sum(share for _, share in self.parts)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"parts: the shares sum to {total:g}, not to 1")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.parts)

    @property
    def borders(self) -> list[float]:
        """Where parts end, as fractions of the whole -> (parts - 1,)."""
        return list(accumulate(share for _, share in self.parts))[:-1]


class Rules(_Rule):
    """The rules of one dataset; none by default."""

    queries: QueryRule | None = None
    splits: SplitRule | None = None

    def recipe(self) -> dict[str, Any]:
        """Their part of a recipe: nothing where no rule is given, so that no other key changes."""
        return self.model_dump(mode="json", exclude_none=True)

    def write(self, directory: Path) -> None:
        """Leave the rules beside a snapshot's tables; nothing where there are none."""
        if self != NO_RULES:
            (directory / FILE_NAME).write_text(json.dumps(self.recipe()) + "\n")

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> Rules:
        """The rules by which a snapshot was made."""
        path = snapshot.path / FILE_NAME
        return cls.model_validate_json(path.read_text()) if path.is_file() else cls()


NO_RULES = Rules()

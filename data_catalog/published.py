"""What publications say that a dataset holds, beside what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data_catalog.errors import CatalogError

if TYPE_CHECKING:
    from data_catalog.snapshot import Snapshot

LOESCH_2019 = "Loesch, Rabarisoa, Audigier, ICIP 2019"
"""The paper whose method this project trains; it describes the datasets that it uses."""


@dataclass(frozen=True)
class Published:
    """The totals of one publication, by the names that the ingest counts, and `people`, the boxes that are
    not ignore regions.

    `editions` say, for totals that the public files do not have, what these hold and why. `edition` is the
    only one that the publication is about, None for all.
    """

    source: str
    counts: Mapping[str, int]
    editions: Mapping[str, str] = field(default_factory=dict)
    edition: str | None = None


@dataclass(frozen=True)
class CountComparison:
    """One total; `why` explains a difference that the public files have, too."""

    source: str
    name: str
    given: int
    found: int
    why: str | None

    def __str__(self) -> str:
        same = self.given == self.found
        text = f"{self.name} {self.found:,}" + (" as given" if same else f" where {self.given:,} is given")
        return text + (f" ({self.why})" if self.why is not None and not same else "")


def compare_published(snapshot: Snapshot) -> list[CountComparison]:
    """Every total that the snapshot's adapter knows from publications, beside the one that was found.

    Empty when the adapter knows none, or is not installed.
    """
    from data_catalog.adapters import load_adapter

    row = snapshot.table("datasets", ["adapter", "edition"]).to_pylist()[0]
    try:
        adapter = load_adapter(row["adapter"])
    except CatalogError:
        return []
    found = counts_with_people(snapshot)
    publications: tuple[Published, ...] = getattr(adapter, "published", ())
    return [
        CountComparison(each.source, name, given, found.get(name, 0), each.editions.get(name))
        for each in publications
        for name, given in each.counts.items()
        if each.edition in (None, row["edition"])
    ]


def counts_with_people(snapshot: Snapshot) -> dict[str, int]:
    """The counts that the ingest found, and each split's `people`: its boxes without ignore regions."""
    row = snapshot.table("datasets", ["counts_found"])
    found = dict(row["counts_found"][0].as_py())
    for split in {name.rpartition(".")[0] for name in found}:
        dot = f"{split}." if split else ""
        found[f"{dot}people"] = found[f"{dot}boxes"] - found[f"{dot}ignored"]
    return found

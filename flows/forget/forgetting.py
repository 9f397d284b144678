"""The whole of a removal, step by step; interrupted after any of them, the same call continues.

1. The store's list gets the names: no ingest brings them back from now on.
2. What configs need is rebuilt without them. 3. What holds them is deleted. 4. Every file is searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.console import busy, told
from flows.errors import ConfigError
from flows.forget.holders import Holders, files_of, find_holders, require_known
from flows.forget.remaking import Remake, forget_note, note, plan_remakes, remake
from flows.forget.removal import Removed, forget_files, remove, require_quiet
from flows.forget.scan import Find, scan
from flows.forget.subject import Subject
from flows.forget.trace import Trace, trace_of
from flows.plan.catalog import StoreSnapshots
from flows.plan.forgotten_list import ForgottenList
from storage.local import LocalStore
from storage.store import Store


@dataclass(frozen=True)
class Plan:
    """What holds the subjects, and what is to be rebuilt."""

    subjects: Sequence[Subject]
    holders: Holders
    remakes: Sequence[Remake]


@dataclass(frozen=True)
class Forgot:
    """What was deleted, and where the subjects were found before and after."""

    removed: Removed
    before: Sequence[Find]
    after: Sequence[Find]
    of_indexes: Mapping[Path, tuple[int, int]]
    """Files and people that were taken out of each index."""


def plan_forgetting(store: Store, subjects: Sequence[Subject], configs: Iterable[Path]) -> Plan:
    """Look for the subjects; nothing is changed.

    Raises ConfigError for a person or an image that is unknown, a store on object storage, and a config whose
    models are not trained.
    """
    if not isinstance(store, LocalStore):
        raise ConfigError(
            f"{store} is on object storage, where `forget` cannot see what other machines hold: pull it "
            "into a local store, forget there, push it to a new place, and delete the old one; the list "
            "of forgotten people is not copied, so also remove them from the dataset's folder"
        )
    listed = ForgottenList(store.root)
    require_known(store, subjects, {each.dataset: listed.of(each.dataset, None) for each in subjects})
    holders = find_holders(store, subjects)
    remakes = plan_remakes(configs, str(store), store.root) if holders.snapshots else []
    return Plan(subjects, holders, remakes)


def forget(store: Store, plan: Plan, indexes: Sequence[Path] = ()) -> Forgot:
    """Do it. Raises StorageError or StageFailed when it cannot go on; the same call then does the rest."""
    require_quiet(store)
    if indexes:
        from flows.search.layout import read_description

        for folder in indexes:
            read_description(folder)  # refuses a folder without an index before anything changes
    note(plan.remakes, store.root)
    roots = {each.dataset: StoreSnapshots(store).root(each.dataset) for each in plan.subjects}
    with busy("looking for them in the store"):
        traces = [trace_of(store, each, plan.holders, roots[each.dataset]) for each in plan.subjects]
    files = set[tuple[str, str]]()
    for trace in traces:
        dataset, images = trace.subject.dataset, {*trace.subject.images, *trace.images, *trace.paths}
        listed = ForgottenList(store.root)
        listed.add(dataset, people=trace.subject.people, images=images, root=roots[dataset])
        files |= files_of(plan.holders.snapshots, trace.images)
    told.info("added to the store's list: no ingest brings them back")
    with busy("reading every file"):
        before = scan(store, traces)
    for each in plan.remakes:
        remake(each, str(store))
    of_indexes = {folder: _forget_in_index(folder, traces) for folder in indexes}
    forget_files(store, files)
    removed = remove(store, plan.holders)
    forget_note(store.root)
    with busy("reading every file"):
        after = scan(store, traces)
    return Forgot(removed, before, after, of_indexes)


def _forget_in_index(folder: Path, traces: Iterable[Trace]) -> tuple[int, int]:
    """Take the images that show the subjects out of an index, and the judgements on them.

    Returns files and people that were removed. An index has no identities, so whole images go.
    """
    from flows.search.judgements import Judgements, beside
    from flows.search.removing import remove_images  # loads torch

    contents = {sha256 for trace in traces for sha256 in trace.contents if sha256}
    removed = remove_images(folder, contents=contents)
    Judgements(beside(folder)).forget(contents)
    return removed

"""Forgetting a person, in the crash harness: whenever it dies, nothing brings the person back unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_catalog.rows import Rows, to_tables
from data_catalog.snapshot import SnapshotWriter
from flows.forget.holders import find_holders
from flows.forget.removal import remove
from flows.forget.subject import Subject
from flows.plan.forgotten_list import ForgottenList
from flows.run.records import RunRecord, records_folder
from storage.listing import list_entries
from storage.manifest import Identity
from tests.crash.bench import Operation, Outcome
from tests.crash.making_operations import DESCRIPTION
from tests.crash.stores import check_store, outcome_of_store, store_of
from tests.storage.making import make_artifact

SUBJECT = Subject("drawn", frozenset({"anna"}))


def prepare(folder: Path) -> None:
    """A snapshot with the person, features of it and a branch that learnt them, and a run's record."""
    store = store_of(folder)
    identity = Identity(kind="ingest", version=1, recipe={"dataset": "drawn"}, inputs={})
    with store.making(identity) as work:
        rows = Rows("boxes.csv")
        names = ["a.jpg", "b.jpg"]
        for name in names:
            rows.images([name], name, "train")
        rows.boxes(
            names, np.array([[0, 0, 10, 20]] * 2, np.float32), "train", [1, 2], person_id=["anna", "bo"]
        )
        with SnapshotWriter(work.path, "drawn") as writer:
            writer.write(to_tables([rows]))
            writer.finish(writer.images_and_queries()[1], lambda: DESCRIPTION)
        snapshot = work.commit("snapshot")
    features = make_artifact(store, "features", sources=(snapshot,))
    make_artifact(store, "reid", sources=(features,))
    record = RunRecord(
        records_folder(store.root) / "20260101T000000-abcdef.json", "config.yaml", finished="then"
    )
    record.stages = [{"stage": "features", "state": "made", "key": features.key}]
    record._write()


def forget(folder: Path) -> None:
    store = store_of(folder)
    ForgottenList(store.root).add(SUBJECT.dataset, people=SUBJECT.people, images=(), root=None)
    remove(store, find_holders(store, [SUBJECT]))


def check(folder: Path) -> list[str]:
    """While something is left of the person the snapshot is, by which the next try finds it."""
    store = store_of(folder)
    kinds = {entry.kind for entry in list_entries(store)}
    faults = check_store(folder, "reid")
    if "ingest" not in kinds:
        faults += ["the features outlive their snapshot"] if "features" in kinds else []
        faults += ["a record outlives it"] if any(records_folder(store.root).glob("*.json")) else []
    if kinds != {"ingest", "features", "reid"} and not _is_listed(folder):
        faults.append("something was deleted before the person was on the list")
    return faults


def outcome(folder: Path) -> Outcome:
    return {**outcome_of_store(folder), "listed": _is_listed(folder)}


def _is_listed(folder: Path) -> bool:
    forgotten = ForgottenList(store_of(folder).root).of("drawn", None)
    return forgotten.is_person("anna") and not forgotten.is_person("bo")


FORGET = Operation("forget", prepare, forget, check, outcome)

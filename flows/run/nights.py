"""What is told of a finished run: whether a tag moves to its model, and whether its results got worse."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from flows.config.models import Config
from flows.console import told
from flows.run.comparing import compare
from flows.run.promotion import EVALUATION, evaluations, promote
from flows.run.records import RunRecord, read_records
from storage.store import Artifact, Store

TOLERANCE = 0.5
"""Percentage points of mAP by which results may differ from one night to the next."""


def conclude(config: Config, artifacts: Mapping[str, Artifact], store: Store, record: RunRecord) -> None:
    """Promote the run's model if its results allow it, compare with the last run, and record both.

    `artifacts` are those of the run, by their stages' names. Raises StorageError if the tag cannot be set.
    """
    verdict = promote(config, artifacts, store)
    if verdict is not None:
        record.promotion = verdict.as_record()
        told.log(logging.WARNING if verdict.is_bad_news else logging.INFO, "%s", verdict)
        if verdict.is_bad_news:
            record.bad_news.append(str(verdict))
    elif config.promote is not None:
        told.info("promote: no tag is moved, because this run ends before its results")
    worse = worse_than_before(record, artifacts, store)
    for each in worse:
        told.warning("%s", each)
    record.bad_news += worse
    record.write()


def worse_than_before(record: RunRecord, artifacts: Mapping[str, Artifact], store: Store) -> list[str]:
    """What got worse since the last finished run of the same config, a sentence per test.

    Compared are the queries that both runs have, by the same protocol. A test got worse if its mAP over them
    fell by more than TOLERANCE, and the 95 % interval of the paired difference is below zero.
    """
    before = _last_evaluations(record, store)
    found = []
    for name, after in evaluations(artifacts).items():
        earlier = before.get(name)
        then = None if earlier in (None, after.key) else store.find(EVALUATION, str(earlier))
        if then is None or then.manifest.identity.recipe != after.manifest.identity.recipe:
            continue
        compared = compare(store, then, after, "mAP")
        if compared is not None and compared.difference < -TOLERANCE and compared.high < 0:
            found.append(f"{name} got worse since the last run: {compared}")
    return found


def _last_evaluations(record: RunRecord, store: Store) -> dict[str, str]:
    """Keys of the evaluations of the last finished run of the same config, by stage."""
    for earlier in _earlier(record, store):
        keys = {stage["stage"]: stage["key"] for stage in earlier.stages if stage["key"] is not None}
        found = {name: key for name, key in keys.items() if name.partition(":")[0] == EVALUATION}
        if found:
            return found
    return {}


def _earlier(record: RunRecord, store: Store) -> Iterator[RunRecord]:
    for each in read_records(store.root):
        is_same = (each.config, each.overrides) == (record.config, record.overrides)
        if is_same and each.name != record.name and each.finished is not None and each.failure is None:
            yield each

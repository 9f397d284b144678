"""Promotion: a tag moves to a run's model only if that is not worse than the model that has the tag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flows.config.models import Config
from flows.config.sections import Promotion
from flows.run.comparing import compare
from storage.errors import StorageError
from storage.listing import list_entries
from storage.store import Artifact, Store
from storage.tags import move_tag, tags

EVALUATION = "evaluation"
_TRIES = 10


@dataclass(frozen=True)
class Verdict:
    """Whether a tag goes to a model, and why.

    first: no model has the tag. unchanged: this model has it. allowed, worse: by the comparison. unknown:
    there is nothing to compare with.
    """

    outcome: Literal["first", "unchanged", "allowed", "worse", "unknown"]
    tag: str
    model: str
    """The model of the run, as `kind/key`."""
    before: str | None
    """What had the tag."""
    why: str

    @property
    def moves(self) -> bool:
        return self.outcome in ("first", "allowed")

    @property
    def is_bad_news(self) -> bool:
        return self.outcome in ("worse", "unknown")

    def __str__(self) -> str:
        if self.moves:
            start = "" if self.before is None else f" from {self.before}"
            return f"tag {self.tag}: goes{start} to {self.model}: {self.why}"
        return f"tag {self.tag}: stays at {self.before}: {self.why}"

    def as_record(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "tag": self.tag,
            "model": self.model,
            "before": self.before,
            "text": str(self),
        }


def promote(config: Config, artifacts: Mapping[str, Artifact], store: Store) -> Verdict | None:
    """Move the tag of `promote` if the results allow it; None if the config has none, or the run no results.

    The tag moves only from the model that was compared, so that runs that end together do not undo each
    other.

    `artifacts` are those of the run, by their stages' names. Raises StorageError if the tag cannot be set.
    """
    model = artifacts.get(config.branch_stage)
    tests = evaluations(artifacts)
    if config.promote is None or model is None or len(tests) < len(config.evaluation):
        return None
    for _ in range(_TRIES):
        verdict = judge(config.promote, model, tests, store)
        if not verdict.moves or move_tag(store, verdict.tag, verdict.before, verdict.model):
            return verdict
        # Another run has moved the tag since: what counts is the model that has it now.
    raise StorageError(
        f"{store}: the tag {config.promote.tag!r} was not moved in {_TRIES} tries: other runs keep moving "
        "it, or the server does not take conditional writes (If-Match); set it with: personsearch store tag"
    )


def evaluations(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The evaluations among the artifacts of a run, by their stages' names."""
    return {name: each for name, each in artifacts.items() if each.kind == EVALUATION}


def judge(section: Promotion, model: Artifact, tests: Mapping[str, Artifact], store: Store) -> Verdict:
    """Whether the tag may go to the model, which `tests` evaluate; moves nothing."""
    name, before = model.name, tags(store).get(section.tag)
    if before is None:
        return Verdict(
            "first", section.tag, name, None, "no model had the tag, so there is nothing to compare with"
        )
    if before == name:
        return Verdict("unchanged", section.tag, name, before, "it is the model of this run")
    earlier = list(evaluations_of(before, store, other_than=name))
    said = []
    for test, after in tests.items():
        label = test.partition(":")[2]
        of_test = f"{label}: " if label else ""
        comparable = (each for each in earlier if _is_comparable(each, after))
        then = next((found for each in comparable if (found := store.find(each.kind, each.key))), None)
        compared = None if then is None else compare(store, then, after, section.metric)
        if compared is None:
            return Verdict("unknown", section.tag, name, before, of_test + _why_unknown(before, earlier))
        said.append(f"{of_test}{compared}")
        if (compared.low if section.paired else compared.difference) < -section.tolerance:
            why = f"{of_test}{compared}; it may lose {section.tolerance:g} points at most"
            return Verdict("worse", section.tag, name, before, f"{name} is worse or may be: {why}")
    return Verdict("allowed", section.tag, name, before, "; ".join(said))


def evaluations_of(model: str, store: Store, *, other_than: str | None = None) -> Iterator[Artifact]:
    """The evaluations that were made from one artifact, and not from the other, the newest first."""
    entries = list_entries(store, EVALUATION)
    for entry in sorted(entries, key=lambda each: each.created, reverse=True):
        sources = entry.lineage or entry.sources
        if model in sources and other_than not in sources:
            found = store.peek(entry.kind, entry.key)
            if found is not None:
                yield found


def _is_comparable(before: Artifact, after: Artifact) -> bool:
    """Whether two evaluations score the same queries in the same images, by the same protocol."""
    old, new = before.manifest.identity, after.manifest.identity
    same_test = old.inputs.get("truth") == new.inputs.get("truth")
    return same_test and (old.recipe, old.version) == (new.recipe, new.version)


def _why_unknown(before: str, earlier: list[Artifact]) -> str:
    found = "other test data or another protocol" if earlier else "no test at all"
    return (
        f"not comparable: {before} was evaluated on {found} in this store; run a config that uses it, with "
        "this evaluation section, then this config again"
    )

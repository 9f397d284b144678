"""The two sides of a difference: what a name means, and the evaluations that it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flows.config.loading import load_config
from flows.config.models import Config
from flows.config.trained_on import VIEWS
from flows.errors import ConfigError, missing
from flows.plan.states import make_plan
from flows.run.promotion import EVALUATION, evaluations_of
from flows.run.records import RUN_NAME, RunRecord, find_record, read_records
from flows.stages.building import build_stages
from flows.wording import short_name
from storage.errors import StorageError
from storage.listing import list_entries, resolve_name
from storage.manifest import Manifest
from storage.store import Artifact, Store
from storage.tags import tags

_SUFFIXES = (".yaml", ".yml")
_SHOWN = 3


@dataclass(frozen=True)
class Side:
    """One of the two results: `given` is what the user wrote, `said` what that is.

    `evaluations` are by the dataset that they test on. `config` is the file that asked for them, with its
    overrides, if that is known; it may have been edited since.
    """

    given: str
    said: str
    evaluations: dict[str, Artifact]
    config: Path | None = None
    overrides: tuple[str, ...] = ()

    def loaded_config(self, store: Store) -> Config | None:
        """The config as it reads today: good for roots and processors. None if it cannot be read."""
        if self.config is None:
            return None
        try:
            return load_config(self.config, self.overrides, store=str(store))
        except (ConfigError, OSError):  # edited or moved since
            return None


def is_config(given: str) -> bool:
    """Whether a name is that of a config's file: it ends as one, or it is a file."""
    return given.lower().endswith(_SUFFIXES) or Path(given).is_file()


def find_side(store: Store, given: str) -> Side:
    """What a name means: a run's id, a config's file, a tag or an artifact.

    Raises ConfigError for any other name, saying what it may be, and for a result without an evaluation.
    """
    if RUN_NAME.fullmatch(given):
        record = find_record(store.root, given)
        if record is None:
            raise _unknown(store, given, f"{store} has no record of the run {given!r}")
        return _of_run(store, given, record)
    if is_config(given):
        return _of_config(store, given)
    tagged = tags(store).get(given)
    try:
        entry = resolve_name(list_entries(store), tagged or given)
    except StorageError as error:
        if tagged is not None or "give more of the key" in str(error):
            raise ConfigError(f"{given}: {error}") from error
        raise _unknown(store, given, f"{given!r} is not a run, config, artifact or tag of {store}") from error
    return _of_artifact(store, given, entry.name, None if tagged is None else f"tag {given}, {entry.name}")


def view_of(manifest: Manifest, name: str, store: Store) -> tuple[str, str | None]:
    """Dataset and split of a view among an artifact's inputs; early artifacts do not record the split."""
    recorded = manifest.made_by.get(VIEWS, {}).get(name)
    if recorded is not None:
        return str(recorded["dataset"]), str(recorded["split"])
    snapshot = store.named(manifest.sources.get(name, ""))
    return ("" if snapshot is None else str(snapshot.manifest.identity.recipe["dataset"])), None


def _of_run(store: Store, given: str, record: RunRecord) -> Side:
    keys = _evaluations(record)
    said = f"run {record.name} of {Path(record.config).name}"
    if not keys:
        raise ConfigError(
            f"{given}: {said} has no evaluation: it ended before its results; `personsearch status` lists "
            "runs and how they ended"
        )
    found = []
    for key in keys:
        artifact = store.peek(EVALUATION, key)
        if artifact is None:
            raise ConfigError(f"{given}: evaluation/{key} of {said} is no longer in {store}")
        found.append(artifact)
    return Side(given, said, _by_test(store, given, found), Path(record.config), tuple(record.overrides))


def _evaluations(record: RunRecord) -> list[str]:
    """The keys of the evaluations that a run built or found."""
    done = (each for each in record.stages if each["state"] in ("cached", "made"))
    return list(dict.fromkeys(each["key"] for each in done if each["stage"].partition(":")[0] == EVALUATION))


def _of_config(store: Store, given: str) -> Side:
    """The newest finished run of a config or, where everything was there without one, its artifacts."""
    path = Path(given)
    if not path.is_file():
        raise _unknown(store, given, missing(given, "config"))
    for record in read_records(store.root):
        has_ended = record.finished is not None and record.failure is None
        if has_ended and _evaluations(record) and Path(record.config).resolve() == path.resolve():
            side = _of_run(store, given, record)
            return Side(given, f"{given}, {side.said}", side.evaluations, side.config, side.overrides)
    config = load_config(path, store=str(store))
    plan = make_plan(build_stages(config), store)
    found = [each.artifact for each in plan if each.stage.kind == EVALUATION and each.artifact is not None]
    if not found:
        raise ConfigError(
            f"{given}: no finished run of this config with an evaluation is recorded in {store}; run first: "
            f"personsearch run {given}"
        )
    return Side(given, f"{given}, as it stands", _by_test(store, given, found), path)


def _of_artifact(store: Store, given: str, name: str, said: str | None) -> Side:
    """An evaluation, those of a report, or the newest of what was made from any other artifact, by test."""
    artifact = store.named(name)
    if artifact is None:
        raise ConfigError(f"{given}: {name} is no longer in {store}")
    if artifact.kind == EVALUATION:
        found = [artifact]
    elif artifact.kind == "report":
        read = map(store.named, artifact.manifest.sources.values())
        found = [each for each in read if each is not None and each.kind == EVALUATION]
    else:
        newest: dict[str, Artifact] = {}
        for each in evaluations_of(name, store):
            newest.setdefault(view_of(each.manifest, "truth", store)[0], each)
        found = list(newest.values())
    if not found:
        raise ConfigError(
            f"{given}: {name} was not evaluated in {store}: name an evaluation, or run a config that "
            "evaluates it"
        )
    names = {f"{EVALUATION}/{each.key}" for each in found}
    # The config of the newest run that used or built them.
    config, overrides = next(
        (
            (Path(record.config), tuple(record.overrides))
            for record in read_records(store.root)
            if names <= set(record.artifacts()) and Path(record.config).is_file()
        ),
        (None, ()),
    )
    return Side(given, said or name, _by_test(store, given, found), config, overrides)


def _by_test(store: Store, given: str, evaluations: Iterable[Artifact]) -> dict[str, Artifact]:
    found: dict[str, Artifact] = {}
    for each in evaluations:
        dataset, _ = view_of(each.manifest, "truth", store)
        if dataset in found:
            names = ", ".join(short_name(one.name) for one in (found[dataset], each))
            raise ConfigError(
                f"{given}: it has several evaluations on {dataset or 'a dataset'}, as a study has: name one "
                f"({names}, ...)"
            )
        found[dataset] = each
    return found


def _unknown(store: Store, given: str, why: str) -> ConfigError:
    newest = [record.name for record in itertools.islice(read_records(store.root), _SHOWN)]
    tagged = sorted(tags(store))
    return ConfigError(
        f"{why}. A and B may be: a run (an id that `personsearch status` prints; the newest: "
        f"{', '.join(newest) or 'none'}), a config (FILE.yaml: its newest finished run), an artifact "
        f"(evaluation/KEY, or a model that was evaluated; `personsearch store ls`), or a tag "
        f"({', '.join(tagged) or 'there are none'})"
    )

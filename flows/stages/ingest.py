"""`ingest`: a dataset's root in its native format -> a snapshot, the validated Parquet tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_catalog.adapters import load_adapter
from data_catalog.adapters.protocol import check_options
from data_catalog.errors import CatalogError
from data_catalog.fingerprint import DatasetRoot, Fingerprint, Progress, fingerprint
from data_catalog.forgotten import Forgotten
from data_catalog.hash_cache import HashCache
from data_catalog.rules import NO_RULES, QueryRule, Rules, SplitRule
from data_catalog.snapshot import Snapshot, ingest_findings
from flows.config.models import Config
from flows.errors import ConfigError, StageError
from flows.plan.catalog import KIND, StoreSnapshots
from flows.plan.forgotten_list import ForgottenList
from flows.stages.base import Inputs, Made, Maker, Stage, StageContext, ingest_name
from personsearch_core.recipes import Recipe
from storage.digests import digest_json, digest_parts
from storage.local import LocalStore
from storage.manifest import Identity
from storage.opening import open_store

log = logging.getLogger(__name__)

VERSION = 3


class IngestRecipe(Recipe):
    adapter: str
    adapter_version: int
    dataset: str
    options: dict[str, str]
    queries: QueryRule | None = None
    splits: SplitRule | None = None
    forgotten: str | None = None
    """Digest of whom the store's list forgets of the dataset; None if it forgets no one."""

    @property
    def rules(self) -> Rules:
        return Rules(queries=self.queries, splits=self.splits)

    def canonical(self) -> dict[str, Any]:
        """As it enters the key: without the rules that are not given, and a list that forgets no one."""
        return self.model_dump(mode="json", exclude_none=True)


class Options(Recipe):
    root: Path
    store: Path
    dask: str | None
    """Address of a scheduler."""
    read: bool
    """Whether image files are read."""
    allow_empty: bool
    fingerprint: str
    """Digest of the root when the ingest was planned."""


def stage(config: Config, dataset: str, *, rehash: bool = False) -> Stage:
    """The stage of one dataset. Its root is fingerprinted here: a few stats when nothing changed.

    With `rehash`, every file is read again, whatever its stat.
    """
    source = config.datasets[dataset]
    source.require_root(f"datasets.{dataset}.root")
    try:
        check_options(load_adapter(source.adapter), _text(source.options))
    except CatalogError as error:
        raise ConfigError(f"datasets.{dataset}: {error}") from error
    store = open_store(config.store)
    made = root_stage(
        dataset,
        source.adapter,
        source.root,
        options=_text(source.options),
        rules=Rules(queries=source.queries, splits=source.splits),
        store=store.root,
        dask=config.run.dask,
        allow_empty=source.allow_empty,
        rehash=rehash,
    )
    key = identity(made).key
    if store.peek(made.kind, key) is not None:  # it will not be made, and yet is the dataset's snapshot now
        StoreSnapshots(store).remember(dataset, key, source.root)
    return made


def root_stage(
    dataset: str,
    adapter: str,
    root: Path,
    *,
    options: Mapping[str, str],
    rules: Rules = NO_RULES,
    store: Path,
    dask: str | None = None,
    read_images: bool = True,
    allow_empty: bool = False,
    rehash: bool = False,
) -> Stage:
    """The stage of a root on its own; with the same arguments its key is that of a config's stage.

    Whether image files are read is part of the root's fingerprint. Whom the store's list forgets is part of
    the recipe.
    """
    forgotten = ForgottenList(store).of(dataset, root)
    reader = load_adapter(adapter)
    recipe = IngestRecipe(
        adapter=adapter,
        adapter_version=reader.version,
        dataset=dataset,
        options=dict(options),
        queries=rules.queries,
        splits=rules.splits,
        forgotten=forgotten.digest if forgotten else None,
    )
    found = _fingerprint(
        DatasetRoot(root, reader, recipe.options, read_images, forgotten), store, rehash=rehash
    )
    return Stage(
        name=ingest_name(dataset),
        kind=KIND,
        version=VERSION,
        recipe=recipe.canonical(),
        maker="flows.stages.ingest:MAKER",
        fixed_inputs={"root": found.digest},
        options=Options(
            root=root,
            store=store,
            dask=dask,
            read=read_images,
            allow_empty=allow_empty,
            fingerprint=found.digest,
        ).model_dump(mode="json"),
    )


def identity(stage: Stage) -> Identity:
    """What the artifact of a stage of this file is known by; it has no inputs but the root."""
    return Identity(
        kind=stage.kind, version=stage.version, recipe=stage.recipe, inputs=dict(stage.fixed_inputs)
    )


IngestContext = StageContext[IngestRecipe, Inputs, Options]


def make(context: IngestContext) -> Made:
    """Read the root into the work area, and make its snapshot the dataset's own.

    Raises what `read_root` raises.
    """
    from data_catalog.validation import damaged_rows

    made = read_root(context.recipe, context.options, context.work, context.progress)
    dataset = context.recipe.dataset
    snapshot = Snapshot(context.work)
    for finding in (*ingest_findings(snapshot), *damaged_rows(snapshot)):
        log.warning("%s: %s", dataset, finding.message)
    StoreSnapshots(LocalStore(context.options.store)).remember(
        dataset, planned_identity(context).key, context.options.root
    )
    return made


MAKER = Maker(IngestRecipe, Inputs, Options, make)


def read_root(recipe: IngestRecipe, options: Options, work: Path, progress: Progress | None = None) -> Made:
    """Read the root into the work area; a table that an earlier try left is written again.

    Raises:
        StageError: when the root is no longer what the stage was planned for, or changes while it is read.
        CatalogError: when it cannot be read.
    """
    from data_catalog.ingest import ingest

    source = DatasetRoot(
        options.root,
        load_adapter(recipe.adapter),
        recipe.options,
        options.read,
        _forgotten(recipe, options),
    )
    found = _fingerprint(source, options.store)
    _refuse_changed(found, options, "since the ingest was planned")
    made = ingest(
        source,
        work,
        found,
        name=recipe.dataset,
        rules=recipe.rules,
        allow_empty=options.allow_empty,
        dask_address=options.dask,
        previous=_previous(options.store, recipe),
        progress=progress,
    )
    _refuse_changed(_fingerprint(source, options.store), options, "during the ingest")
    return Made(content_digest(made.row_digests), {"counts": made.counts})


def planned_identity(context: IngestContext) -> Identity:
    """The identity of the artifact that a context of this file's stages makes."""
    inputs = {"root": context.options.fingerprint}
    return Identity(kind=KIND, version=VERSION, recipe=context.recipe.canonical(), inputs=inputs)


def _refuse_changed(found: Fingerprint, options: Options, when: str) -> None:
    """The snapshot's key says what files it was made of; of other files it would be filed wrongly."""
    if found.digest != options.fingerprint:
        raise StageError(
            f"{options.root}: files of the dataset changed {when}: wait until nothing writes to it, "
            "then run the same command again"
        )


def content_digest(row_digests: Mapping[str, list[str]]) -> str:
    """Digest over the rows of all tables, in blocks; where and when the snapshot was made is not in it."""
    return digest_parts({name: digest_json(blocks) for name, blocks in row_digests.items()})


def _forgotten(recipe: IngestRecipe, options: Options) -> Forgotten:
    """Whom the list forgets now. Raises StageError when it is not whom the stage was planned without."""
    forgotten = ForgottenList(options.store).of(recipe.dataset, options.root)
    if (forgotten.digest if forgotten else None) != recipe.forgotten:
        raise StageError(
            f"{recipe.dataset}: people or images were forgotten since the ingest was planned: run the same "
            "command again"
        )
    return forgotten


def _fingerprint(source: DatasetRoot, store: Path, *, rehash: bool = False) -> Fingerprint:
    return fingerprint(source, HashCache(store / ".cache" / "hashes.sqlite"), rehash=rehash)


def _previous(store: Path, recipe: IngestRecipe) -> Snapshot | None:
    """The newest snapshot by the same recipe without rules, of whatever content its root had then.

    Rows to which rules were applied no longer say what the files do. It forgets the same people, or no one.
    """
    local = LocalStore(store)
    without = recipe.model_copy(update={"queries": None, "splits": None})
    as_read = [each.canonical() for each in (without, without.model_copy(update={"forgotten": None}))]
    for artifact in local.newest_artifacts(KIND):
        made = artifact.manifest.identity
        if made.version == VERSION and made.recipe in as_read:
            usable = local.find(artifact.kind, artifact.key)
            return None if usable is None else Snapshot(usable.path)
    return None


def _text(options: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in options.items()}

"""Pins: trained models that a config uses unchanged, by `detector.use` and `reid.use`.

A pin is found when the config is read. What the artifact's manifest says then stands in for the section, so
that everything downstream knows the model. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from data_catalog.suggestions import did_you_mean
from flows.config.exported import ExportedModel
from flows.config.raw import is_folder
from flows.config.trained_on import TrainedOn, trained_on
from flows.errors import ConfigError
from personsearch_core.recipes import Recipe
from storage.manifest import KEY_LENGTH, Identity, Manifest
from storage.store import Inspection, Store
from storage.tags import tags

Section = Literal["detector", "reid"]
TRAINED: tuple[Section, ...] = get_args(Section)
"""Kinds of artifacts that are trained models, and the sections of a config that train them."""


class Pin(Recipe):
    """A trained model in place of a stage that would train one."""

    given: str
    """What the config says."""
    tag: str | None
    """The tag, if that is what it says."""
    tagged: str | None
    """The artifact that the tag points to: that of the model, or a branch that was trained on it."""
    identity: Identity
    content_digest: str
    created: str
    """When the model was built; empty if that is not known."""
    trained_on: tuple[TrainedOn, ...]
    folder: Path | None = None
    """Of an exported model, which a run copies into the store."""
    roi: dict[str, Any] | None = None
    """The ROI that a branch reads, if that is recorded."""
    detector_digest: str | None = None
    """The content digest of the detector whose shared layers a branch reads, if it reads any."""

    @property
    def artifact(self) -> str:
        return self.identity.name

    @property
    def recipe(self) -> dict[str, Any]:
        return self.identity.recipe

    def learnt(self) -> tuple[str, ...]:
        """What it was trained on, such as `prw/train`, for sentences."""
        return tuple(map(str, self.trained_on)) or ("data that is not recorded",)


def find_pin(section: Section, given: str, store: Store) -> Pin:
    """The model that `SECTION.use` names. Raises ConfigError, which says where to look, if it is missing."""
    if is_folder(given):
        return _exported(section, given)
    tag, name = (None, given) if "/" in given else (given, _tagged(store, given))
    named = _manifest(store, name)
    model = _of_kind(section, name, named, store)
    if model is not named:
        model = _manifest(store, model.name)
    if section == "reid" and model.identity.recipe.get("channels") is not None:
        raise ConfigError(
            f"{name} was trained on features from elsewhere (features.use), which no detector computes"
        )
    roi, digest = _shared_layers(model, store) if section == "reid" else (_joint_roi(model), None)
    return Pin(
        given=given,
        tag=tag,
        tagged=None if tag is None else named.name,
        identity=model.identity,
        content_digest=model.content_digest,
        created=model.created,
        trained_on=trained_on(model, store),
        roi=roi,
        detector_digest=digest,
    )


def _tagged(store: Store, tag: str) -> str:
    found = tags(store) if store.exists() else {}
    if tag not in found:
        known = f"(its tags: {', '.join(found) or 'none'})"
        raise ConfigError(
            f"{store} has no tag {tag!r} {known}{did_you_mean(tag, found) or '.'} Set it (`store tag`, or a "
            f"run with `promote: {{tag: {tag}}}`), or name an artifact (detector/KEY) or a folder (./{tag})"
        )
    return found[tag]


def _manifest(store: Store, name: str) -> Manifest:
    """The manifest of the artifact `kind/key`, where the key may be a unique beginning, if it is whole."""
    kind, _, start = name.partition("/")
    is_whole = len(start) == KEY_LENGTH
    keys = [start] if is_whole else [key for _, key in store.keys(kind) if key.startswith(start)]
    if len(keys) > 1:
        raise ConfigError(f"{name} matches {len(keys)} artifacts of {store}: give more of the key")
    found = store.inspect(kind, keys[0]) if keys else Inspection()
    if found.artifact is not None:
        return found.artifact.manifest
    copy = f"`store pull {name} --from OTHER` copies it from another store"
    if found.problem is not None:
        raise ConfigError(f"{name} of {store} is damaged: {found.problem}; {copy}")
    raise ConfigError(f"{store} has no artifact {name}; `store ls` shows what it has, and {copy}")


def _of_kind(section: Section, name: str, manifest: Manifest, store: Store) -> Manifest:
    """The manifest, or for `detector` that of the detector which the named branch was trained on."""
    if manifest.kind == section:
        return manifest
    if section == "detector" and manifest.kind == "reid":
        detectors = {each.key: each for each in _sources(manifest, store) if each.kind == "detector"}
        if len(detectors) == 1:
            return next(iter(detectors.values()))
        raise ConfigError(
            f"{name} is a branch that names no detector in {store}; name the detector itself, as "
            "detector/KEY or by a tag of its own"
        )
    hint = ""
    if section == "reid" and "joint" in manifest.identity.recipe:
        hint = "; the branch was trained jointly with it: name it as detector.use, and leave reid out"
    raise ConfigError(f"{name} is of kind {manifest.kind!r}, not {section!r}{hint}")


def _sources(manifest: Manifest, store: Store) -> Iterator[Manifest]:
    """The manifests of everything that an artifact was made from, as far as the store has them."""
    for source in manifest.sources.values():
        found = store.named(source)
        if found is not None:
            yield found.manifest
            yield from _sources(found.manifest, store)


def _joint_roi(detector: Manifest) -> dict[str, Any] | None:
    joint = detector.identity.recipe.get("joint")
    return joint and dict(joint["roi"])


def _shared_layers(branch: Manifest, store: Store) -> tuple[dict[str, Any] | None, str | None]:
    """The ROI that a branch was trained with, and the digest of the detector that its features came from."""
    digest = branch.identity.inputs.get("detector")
    roi = branch.made_by.get("roi")
    for source in _sources(branch, store):
        if source.kind == "features":
            roi = source.identity.recipe.get("roi", roi)
            digest = source.identity.inputs.get("detector", digest)
    return roi, None if branch.identity.recipe.get("variant") == "disj" else digest


def _exported(section: Section, folder: str) -> Pin:
    model = ExportedModel.read(Path(folder))
    identity, digest = model.detector() if section == "detector" else model.branch()
    return Pin(
        given=folder,
        tag=None,
        tagged=None,
        identity=identity,
        content_digest=digest,
        created=str(model.origin[section].get("created", "")),
        trained_on=model.trained_on[section],
        folder=model.folder,
        roi=model.roi if section == "reid" else None,
        detector_digest=identity.inputs.get("detector"),
    )

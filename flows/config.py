"""The YAML config of a run: datasets by name, and one section a stage.

Values may hold `${VAR}` and `${VAR:-default}` from the environment; relative roots and the store resolve
against the config file's folder. `extends: other.yaml` takes another file's fields as defaults. Unknown
fields are refused. Imports neither torch nor Prefect.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from flows.devices import device_name
from flows.errors import ConfigError
from personsearch_core.recipes import (
    DetectionOptions,
    DetectionsRecipe,
    DetectorRecipe,
    EvaluationRecipe,
    FeatureOptions,
    FeaturesRecipe,
    GalleryRecipe,
    Recipe,
    ReidRecipe,
    RoiRecipe,
)

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_R = TypeVar("_R", bound=Recipe)


class DatasetSource(Recipe):
    """Where a dataset lies and which adapter reads it; neither name nor root enters a training's key."""

    adapter: str
    root: Path
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)


class ViewRef(Recipe):
    """A split of a dataset, perhaps filtered."""

    dataset: str
    split: str
    min_height: PositiveFloat | None = None
    """Boxes lower than this, in pixels, become ignore regions."""


class TrainingEntry(ViewRef):
    """A view that takes part in detector training; one of the three says how much, by default `repeat: 1`."""

    proportion: PositiveFloat | None = None
    repeat: PositiveFloat | None = None
    choose: PositiveInt | None = None

    @model_validator(mode="after")
    def _one_amount(self) -> TrainingEntry:
        given = [name for name in ("proportion", "repeat", "choose") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of proportion, repeat and choose, not {' and '.join(given)}")
        return self

    @property
    def amount(self) -> dict[str, float]:
        """The one of proportion, repeat and choose that holds."""
        given = self.model_dump(include={"proportion", "repeat", "choose"}, exclude_none=True)
        return given or {"repeat": 1.0}

    @property
    def view(self) -> ViewRef:
        return ViewRef(dataset=self.dataset, split=self.split, min_height=self.min_height)


class DetectorSection(DetectorRecipe):
    train: Annotated[tuple[TrainingEntry, ...], Field(min_length=1)]
    validation: tuple[ViewRef, ...] = ()


class ReidSection(ReidRecipe, RoiRecipe):
    train: ViewRef


class FeaturesSection(FeatureOptions):
    dtype: Literal["float16", "float32", "uint8"] | None = None
    """By default float16, and uint8 for the crops of disj."""


class EvaluationSection(EvaluationRecipe):
    test: ViewRef


class ReportSection(Recipe):
    title: str = "Person search"
    scenes: Annotated[int, Field(ge=0)] = 6
    """Scenes drawn with their detections."""
    queries: Annotated[int, Field(ge=0)] = 8
    """Retrieval strips: the hardest queries first, and as many spread over the rest."""
    ranks: PositiveInt = 10


class ComputeOptions(Recipe):
    """How the work is done where it does not change a result: never part of a key."""

    device: Annotated[str, AfterValidator(device_name)] = "auto"
    devices: PositiveInt = 1
    threads: PositiveInt | None = None
    checkpoint_seconds: PositiveFloat = 60.0
    """Time between the checkpoints of a training."""
    memory_budget_gib: Annotated[float, Field(gt=0, le=2**20)] = 4.0
    """Features up to this size are held in memory during re-ID training."""
    dask: str | None = None
    """Address of a Dask scheduler for ingest, extraction and large galleries; local processes by default."""
    workers: PositiveInt | None = None
    test_images_in_training: Literal["refuse", "warn"] = "refuse"
    """What a test image among the images of any training view means for the run."""
    stage_timeout_hours: PositiveFloat | None = None


def _norms_differ(section: str, norm: str, weights: str, held: str) -> str:
    fitting = "'group'" if held == "group" else "'batch' or 'frozen_batch'"
    return (
        f"{section}: norm {norm!r} cannot start from initial_weights {weights!r}, whose norms are {held!r}: "
        f"use norm {fitting}, or other initial_weights"
    )


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping) else value


class Config(Recipe):
    """A run. Without `reid` it ends with the detector, without `evaluation` with the branch."""

    store: str
    datasets: Annotated[dict[str, DatasetSource], Field(min_length=1)]
    detector: DetectorSection
    features: FeaturesSection = FeaturesSection()
    reid: ReidSection | None = None
    detections: DetectionOptions = DetectionOptions()
    gallery: GalleryRecipe = GalleryRecipe()
    evaluation: Annotated[tuple[EvaluationSection, ...], BeforeValidator(_as_tuple)] = ()
    report: ReportSection = ReportSection()
    run: ComputeOptions = ComputeOptions()

    @model_validator(mode="after")
    def _views_name_datasets(self) -> Config:
        for view in self.views():
            if view.dataset not in self.datasets:
                known = ", ".join(self.datasets)
                raise ValueError(f"a view names dataset {view.dataset!r}; the config knows {known}")
        tests = [entry.test.dataset for entry in self.evaluation]
        if len(set(tests)) != len(tests):
            raise ValueError("evaluation: one entry a dataset; use its options for further settings")
        if self.evaluation and self.reid is None:
            raise ValueError("evaluation: there is nothing to evaluate without a reid section")
        self._check_norms()
        if self.reid is not None:
            # Their own rules, such as which dtype goes with which variant, are checked here and now.
            _ = self.features_recipe(), self.detections_recipe()
        return self

    def _check_norms(self) -> None:
        """Group norms have no statistics, batch norms have: neither starts from the weights of the other."""
        model = self.detector.model
        if model.norm == "group" and model.initial_weights in ("coco", "imagenet"):
            raise ValueError(_norms_differ("detector.model", "group", model.initial_weights, "batch"))
        if self.reid is None:
            return
        branch = self.reid.branch
        held = {"detector": model.norm, "imagenet": "batch"}.get(branch.initial_weights, branch.norm)
        if (branch.norm == "group") != (held == "group"):
            raise ValueError(_norms_differ("reid.branch", branch.norm, branch.initial_weights, held))

    def views(self) -> list[ViewRef]:
        """Every view that a stage takes."""
        views = [*(entry.view for entry in self.detector.train), *self.detector.validation]
        views += [] if self.reid is None else [self.reid.train]
        return [*views, *(entry.test for entry in self.evaluation)]

    def detector_recipe(self) -> DetectorRecipe:
        return _narrow(self.detector, DetectorRecipe)

    @property
    def reid_section(self) -> ReidSection:
        """The `reid` section; ConfigError where the config has none."""
        if self.reid is None:
            raise ConfigError("this config has no reid section")
        return self.reid

    def reid_recipe(self) -> ReidRecipe:
        return _narrow(self.reid_section, ReidRecipe)

    def roi_recipe(self) -> RoiRecipe:
        """With the size spelled out, so that a default and the same size given by hand are one key."""
        height, width = self.reid_section.roi_size
        return _narrow(self.reid_section, RoiRecipe).model_copy(
            update={"roi_height": height, "roi_width": width}
        )

    def features_recipe(self) -> FeaturesRecipe:
        section = self.features.model_dump(exclude_none=True)
        return FeaturesRecipe.model_validate({"dtype": self._dtype, **section, "roi": self.roi_recipe()})

    def detections_recipe(self) -> DetectionsRecipe:
        section = self.detections.model_dump()
        return DetectionsRecipe.model_validate({**section, "dtype": self._dtype, "roi": self.roi_recipe()})

    @property
    def _dtype(self) -> str:
        return self.features.dtype or ("uint8" if self.reid_section.variant == "disj" else "float16")


def load_config(path: Path, overrides: Iterable[str] = (), *, store: str | None = None) -> Config:
    """Read a YAML config, apply `a.b=value` overrides, and resolve its paths.

    Raises ConfigError with one message: which file, which field, what to do.
    """
    raw = _read_yaml(path)
    # First, because it copies: where YAML aliases share a mapping, an override must change one place only.
    raw = _expand(raw, path)
    for override in overrides:
        apply_override(raw, override)
    if store is not None:
        raw["store"] = store if "://" in store else str(Path(store).absolute())
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    return _resolve_paths(config, path.parent.absolute())


def _read_yaml(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A config file's mapping over that of the file it extends."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}"
        ) from error
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError where something looks like a date and is none, as 2024-13-01.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no mapping; see configs/demo.yaml for an example")
    base = raw.pop("extends", None)
    if base is None:
        return raw
    chain = (*extended_by, path.resolve())
    if not isinstance(base, str) or (path.parent / base).resolve() in chain:
        raise ConfigError(f"{path}: extends wants the name of another config file, not {base!r}")
    return _merged(_read_yaml(path.parent / base, chain), raw)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over`'s fields in the place of `base`'s; mappings are merged, lists replaced."""
    both = dict(base)
    for name, value in over.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one field of a raw config, `reid.lr=3e-4`: the value is YAML, list items are named by number."""
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set wants NAME=VALUE such as reid.lr=3e-4, not {override!r}")
    *parents, last = name.split(".")
    node: Any = raw
    for parent in parents:
        node = _child(node, parent, name)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {name}: {text!r} is not valid YAML: {_on_one_line(error)}") from error
    if isinstance(value, str):
        value = _number(value)
    if isinstance(node, list):
        node[_list_position(node, last, name)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {name}: {'.'.join(parents)} is a single value and has no field {last!r}")


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _child(node: Any, part: str, name: str) -> Any:
    if isinstance(node, list):
        return node[_list_position(node, part, name)]
    if not isinstance(node, dict):
        raise ConfigError(f"--set {name}: nothing lies under {part!r}")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _list_position(node: list[Any], part: str, name: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"--set {name}: {part!r} is none of the positions 0 to {len(node) - 1}")
    return int(part)


def _number(text: str) -> str | float:
    # YAML 1.1 takes 3e-4 (no dot) for a string.
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def _expand(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"], match["default"])
        if found is None:
            raise ConfigError(
                f"{path}: the environment variable {match['name']} is not set; set it or give a default"
            )
        return found

    return _number(_VARIABLE.sub(replace, value)) if "e" in value.lower() else _VARIABLE.sub(replace, value)


def _resolve_paths(config: Config, folder: Path) -> Config:
    def absolute(path: str | Path) -> str:
        # Without resolving links: the user's own name for a place is what messages should show.
        try:
            return os.path.normpath(folder / Path(path).expanduser())
        except RuntimeError as error:
            raise ConfigError(f"{path}: there is no such user's home; give the whole path") from error

    sources = {
        name: source.model_copy(update={"root": Path(absolute(source.root))})
        for name, source in config.datasets.items()
    }
    store = config.store if "://" in config.store else absolute(config.store)
    return config.model_copy(update={"datasets": sources, "store": store})


def _narrow(section: Recipe, recipe: type[_R]) -> _R:
    return recipe.model_validate({name: getattr(section, name) for name in recipe.model_fields})


def _explain(error: ValidationError) -> str:
    """All problems of a config, one a line, with the nearest known name for a typo."""
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"]) or "the config"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{field}: there is no such field{_suggestion(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"{field}: this field is missing")
        else:
            given = problem.get("input")
            shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
            lines.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    return "; ".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    model: Any = Config
    for part in location[:-1]:
        if isinstance(part, int) or not hasattr(model, "model_fields"):
            continue
        field = model.model_fields.get(part)
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((each for each in candidates if hasattr(each, "model_fields")), model)
    near = difflib.get_close_matches(str(location[-1]), list(getattr(model, "model_fields", {})), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

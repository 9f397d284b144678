"""Makes again what a config needs, without the forgotten: an ordinary run with the models as they are.

Which models these were is noted before the list changes, since after it the config's own plan would train.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.config.request import RunRequest
from flows.errors import ConfigError
from flows.forget.holders import MODELS
from flows.run.planning import Outcome, plan_config
from flows.run.running import run_config
from storage import durable
from storage.reading import parse_json, read_regular

FILE = ".forgetting.json"


@dataclass(frozen=True)
class Remake:
    """A config, and its trained models `kind/key` by section, without those that it pins itself."""

    config: Path
    models: Mapping[str, str]
    with_features: bool

    def requests(self, store: str) -> list[RunRequest]:
        """The runs: the features that the branch was trained on, then everything behind both models."""
        pins = {section: f"{section}={{use: {name}}}" for section, name in self.models.items()}
        quiet = ("promote=null",)
        runs = []
        if self.with_features:
            own = tuple(pin for section, pin in pins.items() if section == "detector")
            runs.append(
                RunRequest(config=self.config, overrides=(*own, *quiet), store=store, until="features")
            )
        runs.append(RunRequest(config=self.config, overrides=(*pins.values(), *quiet), store=store))
        return runs


def plan_remakes(configs: Iterable[Path], store: str, store_root: Path) -> list[Remake]:
    """What to make again for the configs: as noted by an interrupted removal, or as they stand now.

    Raises ConfigError for a config whose models are not trained yet.
    """
    noted = _read(store_root)
    return [noted.get(config.resolve()) or _as_it_stands(config, store) for config in configs]


def note(remakes: Iterable[Remake], store_root: Path) -> None:
    """Keep them durably until `forget_note`."""
    remakes = list(remakes)
    if not remakes:
        return
    known = _read(store_root) | {each.config.resolve(): each for each in remakes}
    body = {
        str(config): {"models": dict(each.models), "with_features": each.with_features}
        for config, each in known.items()
    }
    durable.write(store_root / FILE, json.dumps(body, indent=1) + "\n")


def forget_note(store_root: Path) -> None:
    if (store_root / FILE).exists():
        durable.remove(store_root / FILE)


def remake(each: Remake, store: str) -> list[Outcome]:
    """Run it; what exists already is not made again. Raises StageFailed."""
    outcomes = []
    for request in each.requests(store):
        outcome = run_config(request)
        outcome.raise_error()
        outcomes.append(outcome)
    return outcomes


def _as_it_stands(config: Path, store: str) -> Remake:
    plan = plan_config(RunRequest(config=config, store=store))
    models = {}
    for stage in plan.stages:
        if stage["stage"] in MODELS and "pinned" not in stage:
            if stage["state"] != "cached":
                raise ConfigError(
                    f"--config {config}: its {stage['stage']} is not trained in {store}, so there is nothing "
                    "to make again for it: leave it out, or run it first"
                )
            models[stage["stage"]] = f"{stage['stage']}/{stage['key']}"
    with_features = any(stage["stage"].partition(":")[0] == "features" for stage in plan.stages)
    return Remake(config, models, with_features)


def _read(store_root: Path) -> dict[Path, Remake]:
    try:
        body = parse_json(read_regular(store_root / FILE))
        return {
            Path(config): Remake(Path(config), each["models"], each["with_features"])
            for config, each in body.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{store_root / FILE} is damaged: {error}. It says which models the configs had: delete it, and "
            "run `personsearch forget` without --config"
        ) from error

"""Rebuilds what a config needs, without the forgotten: an ordinary run with the models that it had.

Which models these were is noted before the list changes, since after it the config's own plan would train.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.config.pins import TRAINED
from flows.config.request import RunRequest
from flows.errors import ConfigError
from flows.run.planning import plan_config
from flows.run.running import run_config
from storage import durable
from storage.reading import parse_json, read_regular

FILE = ".forgetting.json"


class Remake(BaseModel):
    """A config, and its trained models `kind/key` by section, without those that it pins itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Path
    models: dict[str, str]
    with_features: bool

    def requests(self, store: str) -> list[RunRequest]:
        """The runs: the features that the branch was trained on, then everything behind both models."""
        pins = [f"{section}={{use: {name}}}" for section, name in self.models.items()]
        of_detector = [pin for pin in pins if pin.startswith("detector=")]
        steps: list[tuple[list[str], str | None]] = [(of_detector, "features")] if self.with_features else []
        return [
            RunRequest(config=self.config, overrides=(*used, "promote=null"), store=store, until=until)
            for used, until in [*steps, (pins, None)]
        ]


def plan_remakes(configs: Iterable[Path], store: str, store_root: Path) -> list[Remake]:
    """What to rebuild for the configs: as noted by an interrupted removal, or as they stand now.

    Raises ConfigError for a config whose models are not trained yet.
    """
    noted = _read(store_root)
    return [noted.get(config.resolve()) or _as_it_stands(config, store) for config in configs]


def note(remakes: Iterable[Remake], store_root: Path) -> None:
    """Keep them durably until `forget_note`."""
    wanted = {each.config.resolve(): each for each in remakes}
    if wanted:
        known = _read(store_root) | wanted
        body = {str(config): each.model_dump(exclude={"config"}) for config, each in known.items()}
        durable.write(store_root / FILE, json.dumps(body, indent=1) + "\n")


def forget_note(store_root: Path) -> None:
    if (store_root / FILE).exists():
        durable.remove(store_root / FILE)


def remake(each: Remake, store: str) -> None:
    """Run it; what exists already is not rebuilt. Raises StageFailed."""
    for request in each.requests(store):
        run_config(request).raise_error()


def _as_it_stands(config: Path, store: str) -> Remake:
    plan = plan_config(RunRequest(config=config, store=store))
    models = {}
    for stage in plan.stages:
        if stage["stage"] in TRAINED and "pinned" not in stage:
            if stage["state"] != "cached":
                raise ConfigError(
                    f"--config {config}: its {stage['stage']} is not trained in {store}, so there is nothing "
                    "to rebuild for it: leave it out, or run it first"
                )
            models[stage["stage"]] = f"{stage['stage']}/{stage['key']}"
    with_features = any(stage["stage"].partition(":")[0] == "features" for stage in plan.stages)
    return Remake(config=config, models=models, with_features=with_features)


def _read(store_root: Path) -> dict[Path, Remake]:
    try:
        body = parse_json(read_regular(store_root / FILE))
        return {
            Path(config): Remake.model_validate({**each, "config": config}) for config, each in body.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{store_root / FILE} is damaged: {error}. It says which models the configs had: delete it, and "
            "run `personsearch forget` without --config"
        ) from error

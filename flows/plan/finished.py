"""The finished model of a config: what a search or an export starts from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config.devices import torch_device
from flows.config.loading import load_config
from flows.config.models import Config
from flows.config.trained_on import TRAINED_ON, trained_on
from flows.errors import ConfigError
from flows.plan.states import make_plan, select
from flows.stages.base import test_names
from flows.stages.building import build_stages
from flows.stages.detector import TRAINED_BRANCH
from storage.opening import open_store
from storage.store import Artifact

if TYPE_CHECKING:
    from personsearch_core.search.network import PersonSearchNet


@dataclass(frozen=True)
class FinishedModel:
    """A config's detector and branch, both made."""

    config: Config
    detector: Artifact
    reid: Artifact
    """What holds the branch; the detector itself if both were trained in one step."""

    def load(self, device: str = "auto") -> PersonSearchNet:
        """Detector and branch as one network, on the device."""
        from personsearch_core.models.weights import load_branch, load_detector
        from personsearch_core.search.network import PersonSearchNet

        net = PersonSearchNet(
            load_detector(self.detector.path),
            load_branch(self.reid.path / TRAINED_BRANCH),
            self.config.roi.canonical(),
        )
        return net.to(torch_device(device))

    def finding(self) -> dict[str, Any]:
        """How the config finds people, as arguments of `PersonSearchNet.search`."""
        options, tests = self.config.detections, self.config.evaluation
        searched_from = tests[0].score_threshold if tests else 0.5
        return {
            "score_threshold": max(searched_from, options.score_threshold),
            "nms_threshold": options.nms_threshold,
            "max_per_image": options.max_per_image,
        }

    def provenance(self) -> dict[str, Any]:
        """Of the detector and the branch: key, content digest, date, the recipe of training, its inputs, the
        views that it was trained on; and how people are found."""
        made = {"detector": self.detector.manifest, "reid": self.reid.manifest}
        store = open_store(self.config.store)
        return {"finding": self.finding()} | {
            name: {
                "key": manifest.key,
                "content_digest": manifest.content_digest,
                "created": manifest.created,
                "recipe": manifest.identity.recipe,
                "inputs": manifest.identity.inputs,
                TRAINED_ON: [each.model_dump() for each in trained_on(manifest, store)],
            }
            for name, manifest in made.items()
        }

    def evaluations(self) -> Mapping[str, Artifact]:
        """The evaluations of the model that are built, by the name of the test (dataset, split)."""
        store = open_store(self.config.store)
        built = {
            planned.stage.name: planned.artifact for planned in make_plan(build_stages(self.config), store)
        }
        found = {}
        for suffix, entry in test_names(self.config).items():
            ref = built.get(f"evaluation{suffix}")
            artifact = store.find(ref.kind, ref.key) if ref else None
            if artifact is not None:
                found[f"{entry.test.dataset}, {entry.test.split}"] = artifact
        return found


def finished_model(
    config_path: Path, overrides: Sequence[str] = (), store: str | None = None
) -> FinishedModel:
    """The model that a config's run made. Raises ConfigError when it is not made yet."""
    config = load_config(config_path, overrides, store=store)
    if config.foreign is not None:
        raise ConfigError(
            f"{config_path}: its branch reads features that another program computed (features.use), so "
            "this config has no model that can embed new images"
        )
    stages, _ = select(build_stages(config), until=config.branch_stage)
    opened = open_store(config.store)
    plan = {planned.stage.name: planned for planned in make_plan(stages, opened)}
    stage_of = {"detector": "detector", "reid": config.branch_stage}
    made = {name: plan[stage].artifact for name, stage in stage_of.items()}
    found = {name: opened.find(each.kind, each.key) if each else None for name, each in made.items()}
    detector, reid = found["detector"], found["reid"]
    if detector is None or reid is None:
        name = config.branch_stage if detector else "detector"
        words = ["personsearch", "run", str(config_path)]
        words += [word for change in overrides for word in ("--set", change)]
        words += [] if store is None else ["--store", store]
        raise ConfigError(f"{name} is not built yet; run first: {shlex.join(words)}")
    return FinishedModel(config, detector, reid)

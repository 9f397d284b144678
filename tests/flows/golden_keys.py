"""The keys that stages have: what they are computed over, for every config that is shipped.

`python -m tests.flows.golden_keys` writes `golden_keys.json` again. Do that only where a change of keys is
meant: then a stage's VERSION is raised, and the changelog says what users have to compute again.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from data_catalog.adapters.protocol import Layout
from data_catalog.ingest import Fingerprint
from flows.config.loading import load_config
from flows.stages import ingest
from flows.stages.building import build_stages
from flows.studies.reading import is_study
from storage.digests import digest_json
from storage.manifest import Identity

PROJECT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_suffix(".json")


def shipped_configs() -> list[str]:
    found = (path for path in (PROJECT / "configs").rglob("*.yaml") if not is_study(path))
    return sorted(path.relative_to(PROJECT).as_posix() for path in found)


def stages_of(config_path: str, root: Path) -> dict[str, Any]:
    """Every stage's kind, version, recipe and input names, and its key with stand-in input digests."""
    config = load_config(PROJECT / config_path, store=str(root / "store"))
    sources = {name: source.model_copy(update={"root": root}) for name, source in config.datasets.items()}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "_fingerprint", lambda *_, **__: Fingerprint("stand-in", Layout(()), {}, {}))
        stages = build_stages(config.model_copy(update={"datasets": sources}))
    for stage in stages:
        inputs = {name: f"digest of {name}" for name in (*stage.inputs, *stage.fixed_inputs)}
        identity = Identity(kind=stage.kind, version=stage.version, recipe=stage.recipe, inputs=inputs)
        found[stage.name] = {
            "kind": stage.kind,
            "version": stage.version,
            "recipe": stage.recipe,
            "inputs": sorted(inputs),
            "key": identity.key,
        }
    return found


def current() -> dict[str, Any]:
    """All configs' stages; a recipe that several have is written once."""
    recipes: dict[str, Any] = {}
    configs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("PERSONSEARCH_")]:
            patch.delenv(name)
        for config in shipped_configs():
            configs[config] = stages_of(config, Path(root))
    for stages in configs.values():
        for stage in stages.values():
            name = digest_json(stage["recipe"])[:12]
            recipes[name], stage["recipe"] = stage["recipe"], name
    return {"recipes": recipes, "configs": configs}


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n")

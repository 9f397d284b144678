"""Whom to forget, and the same root edited by hand: for the test of `forget` and its campaign on the demo."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow.compute as pc
import yaml

from data_catalog.snapshot import Snapshot
from flows.config.loading import load_config
from flows.plan.states import resolve
from flows.run.making import make, task_of
from flows.stages.building import build_stages
from storage.local import LocalStore
from storage.store import Artifact
from tests.flows.report.invented import Silent


def whom(snapshot: Snapshot) -> tuple[tuple[str, str], str]:
    """A person who is seen in training images, one who is asked for, and a test image without that one."""
    boxes = snapshot.table("boxes", ["image_id", "split", "person_id"])
    asked = snapshot.table("queries")["person_id"][0].as_py()
    trained = (
        boxes.filter(pc.equal(boxes["split"].cast("string"), "train"))["person_id"].drop_null()[0].as_py()
    )
    of_test = boxes.filter(pc.equal(boxes["split"].cast("string"), "test"))
    shown = set(of_test.filter(pc.equal(of_test["person_id"], asked))["image_id"].to_pylist())
    others = sorted(set(of_test["image_id"].to_pylist()) - shown)
    return (trained, asked), others[0]


def made_of(config: Path, pins: tuple[str, ...], until: str) -> Iterator[tuple[str, Artifact]]:
    """The stages of a config with its models as they are; what is missing is made in this process."""
    loaded = load_config(config, pins)
    store, artifacts = LocalStore(Path(loaded.store)), dict[str, Artifact]()
    for stage in build_stages(loaded):
        planned = resolve(stage, store, artifacts, frozenset(), explain=False)
        assert planned.identity is not None
        if planned.artifact is None:
            make(task_of(planned, store, artifacts), Silent())
        found = store.find(stage.kind, planned.identity.key)
        assert found is not None
        artifacts[stage.name] = found
        yield stage.name, found
        if stage.name == until:
            return


def remade(config: Path, pins: tuple[str, ...], until: str = "report") -> dict[str, Artifact]:
    """The features that the branch was trained on, and what is behind both models."""
    return {**dict(made_of(config, pins[:1], "features")), **dict(made_of(config, pins, until))}


def edited_config(folder: Path, config: Path, dataset: str, people: Collection[str], image: str) -> Path:
    """A config that extends `config` and reads one dataset as if its annotators had taken them out.

    Its adapter is a package in `folder`, which must be on the path.
    """
    (folder / "edited_root.py").write_text(
        f"from tests.edited_prw import Edited\nADAPTER = Edited({sorted(people)!r}, {[image]!r})\n"
    )
    info = folder / "edited_root-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edited-root\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[personsearch.datasets]\nedited = edited_root:ADAPTER\n")
    edited = folder / "edited.yaml"
    datasets = {dataset: {"adapter": "edited"}}
    edited.write_text(yaml.safe_dump({"extends": str(config), "datasets": datasets}))
    return edited

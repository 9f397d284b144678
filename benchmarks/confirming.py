"""Does use improve the search? mAP on identities never confirmed, before and after confirming others.

A simulated user searches the demo's test frames for half of the identities and judges matches by the ground
truth, until 30 are confirmed. The confirmed shots become a dataset, the branch is trained again on it and on
the training frames, and both models search for the other identities: in frames without a confirmed shot, and
in all of them.

    PERSONSEARCH_DEMO=DEMO python -m benchmarks.confirming WORK [--confirmations 30] [--json OUT]

DEMO is the folder of a finished `personsearch demo`; the second training adds artifacts to its store.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks.options import PROGRAM, Work, run_script
from data_catalog.row_tables import COORDINATES
from data_catalog.snapshot import Snapshot
from flows.cli.json_file import Json, write_json
from flows.config.loading import load_config
from flows.config.models import Config
from flows.plan.catalog import StoreSnapshots
from flows.search import Index, build_index, open_index
from flows.search.confirmed import export_confirmed
from flows.search.judgements import Judgements
from flows.search.model import given_model
from personsearch_core import (
    Detections,
    EvaluationInputs,
    EvaluationRecipe,
    GroundTruth,
    Queries,
    SearchProtocol,
    evaluate,
)
from personsearch_core.data.decoding import read_image
from personsearch_core.evaluation.matching import iou
from personsearch_core.identities import UNLABELLED
from storage.opening import open_store

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
DATASET = "scenes"
_LOOKED_AT = 20
"""Matches that the user looks at, per search."""


@dataclass(frozen=True)
class Scenes:
    """The demo's test frames: people in them by frame, and queries."""

    root: Path
    frames: tuple[str, ...]
    boxes: tuple[dict[str, Any], ...]
    queries: tuple[dict[str, Any], ...]

    @property
    def identities(self) -> list[str]:
        return sorted({query["person_id"] for query in self.queries})

    def shows(self, frame: str, box: Sequence[float], person: str) -> bool:
        """Whether a person's true box is where a match says."""
        own = [each for each in self.boxes if each["image_id"] == frame and each["person_id"] == person]
        return any(iou(np.array([box]), np.array([corners(each)]))[0] > 0.5 for each in own)


def corners(row: dict[str, Any]) -> list[float]:
    return [row[name] for name in COORDINATES]


def read_scenes(config: Config) -> Scenes:
    snapshots = StoreSnapshots(open_store(config.store))
    snapshot = Snapshot(snapshots.artifact(DATASET).path)
    images = snapshot.table("images", ["image_id", "rel_path", "split"]).to_pylist()
    frames = {each["image_id"]: each["rel_path"] for each in images if each["split"] == "test"}
    boxes = snapshot.table("boxes", ["image_id", "person_id", *COORDINATES]).to_pylist()
    queries = snapshot.table("queries", ["image_id", "person_id", *COORDINATES]).to_pylist()
    assert all(path == f"frames/{image}" for image, path in frames.items())
    return Scenes(
        Path(config.datasets[DATASET].root) / "frames",
        tuple(sorted(frames)),
        tuple(each for each in boxes if each["image_id"] in frames),
        tuple(queries),
    )


def index_of(model: Path, scenes: Scenes, folder: Path) -> Index:
    """An index of the test frames."""
    listed = folder.with_suffix(".txt")
    listed.write_text("".join(f"{scenes.root / name}\n" for name in scenes.frames))
    build_index(folder, [listed], given_model(model))
    return open_index(folder)


def confirm(index: Index, scenes: Scenes, people: Sequence[str], judgements: Judgements, count: int) -> None:
    """Search for each person in turn and judge the matches, until enough are confirmed."""
    share = -(-count // len(people))
    confirmed = 0
    for person in people:
        for query in (each for each in scenes.queries if each["person_id"] == person):
            held = judgements.of(index, person)
            missing = min(share - len(held.confirmed), count - confirmed)
            found = index.search(
                scenes.root / query["image_id"],
                box=corners(query),
                shots=held.confirmed,
                exclude=[*held.left_out, *held.confirmed],
                exclude_query_image=True,
                top=_LOOKED_AT,
            )
            for match in found.matches:
                if missing <= 0:
                    break
                right = scenes.shows(Path(match.image).name, match.box, person)
                judgements.add(index, person, "confirmed" if right else "rejected", [match.person_row])
                missing, confirmed = missing - right, confirmed + right


def train_again(work: Path, scenes: Scenes) -> Path:
    """Ingest what was confirmed, join it with the training frames, and train; returns the config."""
    demo = yaml.safe_load(DEMO.read_text())
    config = load_config(DEMO, ())

    def run(*words: object) -> None:
        subprocess.run([*PROGRAM, *map(str, words)], check=True)

    options = ("--option", "person_id=person_id", "--option", "camera_id=cam_id")
    where = ("--store", config.store)
    run(
        "datasets",
        "ingest",
        "--adapter",
        "coco",
        "--root",
        work / "confirmed",
        *options,
        *where,
        "--name",
        "confirmed",
    )
    union = work / "union"
    union.mkdir(exist_ok=True)
    for name, target in ((DATASET, scenes.root.parent), ("confirmed", work / "confirmed")):
        if not (union / name).exists():
            (union / name).symlink_to(target)
    views = (
        "--view",
        f"{DATASET}/train",
        "--root",
        DATASET,
        "--view",
        "confirmed/train",
        "--root",
        "confirmed",
    )
    run("datasets", "export", union / "train.json", *views, *where)
    demo["store"] = config.store
    demo["datasets"] = {
        name: {"adapter": each.adapter, "root": str(each.root)} for name, each in config.datasets.items()
    }
    demo["datasets"]["union"] = {
        "adapter": "coco",
        "root": str(union),
        "options": {"annotations": "train.json", "person_id": "person_id", "camera_id": "cam_id"},
    }
    demo["reid"]["train"] = {"dataset": "union", "split": "train"}
    demo["run"]["test_images_in_training"] = "warn"  # the frames with confirmed shots are not scored
    path = work / "again.yaml"
    path.write_text(yaml.safe_dump(demo, sort_keys=False))
    run("run", path, "--until", "reid")
    return path


def score(
    index: Index, scenes: Scenes, people: Collection[str], left_out: Collection[str]
) -> dict[str, float]:
    """PRW's protocol over some people and without some frames, by the evaluator."""
    frames = [name for name in scenes.frames if name not in left_out]
    number = {name: at for at, name in enumerate(frames)}
    identity = {name: at for at, name in enumerate(scenes.identities)}
    queries = [each for each in scenes.queries if each["person_id"] in people and each["image_id"] in number]
    truth = [each for each in scenes.boxes if each["image_id"] in number]
    rows = [row for row in range(len(index)) if index.path(row).name in number]
    detections = Detections(
        np.array([number[index.path(row).name] for row in rows]),
        np.array([index.box(row) for row in rows], np.float32),
        np.array([index.row(row)["score"] for row in rows], np.float32),
        np.stack([index.embedding(row) for row in rows]),
    )
    embeddings = [
        index.net.search(
            [read_image(scenes.root / each["image_id"])], [np.array([corners(each)], np.float32)]
        )
        for each in queries
    ]
    inputs = EvaluationInputs(
        detections,
        len(frames),
        protocols={
            "prw": SearchProtocol(
                Queries(
                    np.array([number[each["image_id"]] for each in queries]),
                    np.array([corners(each) for each in queries], np.float32),
                    np.stack([found.embeddings[0].float().cpu().numpy() for (found,) in embeddings]),
                    np.array([identity[each["person_id"]] for each in queries]),
                )
            )
        },
        truth=GroundTruth(
            np.array([number[each["image_id"]] for each in truth]),
            np.array([corners(each) for each in truth], np.float32),
            np.array([identity.get(each["person_id"], UNLABELLED) for each in truth]),
        ),
    )
    recipe = EvaluationRecipe(
        protocol="prw", score_threshold=index.description.settings.score_threshold, bootstrap_samples=1000
    )
    result = evaluate(recipe, inputs, detection_at=None).searches[0].result
    return {**result.metrics(), "queries": len(queries), "frames": len(frames)}


def main(
    work: Work,
    confirmations: Annotated[int, typer.Option(min=1, help="Number of matches to confirm.")] = 30,
    json_file: Json = None,
) -> None:
    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    scenes = read_scenes(load_config(DEMO, ()))
    confirmed, others = scenes.identities[::2], scenes.identities[1::2]
    before = index_of(DEMO, scenes, work / "before")
    judgements = Judgements(work / "judgements.jsonl")
    if not judgements.read():
        confirm(before, scenes, confirmed, judgements, confirmations)
    exported = export_confirmed(before, judgements, work / "confirmed")
    held = [judgements.of(before, person) for person in confirmed]
    shown = {before.path(row).name for each in held for row in each.confirmed}
    after = index_of(train_again(work, scenes), scenes, work / "after")
    results = {
        "confirmed": sum(len(each.confirmed) for each in held),
        "rejected": sum(len(each.rejected) for each in held),
        "people": exported.people,
        "frames without a confirmed shot": {
            "before": score(before, scenes, others, shown),
            "after": score(after, scenes, others, shown),
        },
        "all test frames": {
            "before": score(before, scenes, others, ()),
            "after": score(after, scenes, others, ()),
        },
    }
    print(json.dumps(results, indent=1))
    write_json(json_file, results)


if __name__ == "__main__":
    run_script(main, __doc__)

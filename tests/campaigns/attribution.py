"""Plant changes one by one and all at once, and compare what `diff --attribute` says with what each one did.

    python -m tests.campaigns.attribution WORK [--threads 2] [--json OUT]

A is a config on drawn scenes: a detector, and a branch that learns from a dataset of its own. Each change is
run by itself: what it does to mAP then is its planted effect. B has all changes. `diff --attribute` is
told neither and must recover them: the same sign and order of size, the largest one within a factor of two.
What a change does to A alone is the planted run itself, under its key; B without it is a replay of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.io import loadmat, savemat

from data_catalog.synthetic import PrwSpec, write_prw
from flows.run.comparing import Comparison, compare
from flows.run.records import read_records
from storage.local import LocalStore
from tests.end_to_end.commands import Outcome, personsearch
from tests.end_to_end.tiny import tiny_settings

SCENES = PrwSpec(
    train_images=120,
    test_images=60,
    width=160,
    height=120,
    train_identities=40,
    test_identities=16,
    cameras=4,
    people=(2, 4),
)
CAMERA = "c1"
SMALL = 1.0
"""Percentage points: effects that differ by less have no order of size."""


@dataclass(frozen=True)
class Planted:
    """A change: the overrides that make it, and the factor that must be found for it."""

    name: str
    overrides: tuple[str, ...]
    factor: str


def write_data(folder: Path) -> None:
    """The scenes, and the same without the training images of one camera."""
    whole, part = folder / "prw", folder / "without_a_camera"
    if part.is_dir():
        return
    write_prw(whole, SCENES, seed=5)
    shutil.copytree(whole, part)
    cells = loadmat(part / "frame_train.mat")["img_index_train"]
    kept = [cell for cell in cells.ravel() if not str(cell.item().item()).startswith(CAMERA)]
    column = np.empty((len(kept), 1), dtype=object)
    column[:, 0] = kept
    savemat(part / "frame_train.mat", {"img_index_train": column})


def write_config(folder: Path, threads: int) -> Path:
    """The tiny config, large enough that a result means something."""
    settings = tiny_settings(folder, str(folder / "store"))
    del settings["datasets"]["tracks"]
    settings["datasets"]["people"] = {"adapter": "prw", "root": str(folder / "prw")}
    settings["detector"]["train"] = [{"dataset": "scenes", "split": "train"}]
    settings["reid"]["train"] = {"dataset": "people", "split": "train"}
    settings["gallery"] = {"untrained": False}
    settings["detector"]["model"] |= {"fpn_channels": 32, "image_width": 160, "image_height": 128}
    settings["detector"]["training"] |= {"steps": 200, "batch_size": 4, "optimiser": "adamw", "lr": 1e-3}
    settings["detector"]["training"]["gradient_clip"] = 10.0
    settings["roi"] = {"variant": "j3", "roi_scale": 0.5}
    settings["features"] = {"views": [{"kind": "plain"}, {"kind": "mirrored"}]}
    settings["reid"] |= {"identities_per_batch": 8, "shots": 4, "branch": {"embedding_dim": 64}}
    settings["reid"]["phases"] = [
        {"epochs": 2, "objectives": [{"kind": "semi_hard_triplet"}]},
        {"epochs": 4, "objectives": [{"kind": "batch_hard_triplet"}]},
    ]
    settings["evaluation"]["score_threshold"] = 0.2
    settings["run"] |= {"threads": threads, "checkpoint_seconds": 60}
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def run(config: Path, store: Path, overrides: Sequence[str]) -> str:
    """Run a config up to its evaluation; the id of the run that built it, now or before."""
    words = [word for each in overrides for word in ("--set", each)]
    target = ("--until", "evaluation", "--store", store)
    outcome = personsearch(
        "run", config, *words, *target, json_to=store.with_name("outcome.json"), timeout=3000
    )
    _succeeded(outcome)
    wanted = [outcome.path("evaluation").name]
    return next(name for name, keys in _evaluations(store).items() if keys == wanted)


def effect(store: Path, before: str, after: str) -> Comparison:
    """What a change did to mAP, by the two runs of a store."""
    opened, of_run = LocalStore(store), _evaluations(store)
    found = [opened.find("evaluation", of_run[name][0]) for name in (before, after)]
    assert found[0] is not None and found[1] is not None
    compared = compare(opened, found[0], found[1], "mAP")
    assert compared is not None
    return compared


def _evaluations(store: Path) -> dict[str, list[str]]:
    """The keys of each run's evaluations; a replay of several members has several."""
    return {
        record.name: [str(each["key"]) for each in record.stages if each["stage"] == "evaluation"]
        for record in read_records(store)
    }


def problems(planted: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Where the attribution misses what was planted."""
    wrong = []
    largest = max(planted, key=lambda name: abs(planted[name]))
    if not 0.5 <= found[largest] / planted[largest] <= 2:
        wrong.append(f"{largest}: {planted[largest]:+.1f} planted, {found[largest]:+.1f} found")
    for one in planted:
        if abs(planted[one]) > SMALL and abs(found[one]) > SMALL and planted[one] * found[one] < 0:
            wrong.append(f"{one}: the sign differs")
        for other in planted:
            gap = abs(planted[one]) - abs(planted[other])
            if gap > SMALL and abs(found[one]) < abs(found[other]) - SMALL:
                wrong.append(f"{one} is larger than {other} where planted, and smaller where found")
    return wrong


def campaign(folder: Path, threads: int) -> dict[str, Any]:
    """Run all of it under `folder`, where an interrupted campaign goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    config = write_config(folder, threads)
    changes = (
        Planted("re-ID rate 1e-3 to 1e-5", ("reid.lr=1e-5",), "re-ID recipe"),
        Planted(
            "a camera of four dropped from re-ID's data",
            (f"datasets.people.root={folder / 'without_a_camera'}",),
            "data of people, scenes",
        ),
        Planted("re-ID seed 0 to 1", ("reid.seed=1",), "seeds"),
    )
    store = folder / "store"
    before = run(config, store, ())
    planted = {each.factor: effect(store, before, run(config, store, each.overrides)) for each in changes}
    after = run(config, store, [override for each in changes for override in each.overrides])
    out = folder / "diff.json"
    found = personsearch(
        "diff",
        before,
        after,
        "--attribute",
        "--store",
        store,
        "--html",
        folder / "diff.html",
        json_to=out,
        timeout=3000,
    )
    _succeeded(found)
    account = next(each for each in found.data["attribution"]["accounts"] if each["metric"] == "mAP")
    shares = {each["factor"]: each for each in account["shares"]}
    rows = [
        {
            "change": each.name,
            "planted": planted[each.factor].difference,
            "planted_interval": [planted[each.factor].low, planted[each.factor].high],
            **{part: shares[each.factor][part]["difference"] for part in ("both", "alone", "last")},
            "interval": [shares[each.factor]["both"]["low"], shares[each.factor]["both"]["high"]],
        }
        for each in changes
    ]
    wrong = problems(
        {each.factor: planted[each.factor].difference for each in changes},
        {each.factor: shares[each.factor]["both"]["difference"] for each in changes},
    )
    return {
        "rows": rows,
        "total": account["total"],
        "left_over": account["left_over"],
        "mAP": found.data["tests"][0]["metrics"]["mAP"],
        "made": found.data["attribution"]["made"],
        "wrong": wrong,
    }


def table(result: Mapping[str, Any]) -> str:
    """The rows as Markdown, in percentage points of mAP."""
    lines = [
        "| change | planted, by itself | found | A with it | B without it |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        planted = "{:+.1f} ({:+.1f} to {:+.1f})".format(row["planted"], *row["planted_interval"])
        found = "{:+.1f} ({:+.1f} to {:+.1f})".format(row["both"], *row["interval"])
        lines.append(f"| {row['change']} | {planted} | {found} | {row['alone']:+.1f} | {row['last']:+.1f} |")
    total = result["total"]
    lines.append(f"| factors together | | {result['left_over']:+.1f} | | |")
    lines.append(
        f"| all of it | | {total['difference']:+.1f} ({total['low']:+.1f} to {total['high']:+.1f}) | | |"
    )
    return "\n".join(lines)


def _succeeded(outcome: Outcome) -> None:
    if outcome.status:
        raise AssertionError(f"a command ended with {outcome.status}: {outcome.stderr}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    result = campaign(chosen.work.absolute(), chosen.threads)
    print(table(result))
    print(f"mAP of A {100 * result['mAP']['a']:.1f} %, of B {100 * result['mAP']['b']:.1f} %")
    for each in result["wrong"]:
        print(f"WRONG: {each}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())

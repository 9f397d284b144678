"""Forget two people and an image of the demo, and compare with a root whose rows were edited so.

    python -m tests.campaigns.forgetting WORK [--demo var/demo]

The demo's folder is copied twice into WORK. In one copy a person of the training images, a person who is
asked for and a test image are forgotten by command, from the store and the index; the command's scan must
find them before, and nothing after. In the other copy an adapter reads the scenes as if their annotators had
taken out the same. All snapshots, features, detections and galleries must have the same digests, and must
differ from the demo's own. The models are pinned in both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from data_catalog.snapshot import Snapshot
from flows.search import open_index
from storage.local import LocalStore
from storage.store import Artifact
from tests.end_to_end.commands import personsearch
from tests.forgetting import edited_config, made_of, remade, whom

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"


def of_config(config: Path, pins: tuple[str, ...] = ()) -> dict[str, Artifact]:
    return dict(made_of(config, pins, "report"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--demo", type=Path, default=Path("var/demo"), help="built by personsearch demo")
    arguments = parser.parse_args()
    ours, by_hand = (arguments.work / name for name in ("forgotten", "edited"))
    for copy in (ours, by_hand):
        shutil.copytree(arguments.demo, copy)

    os.environ["PERSONSEARCH_DEMO"] = str(ours.resolve())
    before = of_config(CONFIG)
    people, image = whom(
        Snapshot(LocalStore(ours / "store").local_path("ingest", before["ingest:scenes"].key))
    )
    pins = tuple(f"{stage}={{use: {stage}/{before[stage].key}}}" for stage in ("detector", "reid"))
    print(f"forgetting the people {', '.join(people)} and {image}")
    words = [word for person in people for word in ("--person", f"scenes/{person}")]
    words += ["--image", f"scenes/{image}", "--config", str(CONFIG), "--index", str(ours / "index")]
    start = time.monotonic()
    outcome = personsearch("forget", *words)
    print(outcome.stdout + outcome.stderr, f"\nstatus {outcome.status}, {time.monotonic() - start:.0f} s")
    faults = [] if outcome.status == 0 and "scan after: nothing found" in outcome.stdout else ["the scan"]
    if any(image in str(source) for source in open_index(ours / "index").sources):
        faults.append("the index has the image")
    after = remade(CONFIG, pins)

    os.environ["PERSONSEARCH_DEMO"] = str(by_hand.resolve())
    sys.path.insert(0, str(arguments.work.resolve()))
    edited = remade(edited_config(arguments.work.resolve(), CONFIG, "scenes", people, image), pins, "gallery")
    for name, artifact in edited.items():
        equal = artifact.content_digest == after[name].content_digest
        changed = artifact.content_digest != before[name].content_digest
        print(f"{name:<16} {'the same' if equal else 'DIFFERS'}, {'changed' if changed else 'as before'}")
        faults += [] if equal else [name]
        faults += (
            [] if changed or name in ("ingest:tracks", "detector", "reid") else [f"{name} did not change"]
        )
    print("faults: " + ("none" if not faults else ", ".join(faults)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

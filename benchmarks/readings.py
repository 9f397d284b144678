"""What all readings of PRW's test set cost, against one: the whole command, and its evaluation alone.

    python -m benchmarks.readings [--annotations prw_test_pid.json.xz] [--repeats 3] [--json OUT]

Detections, queries and embeddings are drawn (benchmarks.drawn_galleries); with `--annotations`, a COCO file
with `person_id` per box, around the people that it annotates. Ground-truth boxes have embeddings too. Run it
with one BLAS thread (OPENBLAS_NUM_THREADS=1); times are CPU seconds, medians.
"""

from __future__ import annotations

import json
import lzma
import re
import resource
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.drawn_galleries import DIMENSIONS, prw_like
from benchmarks.options import PROGRAM, run_script
from flows.cli.json_file import Json, write_json
from personsearch_core.evaluation.records import Detections, FloatArray, GroundTruth, IntArray, Queries
from personsearch_core.evaluation.tables import BOX
from personsearch_core.identities import UNLABELLED

N_QUERIES, N_DETECTIONS = 2_057, 31_000
Problem = tuple[Detections, Queries, GroundTruth, IntArray]


def annotated(path: Path, rng: np.random.Generator) -> Problem:
    """PRW's own people and cameras; each person is detected a few pixels off, and boxes drawn in addition."""
    with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
        body = json.load(file)
    number = {image["id"]: i for i, image in enumerate(body["images"])}
    cameras = np.array([int(re.match(r"c(\d)", image["file_name"])[1]) for image in body["images"]])  # type: ignore[index]
    image = np.array([number[box["image_id"]] for box in body["annotations"]])
    x, y, width, height = np.array([box["bbox"] for box in body["annotations"]], np.float32).T
    person = np.array([box["person_id"] for box in body["annotations"]])
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    truth = GroundTruth(image, boxes, np.where(person < 0, UNLABELLED, person))
    drawn, _, _, _ = prw_like(rng, len(cameras), N_DETECTIONS)
    near = boxes + rng.integers(-3, 4, boxes.shape).astype(np.float32)
    n_drawn = N_DETECTIONS - len(boxes)
    found = Detections(
        np.concatenate([image, drawn.image[:n_drawn]]),
        np.concatenate([near, drawn.boxes[:n_drawn]]),
        drawn.scores,
        drawn.embeddings,
    )
    found = found.select(np.argsort(found.image, kind="stable"))
    asked = rng.choice(np.flatnonzero(truth.person_id >= 0), N_QUERIES, replace=False)
    described = drawn.embeddings[rng.choice(N_DETECTIONS, N_QUERIES, replace=False)]
    return found, Queries(image[asked], boxes[asked], described, truth.person_id[asked]), truth, cameras


def write(problem: Problem, folder: Path) -> list[str]:
    """The tables of `personsearch score prw`; its options."""
    found, queries, truth, cameras = problem
    described = found.embeddings[np.random.default_rng(1).choice(len(found), len(truth))]
    people = pa.array(truth.person_id, mask=truth.person_id < 0)
    tables = {
        "detections": {
            **_boxes(found.image, found.boxes),
            "score": found.scores,
            **_embedding(found.embeddings),
        },
        "queries": {
            "query": np.arange(len(queries)),
            **_boxes(queries.image, queries.boxes),
            "person_id": queries.person_ids(),
            **_embedding(queries.embeddings),
        },
        "images": {"image": np.arange(len(cameras)), "camera_id": cameras},
        "boxes": {**_boxes(truth.image, truth.boxes), "person_id": people, **_embedding(described)},
    }
    options = []
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        options += [f"--{name}", str(folder / f"{name}.parquet")]
    return options


def _boxes(image: IntArray, boxes: FloatArray) -> dict[str, Any]:
    return {"image": image, **{name: boxes[:, i] for i, name in enumerate(BOX)}}


def _embedding(rows: FloatArray) -> dict[str, Any]:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return {"embedding": pa.FixedSizeListArray.from_arrays(pa.array(unit.ravel()), DIMENSIONS)}


def command(options: list[str], out: Path) -> tuple[float, dict[str, Any]]:
    """CPU seconds of one command, and its numbers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*PROGRAM, "score", "prw", *options, "--json", str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(out.read_text())


def main(
    annotations: Annotated[Path | None, typer.Option(help="COCO file with person_id, also as .xz.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each command runs.")] = 3,
    json_file: Json = None,
) -> None:
    rng = np.random.default_rng(0)
    problem = prw_like(rng) if annotations is None else annotated(annotations, rng)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        options = write(problem, Path(folder))
        for name, more in (("one reading", []), ("all readings", ["--all-readings"])):
            runs = [command([*options, *more], Path(folder) / "out.json") for _ in range(repeats)]
            rows[name] = {
                "command": statistics.median(seconds for seconds, _ in runs),
                "evaluation": statistics.median(numbers["seconds"]["evaluate"] for _, numbers in runs),
                "readings": len(runs[0][1].get("readings", [name])),
            }
    one, everything = rows["one reading"], rows["all readings"]
    for name, row in rows.items():
        print(f"{name:<14} {row['readings']:3.0f}  {row['command']:6.2f} s  {row['evaluation']:6.2f} s")
    for part in ("command", "evaluation"):
        print(f"{part}: {everything[part] / one[part]:.2f} x the time of one reading")
    write_json(json_file, rows)


if __name__ == "__main__":
    run_script(main, __doc__)

"""The cost of the catalog on full-size synthetic annotations, each measurement in a process of its own.

- prw: 11,816 annotation files, 43,110 boxes, without images: ingested by the command line, then again.
- coco: COCO JSON with --boxes boxes into Parquet, then the training boxes of one dataset read back.
- protocols: CUHK-SYSU's six gallery files, 2,900 queries each, into Parquet and back as arrays.
- decoding: the check that images decode, against the same threads that only decode.

    python -m benchmarks.catalog WORK [--only prw,coco,protocols,decoding] [--boxes 10000000] [--json OUT]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow.compute as pc
import typer
from PIL import Image

from benchmarks.options import PROGRAM, Work, chosen, run_script
from benchmarks.timing import seconds_of
from data_catalog.decode_checks import DecodedImages, undecodable_images
from data_catalog.parallel import cores
from data_catalog.snapshot import Snapshot
from data_catalog.synthetic import write_protocol, write_prw_annotations
from flows.cli.json_file import Json, write_json

BOXES_A_DATASET = 43_110
"""Number of training boxes to read out of all boxes: as many as PRW has in total."""
GALLERIES = (50, 100, 500, 1_000, 2_000, 4_000)
POLL_SECONDS = 0.05
IMAGES_TO_DECODE, PAIRS = 100, 5


def measure_prw(work: Path) -> dict[str, Any]:
    """Ingest, then ingest again without changes."""
    root = work / "prw"
    if not root.exists():
        write_prw_annotations(root)
    arguments = ("--adapter", "prw", str(root), "--no-images")
    first, again = (_ingest(work, "prw", *arguments) for _ in range(2))
    return {
        "files": len(list((root / "annotations").iterdir())),
        "boxes": first["boxes"],
        "ingest_seconds": first["process_seconds"],
        "again_seconds": again["wall_seconds"],
        "again_process_seconds": again["process_seconds"],
        "peak_gib": first["peak_gib"],
    }


def measure_coco(work: Path, boxes: int) -> dict[str, Any]:
    """Ingest one long file, then read a split with 1/200 of its rows."""
    root = work / "coco"
    if not (root / "val.json").exists():
        write_coco(root, boxes)
    found = _ingest(work, "coco", "--adapter", "coco", str(root), "--no-images")
    snapshot = Snapshot(Path(found["path"]))
    started = time.perf_counter()
    table = snapshot.table("boxes", filter=pc.field("split") == "train")
    return {
        "boxes": found["boxes"],
        "file_gib": sum(path.stat().st_size for path in root.glob("*.json")) / 2**30,
        "ingest_seconds": found["seconds"],
        "boxes_a_second": found["boxes"] / found["seconds"],
        "peak_gib": found["peak_gib"],
        "read_rows": len(table),
        "read_seconds": time.perf_counter() - started,
    }


def measure_protocols(work: Path) -> dict[str, Any]:
    """Ingest the six protocol files of a root without images, and read back the largest."""
    root = work / "cuhk"
    folder = root / "annotation" / "test" / "train_test"
    folder.mkdir(parents=True, exist_ok=True)
    for size in GALLERIES:
        if not (folder / f"TestG{size}.mat").exists():
            write_protocol(folder / f"TestG{size}.mat", gallery=size)
    found = _ingest(work, "cuhk", "--adapter", "cuhk-sysu", str(root), "--no-images")
    started = time.perf_counter()
    table = Snapshot(Path(found["path"])).gallery(f"TestG{GALLERIES[-1]}")
    return {
        "gallery_rows": found["gallery"],
        "ingest_seconds": found["seconds"],
        "peak_gib": found["peak_gib"],
        "read_rows": len(table),
        "read_seconds": time.perf_counter() - started,
    }


def measure_decoding(work: Path) -> dict[str, Any]:
    """Images of 1920x1080 pixels, decoded alternately by the check and by a bare thread pool."""
    root = work / "images"
    root.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (270, 480, 3), np.uint8)
    for number in range(IMAGES_TO_DECODE):
        if not (path := root / f"{number}.jpg").exists():
            Image.fromarray(np.roll(noise, number, axis=1)).resize((1920, 1080)).save(path)
    images = {path.name: path.name for path in sorted(root.iterdir())}

    def alone() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(_decode, (root / name for name in images)))

    def checked() -> None:
        assert not undecodable_images(root, images, DecodedImages(None))

    seconds = [(seconds_of(alone), seconds_of(checked)) for _ in range(PAIRS)]
    return {
        "images": len(images),
        "alone_a_second": len(images) / statistics.median(pair[0] for pair in seconds),
        "checked_a_second": len(images) / statistics.median(pair[1] for pair in seconds),
        "ratio": statistics.median(pair[0] / pair[1] for pair in seconds),
    }


def _decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def write_coco(root: Path, boxes: int, *, seed: int = 0) -> None:
    """Two annotation files: `train.json` with as many boxes as PRW, and `val.json` with the rest.

    Images have ten boxes each and exist only by name.
    """
    root.mkdir(parents=True, exist_ok=True)
    train = min(BOXES_A_DATASET, boxes // 2)
    first = boxes - train
    _write_coco(root / "train.json", "t", train, np.random.default_rng([seed, 0]))
    _write_coco(root / "val.json", "v", first, np.random.default_rng([seed, 1]))


def _write_coco(path: Path, prefix: str, boxes: int, rng: np.random.Generator) -> None:
    images = -(-boxes // 10)
    with path.open("w") as file:
        file.write('{"categories": [{"id": 1, "name": "person"}],\n"images": [')
        for number in range(images):
            comma = "," if number else ""
            name = f"{prefix}{number}.jpg"
            file.write(f'{comma}\n{{"id": {number}, "file_name": "{name}", "width": 1920, "height": 1080}}')
        file.write('],\n"annotations": [')
        for start in range(0, boxes, 100_000):
            count = min(100_000, boxes - start)
            corners = rng.uniform(0, 900, (count, 2)).round(2)
            sizes = rng.uniform(10, 300, (count, 2)).round(2)
            rows = np.concatenate([corners, sizes], axis=1).tolist()
            lines = (
                f'{{"id": {n}, "image_id": {n // 10}, "category_id": 1, "iscrowd": 0, "bbox": {box}}}'
                for n, box in enumerate(rows, start=start)
            )
            file.write((",\n" if start else "\n") + ",\n".join(lines))
        file.write("]}\n")


def _ingest(work: Path, name: str, *arguments: str) -> dict[str, Any]:
    """The output of `personsearch datasets ingest`, with the wall time and peak memory of its process."""
    out = work / f"{name}.json"
    command = [*PROGRAM, "datasets", "ingest", *arguments, "--store", str(work / "store"), "--json", str(out)]
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(process))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit status {process.returncode}")
    seconds = time.perf_counter() - started
    return {**json.loads(out.read_text()), "process_seconds": seconds, "peak_gib": peak / 2**30}


def _memory(process: psutil.Popen) -> int:
    """Resident memory of a process and its children, in bytes."""
    try:
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


MEASUREMENTS = ("prw", "coco", "protocols", "decoding")


def main(
    work: Work,
    only: Annotated[str, typer.Option(help="Measurements, comma-separated.")] = ",".join(MEASUREMENTS),
    boxes: Annotated[int, typer.Option(min=2, help="Boxes of the COCO files.")] = 10_000_000,
    json_file: Json = None,
) -> None:
    measurements: dict[str, Callable[[Path], dict[str, Any]]] = {
        "prw": measure_prw,
        "coco": partial(measure_coco, boxes=boxes),
        "protocols": measure_protocols,
        "decoding": measure_decoding,
    }
    results = {name: measurements[name](work.absolute()) for name in chosen("--only", only, MEASUREMENTS)}
    for name, found in results.items():
        print(name)
        for field, value in found.items():
            print(
                f"  {field:<22} {value:>14,.3f}"
                if isinstance(value, float)
                else f"  {field:<22} {value:>14,}"
            )
    write_json(json_file, results)


if __name__ == "__main__":
    run_script(main, __doc__)

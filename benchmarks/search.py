"""Search against its floors: one product over all embeddings, and the model's own images per second."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import typer

from benchmarks.drawing import draw_scenes
from benchmarks.options import VAR, Device, Folder, Rounds, temporary_folder
from benchmarks.timing import Measurement, medians_in_turn, report, seconds_of
from data_catalog.row_tables import COORDINATES
from flows.cli.json_file import Json
from flows.config.devices import torch_device
from flows.search import build_index, open_index
from flows.search.building import BATCH, Where
from flows.search.committing import commit
from flows.search.layout import PEOPLE_SCHEMA, SOURCES_SCHEMA, Description, Settings
from flows.search.merging import Merged
from flows.search.model import GivenModel, given_model
from flows.search.segments import Part
from flows.search.sources import place_of
from personsearch_core.data.decoding import read_image
from personsearch_core.export import save_model
from personsearch_core.models.branch import build_branch
from personsearch_core.models.detector import build_detector
from personsearch_core.recipes import BranchModel, DetectorModel, RoiRecipe

DIMENSIONS = 256
PEOPLE_PER_IMAGE = 5
MODEL = DetectorModel(initial_weights=None, norm="batch")


@dataclass(frozen=True)
class SearchBenchmark:
    """How much to search and to index, and how often."""

    people: int = 1_000_000
    images: int = 100
    rounds: int = 5
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    model: DetectorModel = MODEL
    size: tuple[int, int] = (1920, 1080)
    """Width and height of the images: PRW's."""


def measure_search(folder: Path, size: SearchBenchmark) -> Iterator[Measurement]:
    """Opening, a query and its memory in a new process; then indexing, and adding one image in a hundred.

    What has a size of 0 is left out.
    """
    if size.people:
        yield from _querying(folder, size)
    if size.images:
        yield from _indexing(folder, size)


def _querying(folder: Path, size: SearchBenchmark) -> Iterator[Measurement]:
    index = folder / "drawn"
    draw_index(index, size.people)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found = pool.apply(_open_and_query, (index, size.rounds))
    shutil.rmtree(index)
    group, rounds = f"{size.people:,} people", size.rounds
    yield Measurement(group, "opening", found["opening"], 1, found["opening"], "s", at_most=1.0)
    for name in found["products"]:
        seconds = found["seconds"][name]
        yield Measurement(group, f"one product: {name}", seconds, rounds, 1000 * seconds, "ms")
    quickest = min(found["products"], key=lambda name: found["seconds"][name])
    floor = found["seconds"][quickest]
    yield Measurement(group, "first query, which reads them", found["first"], 1, found["first"], "s")
    for name in ("query", "query of one camera"):
        seconds, bound = found["seconds"][name], 1.2 if name == "query" else None
        yield Measurement(group, name, seconds, rounds, seconds / floor, f"x {quickest}", at_most=bound)
    memory = found["memory"]
    yield Measurement(group, "memory beside the libraries", 0.0, 1, memory["added"], "GiB", at_most=1.0)
    yield Measurement(group, "memory of the process", 0.0, 1, memory["process"], "GiB")


def draw_index(folder: Path, people: int) -> None:
    """An index of random embeddings: two cameras, five people per image, a picture per second."""
    generator = np.random.default_rng(0)
    embeddings = np.empty((people, DIMENSIONS), np.float16)
    for start in range(0, people, 65_536):
        rows = generator.standard_normal((min(65_536, people - start), DIMENSIONS), np.float32)
        embeddings[start : start + len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    source = np.arange(people) // PEOPLE_PER_IMAGE
    images = int(source[-1]) + 1
    names = pa.array([f"camera{number % 2}/{number:08d}.jpg" for number in range(images)])
    boxes = {name: generator.uniform(0, 1000, people).astype(np.float32) for name in COORDINATES}
    columns = {
        "source": pa.array(source, pa.int32()),
        "place": pa.array(np.zeros(people), pa.int16()),
        "image": pa.DictionaryArray.from_arrays(pa.array(source, pa.int32()), names),
        **{name: pa.array(values) for name, values in boxes.items()},
        "score": pa.array(np.ones(people, np.float32)),
        "camera": pa.DictionaryArray.from_arrays(pa.array(source % 2, pa.int32()), ["camera0", "camera1"]),
        "time": pa.array(1000 * source, pa.timestamp("ms")),
        **{
            name: pa.nulls(people, PEOPLE_SCHEMA.field(name).type) for name in ("frame", "time_code", "track")
        },
    }
    table = pa.table(columns, schema=PEOPLE_SCHEMA)
    sources = pa.table(
        {
            field.name: names if field.name == "image" else pa.nulls(images, field.type)
            for field in SOURCES_SCHEMA
        },
        schema=SOURCES_SCHEMA,
    )
    merged = Merged(
        sources, table, [Part(sources, table, embeddings)], np.zeros(people, np.int64), np.arange(people)
    )
    description = Description(
        model="drawn",
        dimensions=DIMENSIONS,
        settings=Settings(),
        places=(place_of(folder.parent, folder),),
        people=people,
        sources=len(sources),
        content="drawn",
    )
    commit(folder, merged, description)


def _open_and_query(folder: Path, rounds: int) -> dict[str, Any]:
    """In a process of its own, for its memory: seconds of opening and of queries, and of torch's products."""
    import flows.search.index
    import flows.search.query  # noqa: F401  # loading modules is the start of a process, not opening

    before = _memory("VmRSS")
    started = time.perf_counter()
    index = open_index(folder, "cpu")
    opening = time.perf_counter() - started
    query = torch.nn.functional.normalize(torch.ones(DIMENSIONS), dim=0)
    started = time.perf_counter()
    index.search(embedding=query, top=10)
    first = time.perf_counter() - started
    queries = {
        "query": lambda: index.search(embedding=query, top=10),
        "query of one camera": lambda: index.search(embedding=query, top=10, cameras=["camera0"]),
    }
    memory = {"process": _memory("VmHWM"), "added": _memory("VmHWM") - before}
    rows = torch.from_numpy(np.concatenate(index.blocks))
    half = query.half()
    coarse, coarse_query = rows.bfloat16(), query.bfloat16()
    products = {
        "float16 mm": lambda: rows @ half[:, None],
        "float16 mv": lambda: rows @ half,
        "float16 linear": lambda: torch.nn.functional.linear(half[None], rows),
        "bfloat16 mv": lambda: coarse @ coarse_query,
        "bfloat16 linear": lambda: torch.nn.functional.linear(coarse_query[None], coarse),
    }
    seconds = medians_in_turn({**queries, **products}, rounds)
    return {
        "opening": opening,
        "first": first,
        "seconds": seconds,
        "products": [*products],
        "memory": memory,
    }


def _memory(line: str) -> float:
    """GiB of this process by a line of its status, mapped files included: VmRSS now, VmHWM at its peak."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**20 if found else float("nan")


def _indexing(folder: Path, size: SearchBenchmark) -> Iterator[Measurement]:
    width, height = size.size
    scenes = draw_scenes(folder / "images", size.images, width=width, height=height, people=1)
    model = _model(folder / "model", size)
    net = model.load(str(size.device))
    where = Where(device=str(size.device))
    placed = [net.place(read_image(scene.path)) for scene in scenes[: 2 * BATCH]]
    finding = model.settings.finding()

    def model_alone() -> None:
        for start in range(0, len(scenes), BATCH):
            at = start % len(placed)
            net.search_placed(placed[at : at + min(BATCH, len(scenes) - start)], **finding)

    def index_all() -> None:
        shutil.rmtree(folder / "index", ignore_errors=True)
        build_index(folder / "index", [folder / "images"], model, where=where)

    contenders = {"model alone": model_alone, "index": index_all}
    net.search_placed(placed[:BATCH], **finding)
    rounds = max(1, size.rounds // 2)
    seconds = medians_in_turn(contenders, rounds)
    group = f"{size.images} images of {width}x{height}"
    rate = size.images / seconds["model alone"]
    yield Measurement(group, "model alone", seconds["model alone"], rounds, rate, "images/s")
    ratio = seconds["model alone"] / seconds["index"]
    yield Measurement(group, "indexing", seconds["index"], rounds, ratio, "x model's rate", at_least=0.95)
    more = max(1, size.images // 100)
    draw_scenes(folder / "images", size.images + more, width=width, height=height, people=1)
    added = seconds_of(partial(build_index, folder / "index", where=where, model=model))
    part = 100 * added / seconds["index"]
    yield Measurement(group, f"{more} more", added, 1, part, "% of all", at_most=3.0)


def _model(folder: Path, size: SearchBenchmark) -> GivenModel:
    """Random weights; a threshold that a dozen people of each image pass, as in busy scenes."""
    torch.manual_seed(0)
    detector = build_detector(size.model).eval()
    branch = build_branch("j3", size.model, BranchModel(initial_weights="random", norm="frozen_batch")).eval()
    save_model(folder, detector, branch, RoiRecipe(variant="j3"))
    settings = Settings(score_threshold=0.0, max_per_image=PEOPLE_PER_IMAGE)
    return replace(given_model(folder), settings=settings).loaded_once()


def search(
    people: int = typer.Option(
        1_000_000, min=0, help="Number of people in the index that is searched; 0: no query."
    ),
    images: int = typer.Option(100, min=0, help="Number of images that are indexed; 0: none."),
    rounds: Rounds = 5,
    device: Device = "auto",
    folder: Folder = VAR,
    json_file: Json = None,
) -> None:
    """Measure search against one product over all embeddings, and indexing against the model alone.

    Example: personsearch benchmark search --images 0
    """
    size = SearchBenchmark(people=people, images=images, rounds=rounds, device=torch_device(device))
    with temporary_folder("search", folder) as temporary:
        settings = {"people": people, "images": images, "rounds": rounds, "device": str(size.device)}
        report(measure_search(temporary, size), settings, json_file)

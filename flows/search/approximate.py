"""An approximate index beside the exact search, for more people than one product can take: HNSW by usearch.

`approximate.usearch` holds the graph, `approximate.json` which content it belongs to and its recall, measured
against the exact search when it was built, and `approximate.sha256` the digests of both.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flows.errors import ConfigError
from flows.search.index import Index
from personsearch_core.checksums import checksum_text, problems
from personsearch_core.search.top_k import Similarities
from storage import durable
from storage.reading import parse_json, read_regular
from storage.trust import stat_key

GRAPH, ABOUT, GRAPH_CHECKSUMS = "approximate.usearch", "approximate.json", "approximate.sha256"
VERIFIED = ".approximate.verified"
"""Size, time and inode of the graph when it was last checked against its digest."""
TOP = 10
_QUERIES = 200
_NEIGHBOURS = 16
_BUILD_WIDTH, _SEARCH_WIDTH = 128, 256


@dataclass(frozen=True)
class Recall:
    """How much an approximate search finds of the exact one's matches.

    recall: part of the ten best of the exact search that are among its ten best, over `queries` people of
    the index. people, content: of the index.
    """

    content: str
    people: int
    queries: int
    recall: float


def build_approximate(index: Index) -> Recall:
    """Build the graph of an index and measure its recall.

    Raises ConfigError if usearch is not installed, or if the index is empty.
    """
    graph = _usearch().Index(
        ndim=index.description.dimensions,
        metric="ip",
        dtype="f16",
        connectivity=_NEIGHBOURS,
        expansion_add=_BUILD_WIDTH,
        expansion_search=_SEARCH_WIDTH,
    )
    if not len(index):
        raise ConfigError("the index is empty: there are no people to search for")
    start = 0
    for block in index.blocks:
        graph.add(np.arange(start, start + len(block)), np.ascontiguousarray(block))
        start += len(block)
    (index.folder / ABOUT).unlink(missing_ok=True)
    durable.remove_abandoned(index.folder)
    with durable.whole_file(index.folder / GRAPH) as partial:
        graph.save(str(partial))
        recall = Recall(index.description.content, len(index), *_measured(index, graph))
        about = json.dumps(asdict(recall), indent=1) + "\n"
        sums = checksum_text({GRAPH: partial, ABOUT: about.encode()})
    durable.write(index.folder / GRAPH_CHECKSUMS, sums)
    durable.write(index.folder / ABOUT, about)
    return recall


class Approximate:
    """The graph of an index, mapped into memory. Raises ConfigError if it is missing or outdated."""

    def __init__(self, index: Index) -> None:
        try:
            self.recall = Recall(**parse_json(read_regular(index.folder / ABOUT)))
        except (OSError, ValueError, TypeError) as error:
            missing = f"{index.folder} has no approximate index (no sound {ABOUT})"
            raise _rebuild(index, missing) from error
        if self.recall.content != index.description.content:
            raise _rebuild(index, f"the approximate index ({ABOUT}) is older than the index")
        if found := problems(index.folder, [ABOUT], GRAPH_CHECKSUMS):
            raise _rebuild(index, f"the approximate index is damaged: {found[0]}")
        _require_graph(index)
        self._graph = _opened(index)
        self._index = index

    def best(
        self, query: torch.Tensor, count: int, kept: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """As `Similarities.best`, among the rows that the graph finds; None if too few of them are kept."""
        wanted = min(len(self._index), 4 * count + _SEARCH_WIDTH)
        try:
            near = self._graph.search(query.numpy(), wanted).keys
        except RuntimeError as error:
            raise _rebuild(self._index, f"{self._index.folder / GRAPH} is damaged ({error})") from error
        rows = np.sort(np.asarray(near, np.int64))
        if len(rows) and not 0 <= rows[0] <= rows[-1] < len(self._index):
            raise _rebuild(self._index, f"{self._index.folder / GRAPH} names people who are not in the index")
        rows = rows if kept is None else rows[kept[rows]]
        if len(rows) < min(count, len(self._index)):
            return None
        found = np.stack([self._index.embedding(row) for row in rows.tolist()])
        similarity = found @ query.numpy()
        order = np.lexsort((rows, -similarity))[:count]
        return rows[order], similarity[order]


def _require_graph(index: Index) -> None:
    """Check the graph against its digest unless size, time and inode are those of the last check.

    A search in a damaged graph can end the process. Raises ConfigError.
    """
    graph, mark = index.folder / GRAPH, index.folder / VERIFIED
    if not graph.is_file():
        raise _rebuild(index, f"{graph} is missing")
    stat = json.dumps(stat_key(graph.stat()))
    if mark.is_file() and mark.read_bytes() == stat.encode():
        return
    if found := problems(index.folder, [GRAPH], GRAPH_CHECKSUMS):
        raise _rebuild(index, f"the approximate index is damaged: {found[0]}")
    with contextlib.suppress(OSError):  # where nothing can be written, it is digested every time
        durable.write(mark, stat, lasting=False)


def _rebuild(index: Index, why: str) -> ConfigError:
    return ConfigError(f"{why}; build it: personsearch index --approximate --out {index.folder}")


def _opened(index: Index) -> Any:
    """The graph. Raises ConfigError if it is not one of these people."""
    file = index.folder / GRAPH
    try:
        graph = _usearch().Index.restore(str(file), view=True)
    except ConfigError:
        raise
    except Exception as error:  # usearch raises nearly anything for a damaged file
        raise _rebuild(index, f"{file} is damaged ({error})") from error
    if graph is None or (graph.ndim, len(graph)) != (index.description.dimensions, len(index)):
        raise _rebuild(index, f"{file} does not fit the index")
    return graph


def _measured(index: Index, graph: Any) -> tuple[int, float]:
    """Number of queries, and recall at ten, for people drawn from the index."""
    drawn = np.random.default_rng(0).choice(len(index), min(_QUERIES, len(index)), replace=False)
    blocks = [torch.from_numpy(block) for block in index.blocks]
    found = 0.0
    for row in drawn.tolist():
        query = index.embedding(row)
        exact = Similarities(blocks, torch.from_numpy(query), index.embeddings.coarse).best(TOP)[0]
        near = np.asarray(graph.search(query, TOP).keys)
        found += len(np.intersect1d(exact, near)) / len(exact)
    return len(drawn), found / len(drawn)


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError as error:
        raise ConfigError(
            "an approximate index needs the package usearch: pip install 'personsearch[ann]'"
        ) from error
    return usearch.index

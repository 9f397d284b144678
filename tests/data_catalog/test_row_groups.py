"""Reading a part of a long table skips the row groups in which no row can match."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_catalog import snapshot
from data_catalog.adapters import load_adapter
from data_catalog.hash_cache import HashCache
from data_catalog.ingest import DatasetRoot, fingerprint, ingest
from data_catalog.row_digests import digest_rows
from data_catalog.schema import REJECTS, TABLES
from data_catalog.snapshot import ROW_GROUP, Snapshot, TableStream, _matching
from data_catalog.synthetic import CuhkSysuSpec, write_cuhk_sysu


def test_row_groups_without_a_match_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rejects.parquet"
    stream = TableStream(path, REJECTS)
    for severity in ("excluded", "invalid", "invalid"):
        columns = [pa.repeat("x", ROW_GROUP)] * len(REJECTS)
        columns[0] = pa.repeat(severity, ROW_GROUP)
        columns[REJECTS.get_field_index("source_row")] = pa.array(range(ROW_GROUP), pa.int32())
        encoded = [column.cast(field.type) for column, field in zip(columns, REJECTS, strict=True)]
        stream.write(pa.Table.from_arrays(encoded, schema=REJECTS))
    stream.close()
    part = _matching(path, REJECTS, pc.field("severity") == "excluded")
    assert [group.id for group in part.row_groups] == [0]
    read = part.to_table(schema=REJECTS, filter=pc.field("severity") == "excluded")
    assert len(read) == ROW_GROUP and read.schema.equals(REJECTS)


def test_digests_taken_while_writing_are_those_of_what_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, work = tmp_path / "root", tmp_path / "work"
    write_cuhk_sysu(root, CuhkSysuSpec(), seed=1)
    monkeypatch.setattr(snapshot, "ROW_GROUP", 16)
    adapter = load_adapter("cuhk-sysu")
    made = ingest(
        DatasetRoot(root, adapter), work, fingerprint(DatasetRoot(root, adapter), HashCache(None)), name="x"
    )
    assert set(made.row_digests) == set(TABLES) - {"datasets"}
    assert len(made.row_digests["boxes"]) > 1 and len(made.row_digests["gallery"]) > 1
    for name, digests in made.row_digests.items():
        batches = Snapshot(work).dataset(name).to_batches(batch_size=16)
        assert digests == [digest_rows(pa.Table.from_batches([each])) for each in batches if len(each)], name

"""Reading a part of a long table skips the row groups in which no row can match."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.schema import REJECTS
from data_catalog.snapshot import ROW_GROUP, TableStream, _matching


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

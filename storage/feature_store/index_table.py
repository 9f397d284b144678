"""`index.parquet`: image, box, person and view of each row of a feature store."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage import durable
from storage.digests import digest_file
from storage.errors import StorageError
from storage.feature_store.layout import INDEX_FILE
from storage.manifest import FILE_NAME, read_manifest
from storage.reading import require_regular


def write_index(path: str | Path, table: pa.Table) -> None:
    """Write `index.parquet`, the table that says what each row is, whole or not at all.

    Parameters
    ----------
    path
        The feature store's folder.
    table
        One row for each row of the array. It needs a column `row` that counts 0, 1, 2, ...; the statistics
        and the summary also read `dataset` and `person_id`, null where the identity is unknown.

    Raises
    ------
    StorageError
        Rows are missing or out of order.

    Examples
    --------
    >>> people = {"row": [0, 1], "dataset": ["prw", "prw"], "person_id": ["7", None]}
    >>> write_index(work, pa.table(people))
    """
    if "row" not in table.column_names:
        raise StorageError(f"the index of {path} needs a column 'row'; it has {table.column_names}")
    rows = table.column("row").to_numpy()
    wrong = np.flatnonzero(rows != np.arange(len(rows)))
    if len(wrong):
        at = int(wrong[0])
        raise StorageError(f"the index of {path} must count its rows 0, 1, 2, ...; at {at} it has {rows[at]}")
    target = Path(path) / INDEX_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    durable.write(target, content.getvalue().to_pybytes())


def read_index(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Those of `columns` that an index has, all by default; the checksums of their pages are checked.

    Raises FileNotFoundError when there is none, StorageError when it is damaged.
    """
    try:
        require_regular(file)
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            names = opened.schema_arrow.names
            return opened.read([name for name in names if columns is None or name in columns])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StorageError(f"{file} is damaged: {error}") from error


def check_index(group: Path, n_rows: int) -> None:
    """Check the index, if there is one, against its digest in the artifact's manifest and its checksums.

    Raises StorageError when it is damaged.
    """
    file = group / INDEX_FILE
    with contextlib.suppress(FileNotFoundError):
        noted = read_manifest(group / FILE_NAME).files.get(INDEX_FILE)
        if noted is not None and (not file.exists() or digest_file(file) != noted.sha256):
            raise StorageError(
                f"{file} is damaged: its digest is not the one in the artifact's manifest; "
                "rebuild the artifact"
            )
    if not file.exists():
        return
    rows = read_index(file).num_rows
    if rows != n_rows:
        raise StorageError(f"{file} is damaged: it has {rows} rows, not the {n_rows} of the array")

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import StorageError
from storage.space import in_units, require_free_space


def test_what_does_not_fit_the_disk_is_refused_beforehand(tmp_path: Path):
    require_free_space(tmp_path / "not" / "there", 1000, what="a small thing")
    with pytest.raises(StorageError, match=r"a large thing needs 1000000.0 TB and the disk of .* free"):
        require_free_space(tmp_path / "not" / "there", 10**18, what="a large thing")


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_960, "1.0 MB"),
        (2_000_000, "2.0 MB"),
        (3 * 10**12, "3.0 TB"),
    ],
)
def test_bytes_for_people(size: int, shown: str) -> None:
    assert in_units(size) == shown

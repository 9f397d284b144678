"""SHA256SUMS: one with a damaged name is named itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from personsearch_core.checksums import CHECKSUMS, listed_files, problems, write_checksums


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("weighus", ["weights is not listed in SHA256SUMS", "weighus is missing, which SHA256SUMS lists"]),
        ("weigh\x0es", ["SHA256SUMS is damaged: line 1 is not a digest and the name of a file"]),
    ],
)
def test_a_damaged_name_is_a_fault_of_the_list(tmp_path: Path, name: str, told: list[str]) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    write_checksums(tmp_path, ["weights"])
    assert not problems(tmp_path, ["weights"])
    sums = tmp_path / CHECKSUMS
    sums.write_text(sums.read_text().replace("weights", name))
    assert problems(tmp_path, {"weights", *listed_files(tmp_path)}) == told

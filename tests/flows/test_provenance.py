"""What built an artifact: whether a change of the project's source is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import flows

PACKAGES = ("flows", "personsearch_core", "data_catalog", "storage")


def test_a_change_of_any_package_changes_the_digest_of_the_source(tmp_path: Path) -> None:
    project = Path(flows.__file__).parents[1]
    for package in PACKAGES:
        shutil.copytree(project / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        code = "from flows.provenance import source_digest; print(source_digest())"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    digests = [digest(), digest()]
    for package in PACKAGES:
        with next((tmp_path / package).glob("*.py")).open("a") as file:
            file.write("# changed\n")
        digests.append(digest())
    assert digests[0] == digests[1] and len({*digests}) == 1 + len(PACKAGES)

"""SHA256SUMS: the digests of a folder's files, in the format that `sha256sum --check` reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

CHECKSUMS = "SHA256SUMS"
UNFINISHED_CHECKSUMS = f"{CHECKSUMS}.partial"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def checksum_text(files: Mapping[str, Path | bytes]) -> str:
    """The content of a SHA256SUMS: a line per name, sorted, of a file or of its bytes."""
    digests = {
        name: hashlib.sha256(of).hexdigest() if isinstance(of, bytes) else file_digest(of)
        for name, of in files.items()
    }
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(files))


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Record the digests of these files of a folder, in place of an earlier record."""
    partial = folder / UNFINISHED_CHECKSUMS
    partial.write_text(checksum_text({name: folder / name for name in names}))
    partial.replace(folder / CHECKSUMS)


def listed_files(folder: Path) -> set[str]:
    """Names of the files whose digests are recorded; none if the record is missing or damaged."""
    try:
        return set(_read(folder / CHECKSUMS))
    except (OSError, ValueError):
        return set()


def problems(folder: Path, names: Iterable[str], sums: str = CHECKSUMS) -> list[str]:
    """What is wrong with these files of a folder by its record of their digests, one sentence per file.

    Folders of earlier versions have no record: then nothing is read, and nothing is found.
    """
    try:
        noted = _read(folder / sums)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"{sums} is damaged: {error}"]
    return [problem for name in sorted(names) if (problem := _problem(folder, name, noted.get(name), sums))]


def _problem(folder: Path, name: str, noted: str | None, sums: str) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing" if noted is None else f"{name} is missing, which {sums} lists"
    if noted is None:
        return f"{name} is not listed in {sums}"
    return None if file_digest(path) == noted else f"{name} does not match its digest in {sums}"


def _read(file: Path) -> dict[str, str]:
    """Digests by name. Raises ValueError if the file has another format, or names files elsewhere."""
    noted = {}
    if file.exists() and not file.is_file():
        raise ValueError("it is not a regular file")
    for number, line in enumerate(file.read_bytes().decode().removesuffix("\n").split("\n"), 1):
        found = _LINE.fullmatch(line)
        path = PurePosixPath(found[2]) if found else PurePosixPath("/")
        if found is None or path.is_absolute() or ".." in path.parts or not found[2].isprintable():
            raise ValueError(f"line {number} is not a digest and the name of a file")
        noted[found[2]] = found[1]
    return noted


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

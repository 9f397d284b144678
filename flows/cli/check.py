"""`personsearch datasets check`: find problems in datasets, one by one and across them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import typer

from data_catalog.adapters import load_adapter
from data_catalog.decode_checks import DecodedImages, undecodable_images
from data_catalog.duplicates import duplicate_images, near_duplicate_images
from data_catalog.errors import CatalogError
from data_catalog.findings import Finding, finding, present
from data_catalog.ingest import ingest_root
from data_catalog.layouts import fitting_adapter
from data_catalog.rules import NO_RULES, Rules
from data_catalog.snapshot import Snapshot, counts_found, image_digests, table_path
from data_catalog.validation import check_snapshot
from flows.cli.options import parse_options, parse_rules
from flows.cli.printing import print_counts
from flows.errors import ConfigError


@dataclass(frozen=True)
class _Dataset:
    """A snapshot to check; `root` is the folder of its images, None if unknown."""

    name: str
    snapshot: Snapshot
    root: Path | None


def check(
    roots: list[Path] = typer.Argument(
        ..., metavar="ROOT...", help="Dataset roots, or snapshot folders written by `ingest`."
    ),
    adapter: list[str] = typer.Option([], help="Format of each root, in the same order (default: detected)."),
    option: list[str] = typer.Option([], help="key=value for the adapter; single root only; repeatable."),
    queries: str | None = typer.Option(
        None, help="Draw queries, as `datasets ingest` does; single root only."
    ),
    splits: str | None = typer.Option(
        None, help="Split images, as `datasets ingest` does; single root only."
    ),
    no_images: bool = typer.Option(False, "--no-images", help="Read annotations only."),
    check_images: bool = typer.Option(True, "--check-images/--no-check-images", help="Decode every image."),
    near: bool = typer.Option(False, "--near-duplicates", help="Also compare images by a perceptual hash."),
) -> None:
    """Check datasets for problems, one by one and across them, without storing anything.

    Example: personsearch datasets check ROOT --near-duplicates
    """
    options, rules = parse_options(option), parse_rules(queries, splits)
    if (options or queries or splits) and len(roots) > 1:
        raise ConfigError(
            "--option, --queries and --splits work with a single root only: ingest the datasets, then pass "
            "their snapshots"
        )
    if adapter and len(adapter) != len(roots):
        raise ConfigError(
            f"give --adapter once per root ({len(roots)} here) or not at all; got {len(adapter)}"
        )
    with tempfile.TemporaryDirectory(prefix="personsearch-check-") as folder:
        datasets: list[_Dataset] = []
        unread: list[Path] = []
        for number, root in enumerate(roots):
            work = Path(folder) / str(number)
            work.mkdir()
            named = adapter[number] if adapter else None
            try:
                datasets.append(
                    _read(root, named, options, rules, not no_images, work, [each.name for each in datasets])
                )
            except CatalogError as error:
                if len(roots) == 1:
                    raise
                typer.echo(f"{root}: cannot be read: {error}")
                unread.append(root)
            else:
                found = check_snapshot(datasets[-1].snapshot)
                _print_findings(present([*found, *_undecodable(datasets[-1])] if check_images else found))
        alike = _near_duplicates(datasets) if near and not no_images else []
        if len(datasets) > 1:
            typer.echo("across datasets:")
            alike = [*duplicate_images({each.name: _images(each) for each in datasets}), *alike]
        if len(datasets) > 1 or present(alike):
            _print_findings(present(alike))
    if unread:
        raise ConfigError(
            f"{len(unread)} of {len(roots)} roots cannot be read: {', '.join(map(str, unread))}"
        )


def _read(
    root: Path,
    adapter: str | None,
    options: Mapping[str, str],
    rules: Rules,
    read_images: bool,
    work: Path,
    taken: Sequence[str],
) -> _Dataset:
    """The snapshot of a root, built in `work` unless the root is one. Prints its format and counts."""
    if table_path(root, "datasets").is_file():
        if rules != NO_RULES:
            raise ConfigError(f"{root} is a snapshot; --queries and --splits need the dataset's root")
        snapshot, base = Snapshot(root), None
        name, chosen = snapshot.name, "snapshot"
    else:
        chosen = adapter or fitting_adapter(root, dict(options))
        ingest_root(
            root,
            load_adapter(chosen),
            work,
            options=options,
            rules=rules,
            read_images=read_images,
            allow_empty=True,
        )
        snapshot, base = Snapshot(work), root
        name = root.resolve().name
    name = name if name not in taken else f"{name}#{len(taken) + 1}"
    edition = snapshot.table("datasets", ["edition"])["edition"][0].as_py()
    typer.echo(f"{name}: format: {chosen}" + (f", edition: {edition}" if edition else ""))
    print_counts(counts_found(snapshot))
    return _Dataset(name, snapshot, base)


def _images(dataset: _Dataset) -> pa.Table:
    return dataset.snapshot.table("images", ["image_id", "rel_path", "split", "sha256"])


def _undecodable(dataset: _Dataset) -> list[Finding]:
    if dataset.root is None:
        return []
    digests = image_digests(dataset.snapshot.table("images"))
    faults = undecodable_images(dataset.root, digests, DecodedImages(None))
    examples = [f"{path}: {fault}" for path, fault in sorted(faults.items())]
    return [finding("warning", "image_undecodable", examples, "images cannot be decoded")]


def _near_duplicates(datasets: Sequence[_Dataset]) -> list[Finding]:
    from data_catalog.perceptual import difference_hashes

    images: dict[str, pa.Table] = {}
    hashes: dict[str, list[int]] = {}
    faults: list[str] = []
    for each in datasets:
        if each.root is None:
            raise ConfigError(
                f"{each.name}: a snapshot does not record where its images are; for --near-duplicates pass "
                "the dataset's root"
            )
        root, table = each.root, _images(each)
        paths = table["rel_path"].to_pylist()
        found = difference_hashes({path: root / path for path in paths})
        faults += found.undecodable
        images[each.name] = table.filter(pa.array([path in found.of for path in paths], pa.bool_()))
        hashes[each.name] = [found.of[path] for path in paths if path in found.of]
    undecodable = finding(
        "warning", "image_undecodable", faults, "images cannot be decoded, so they are not compared"
    )
    return [undecodable, *near_duplicate_images(images, hashes)]


def _print_findings(findings: Sequence[Finding]) -> None:
    for each in findings:
        typer.echo(f"{each.level:8} {each.code}: {each.message}")
    if not findings:
        typer.echo("no problems found")

"""Study files for tests: a config of nothing that runs, and texts around it."""

from __future__ import annotations

from pathlib import Path

import yaml

from flows.studies.members import Study, resolve_study
from flows.studies.reading import read_study
from tests.end_to_end.tiny import tiny_settings

STUDY = """\
title: A study
config: tiny.yaml
members:
  variants:
    name: "{roi.variant} on scenes"
    grid: {roi.variant: [j3, j4]}
  no margin: {set: {roi.margin: 0.0}}
tables:
  a:
    title: "Table 1 (a)"
    source: Loesch et al. 2019
    columns:
      mAP: {title: mAP, member: "{row} on scenes", metric: mAP}
      rank1: {title: rank-1, member: "{row} on scenes", metric: rank1}
    rows:
      j3: {title: J3, published: {mAP: 22.5, rank1: 45.1}}
      j4: {title: J4, published: {mAP: 12.3}}
    published_rows:
      NPSM: {published: {mAP: 24.2}, note: Five boxes per image.}
  b:
    title: Ours
    columns: {mAP: {title: mAP, metric: mAP}}
    rows: {no margin: {ours: true}}
"""


def write_study(folder: Path, text: str = STUDY, **settings: object) -> Path:
    """`folder`/study.yaml beside a small config with the given top-level fields."""
    config = tiny_settings("data", "store") | settings
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def study_of(path: Path, **options: object) -> Study:
    return resolve_study(path, read_study(path), **options)  # type: ignore[arg-type]

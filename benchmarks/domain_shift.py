"""Do boxes of a second domain help there if identities come from the first domain only?

Two synthetic domains differ in colours, clutter and noise. The detector trains on A alone, or on A and B's
boxes; the branch trains on A's identities in both cases; both are evaluated on B's test split.

    python -m benchmarks.domain_shift WORK [--steps 400] [--json OUT]
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks.options import PROGRAM, Work, run_script
from data_catalog.synthetic.prw import PrwSpec, write_prw
from data_catalog.synthetic.scenes import Style
from flows.cli.json_file import Json, write_json

DOMAINS = {
    "a": Style(background_hue=(0.0, 0.25), background_value=(0.65, 0.9), clutter=2.0, cast=0.05, noise=2.0),
    "b": Style(
        background_hue=(0.5, 0.8),
        background_value=(0.15, 0.4),
        clutter=9.0,
        cast=0.3,
        noise=12.0,
        heights=(0.12, 0.45),
    ),
}
RECIPES = {"a alone": ["a"], "a + b's boxes": ["a", "b"]}


def config(work: Path, train: list[str], steps: int) -> dict[str, Any]:
    """The demo's recipe: detector trained on `train`, re-ID on A, evaluation on B."""
    demo = yaml.safe_load((Path(__file__).parents[1] / "configs" / "demo.yaml").read_text())
    demo["store"] = str(work / "store")
    demo["datasets"] = {name: {"adapter": "prw", "root": str(work / name)} for name in DOMAINS}
    demo["detector"]["train"] = [{"dataset": name, "split": "train"} for name in train]
    demo["detector"]["training"]["steps"] = steps
    demo["reid"]["train"] = {"dataset": "a", "split": "train"}
    demo["evaluation"]["test"] = {"dataset": "b", "split": "test"}
    demo["report"] = {"title": f"Domain shift: detector on {' and '.join(train)}"}
    return dict(demo)


def measure(work: Path, train: list[str], steps: int) -> dict[str, float]:
    """Run the whole method, and return its results."""
    name = "-".join(train)
    path, results = work / f"{name}.yaml", work / f"{name}.json"
    path.write_text(yaml.safe_dump(config(work, train, steps)))
    command = [*PROGRAM, "run", str(path), "--json", str(results)]
    subprocess.run(command, check=True)
    found: dict[str, float] = json.loads(results.read_text())["results"]
    return found


def main(
    work: Work,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the detector.")] = 400,
    json_file: Json = None,
) -> None:
    for seed, (name, style) in enumerate(DOMAINS.items()):
        if not (work / name).exists():
            write_prw(work / name, PrwSpec(), seed=seed, style=style)
    results = {title: measure(work, train, steps) for title, train in RECIPES.items()}
    print(f"{'detector trained on':<22} {'AP50 on b':>10} {'mAP on b':>10} {'rank-1':>8}")
    for title, found in results.items():
        print(f"{title:<22} {found['detection_ap50']:>10.3f} {found['mAP']:>10.3f} {found['rank1']:>8.3f}")
    write_json(json_file, results)


if __name__ == "__main__":
    run_script(main, __doc__)

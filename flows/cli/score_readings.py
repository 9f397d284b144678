"""`personsearch score --all-readings`: the readings of all published codes, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.json_file import write_json
from flows.cli.printing import padded
from flows.cli.score_output import Clock, figures, standard_figures
from personsearch_core.errors import PersonSearchError
from personsearch_core.evaluation.front import Scored, evaluate
from personsearch_core.evaluation.inputs import EvaluationInputs
from personsearch_core.evaluation.parallel import in_threads
from personsearch_core.evaluation.published import PublishedFigure, nearest, parse_published
from personsearch_core.evaluation.readings import Reading, Skipped, usable_readings
from personsearch_core.evaluation.settings import Setting
from personsearch_core.recipes import EvaluationRecipe

AllReadings = Annotated[
    bool,
    typer.Option("--all-readings", help="Score by every published code's rules, in one table."),
]
PublishedNumbers = Annotated[
    str | None,
    typer.Option(
        "--published",
        metavar="METRIC=NUMBER,...",
        help="Name the readings within rounding of these, such as mAP=.252,rank1=47.0; implies "
        "--all-readings.",
    ),
]

_RESCORED = {"cbgm": "serend1p1ty/SeqNet eval_func.py, cbgm=True", "rerank": "k-reciprocal re-ranking"}
_SHOWN = {"mAP": "mAP %", "rank1": "rank-1 %", "rank5": "rank-5 %", "rank10": "rank-10 %"}


@dataclass(frozen=True)
class Wanted:
    """What `--all-readings` and `--published` ask for; false if for nothing."""

    readings: bool
    published: tuple[PublishedFigure, ...]

    @classmethod
    def of(cls, all_readings: bool, published: str | None, others: Mapping[str, bool]) -> Wanted:
        """Raises PersonSearchError if one of the `others`, options by name, is given beside them."""
        figures = () if published is None else parse_published(published)
        asked = all_readings or published is not None
        given = [name for name, is_given in others.items() if is_given]
        if asked and given:
            raise PersonSearchError(
                f"--all-readings does not work with {', '.join(given)}: each reading has its own rules"
            )
        return cls(asked, figures)

    def __bool__(self) -> bool:
        return self.readings


def score_readings(
    wanted: Wanted,
    recipe: EvaluationRecipe,
    inputs: EvaluationInputs,
    readings: Sequence[Reading],
    further: Sequence[Setting],
    *,
    missing: Mapping[str, str] | None = None,
    clock: Clock,
    threads: int,
    json_file: Path | None,
) -> None:
    """Score all readings that the inputs allow, print the table, write the JSON; `further` are rescored."""
    usable, skipped = usable_readings(readings, inputs, missing)
    usable += [Reading(setting, "seqnet, rescored", _RESCORED[setting.name]) for setting in further]
    with clock.step("evaluate"):
        results = evaluate(
            recipe,
            inputs,
            settings=[reading.setting for reading in usable],
            detection_at=None,
            map_blocks=in_threads(threads),
        )
    found = list(zip(usable, results.searches, strict=True))
    by_name = {reading.name: figures(scored) for reading, scored in found}
    verdict = _verdict(wanted.published, by_name, has_sizes=recipe.protocol == "cuhk_sysu")
    typer.echo(_table(found, skipped))
    if verdict is not None:
        typer.echo(f"\n{verdict['text']}")
    if json_file is not None:
        clock.seconds.setdefault("protocol", 0.0)
        numbers = standard_figures(results.searches[0]) | {
            "readings": [
                {"name": reading.name, "rules": reading.rules, "equal_to": reading.code}
                | standard_figures(scored)
                for reading, scored in found
            ],
            "skipped": [{"name": each.name, "reason": each.reason} for each in skipped],
            "seconds": clock.seconds,
        }
        if verdict is not None:
            numbers["published"] = verdict
        write_json(json_file, numbers)


def _table(found: Sequence[tuple[Reading, Scored]], skipped: Sequence[Skipped]) -> str:
    header = ("reading", *_SHOWN.values(), "equal to")
    rows = []
    for reading, scored in found:
        numbers = figures(scored)
        rows.append((reading.name, *(f"{100 * numbers[name]:.2f}" for name in _SHOWN), reading.code))
    lines = [padded(header, rows)]
    lines += [f"skipped {each.name}: {each.reason}" for each in skipped]
    return "\n".join(lines)


def _verdict(
    published: tuple[PublishedFigure, ...],
    readings: Mapping[str, Mapping[str, float]],
    *,
    has_sizes: bool,
) -> dict[str, Any] | None:
    """Which readings the published numbers may be of, in words too; None if none were given."""
    if not published:
        return None
    text = ", ".join(figure.text for figure in published)
    matches = [name for name, found in readings.items() if all(each.fits(found) for each in published)]
    closest = nearest(published, readings)
    if matches:
        words = f"{text} is within rounding of: {', '.join(matches)}"
    else:
        near = readings[closest]
        shown = ", ".join(f"{each.metric}={near[each.metric]:.4f}" for each in published)
        words = (
            f"no reading is within rounding of {text}; the nearest is {closest} with {shown}. The number may "
            "include context matching or re-ranking (try --cbgm, --rerank), "
            f"{'be of another gallery size, ' if has_sizes else ''}or come from another model"
        )
    return {"given": [each.text for each in published], "matches": matches, "nearest": closest, "text": words}

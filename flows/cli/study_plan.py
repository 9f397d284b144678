"""How `study plan` shows stages and their cost."""

from __future__ import annotations

import typer
from rich.table import Column
from rich.text import Text

from flows.cli.printing import plain_table, whole_lines
from flows.studies import figures
from flows.studies.planning import PlannedNode, StudyPlan
from flows.wording import about, counted, first_few
from storage.space import in_units


def print_study_plan(plan: StudyPlan) -> None:
    """A line per stage that is to be built, totals, and what cannot run."""
    table = plain_table(
        Column("no.", justify="right"),
        "stage",
        "for",
        "waits for",
        Column("on a GPU", justify="right"),
        Column("on the CPU", justify="right"),
        Column("disk", justify="right"),
        Column("memory", justify="right"),
        "concluded from",
    )
    for each in plan.missing:
        table.add_row(*map(Text, _line(each)))
    if plan.missing:
        whole_lines().print(table)
    typer.echo(_summary(plan))
    if plan.study.drawn:
        typer.echo(f"drawn for this study: {counted(len(plan.study.drawn), 'dataset')}")
    for text in plan.absent:
        typer.echo(f"not here: {text}")
    if plan.left_out:
        typer.echo(f"left out by the budget: {', '.join(plan.left_out)}")


def _line(each: PlannedNode) -> list[str]:
    node, cost = each.node, each.cost
    assert cost is not None
    return [
        str(node.number + 1),
        node.stage.name + (f" ({each.state})" if each.state != "runs" else ""),
        first_few(node.members, 2),
        ", ".join(str(before.number + 1) for before in node.waits_for),
        _time(cost.gpu_seconds) if cost.uses_gpu else "",
        _time(cost.cpu_seconds),
        "" if cost.disk_bytes is None else in_units(cost.disk_bytes),
        "" if cost.memory_bytes is None else in_units(cost.memory_bytes),
        cost.basis,
    ]


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else about(seconds)


def _summary(plan: StudyPlan) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(plan.kinds.items()))
    lines = [
        f"{counted(len(plan.study.members), 'member')} share {counted(len(plan.stages), 'stage')}: {kinds}."
    ]
    if not plan.missing:
        return f"{lines[0]} All of them are built."
    totals = plan.totals
    built = len(plan.stages) - totals.stages
    gpu, other, cpu = map(about, (totals.gpu_seconds, totals.other_seconds, totals.cpu_seconds))
    disk, memory = in_units(totals.disk_bytes), in_units(totals.memory_bytes)
    lines.append(
        f"{totals.stages} to build, {built} built already: {gpu} on a GPU plus {other} of other stages, or "
        f"{cpu} without a GPU; {disk} of disk for features; at most {memory} of memory."
    )
    if any(each.cost is not None and each.cost.basis.startswith('"') for each in plan.missing):
        lines.append(
            f"Names in quotes are sections of {figures.SOURCE}, measured on an {figures.GPU} or on "
            f"{figures.CPU}. For datasets that are not read yet, published counts are used."
        )
    if totals.unknown:
        lines.append(f"{totals.unknown} of them cannot be estimated before the datasets are read.")
    return "\n".join(lines)

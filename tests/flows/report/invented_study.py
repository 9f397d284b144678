"""The outcome of a study with everything that its page can show: ranked and published rows, seeds, holes."""

from __future__ import annotations

from pathlib import Path

from flows.errors import Failure
from flows.studies.cells import CellValue, FilledRow, FilledTable
from flows.studies.members import Member, Study, StudyTable
from flows.studies.models import Column, PublishedRow
from flows.studies.running import StudyResult
from flows.studies.walks import MemberOutcome
from tests.flows.report.invented import HOSTILE

COLUMNS = {
    "mAP": Column(title="mAP", metric="mAP"),
    "rank1": Column(title="rank-1", metric="rank1"),
    "detection_ap50": Column(title="detection AP50", metric="detection_ap50"),
    "mAP_untrained": Column(title="mAP of the untrained branch", metric="mAP_untrained"),
    "reid_seconds": Column(title="re-ID training", stage="reid", metric="seconds", unit="s"),
}
RATES = ("1e-4", "3e-4", "1e-3")
LOSSES = ("semi-hard", "softmax + center", HOSTILE)


def invented_study(folder: Path) -> StudyResult:
    """A sweep over learning rates, losses and seeds, and a table beside published numbers."""
    members = {
        f"{loss}, {rate}, {seed}": {"objective": loss, "reid.lr": rate, "reid.seed": seed}
        for loss in LOSSES
        for rate in RATES
        for seed in ("0", "1")
    }
    outcomes = [MemberOutcome(Member(name, Path("demo.yaml"), (), of)) for name, of in members.items()]
    outcomes[-1].failure = Failure("died", "reid: the process of flows.stages.reid ended by signal SIGKILL")
    rows = [_row(f"{loss}, {rate}", at) for at, (loss, rate) in enumerate(_pairs())]
    rows.sort(key=lambda row: -(row.cells["mAP"].value or 0.0))
    ranked = _table("sweep", "objective, reid.lr of demo.yaml", "", rows, is_ranked=True)
    published = _table(
        "table1",
        "Table 1: the variants of the branch, trained on the aggregate of three datasets",
        "Drawn stand-ins of the datasets: not comparable with the published numbers.",
        [_row("J3, m-w-p", 1, 22.5), FilledRow("j4", "J4", {name: _hole() for name in COLUMNS})],
        is_ranked=False,
    )
    study = Study(
        Path("configs/study.yaml"),
        f"Study of {HOSTILE}",
        {each.member.name: each.member for each in outcomes},
        (ranked.table, published.table),
    )
    return StudyResult(study, (ranked, published), outcomes, {"reid": 17}, folder, 321.0)


def _pairs() -> list[tuple[str, str]]:
    return [(loss, rate) for loss in LOSSES for rate in RATES]


def _table(name: str, title: str, caption: str, rows: list[FilledRow], *, is_ranked: bool) -> FilledTable:
    npsm = {} if is_ranked else {"NPSM": PublishedRow(published={"mAP": 24.2, "rank1": 53.1})}
    source = None if is_ranked else "Loesch et al. 2019"
    return FilledTable(
        StudyTable(name, title, caption, source, COLUMNS, (), npsm, is_ranked=is_ranked), tuple(rows)
    )


def _row(title: str, at: int, published: float | None = None) -> FilledRow:
    loss, _, rate = title.rpartition(", ")
    settings = [{"objective": loss, "reid.lr": rate, "reid.seed": seed} for seed in ("0", "1")]
    cells = {
        name: CellValue(
            (20.0 + 3 * at + number, 21.0 + 2.5 * at + number),
            tuple(f"{column.stage}/{seed}{at:x}{'0f' * 15}" for seed in "ab"),
            published if name == "mAP" else None,
            settings=tuple(settings),
        )
        for number, (name, column) in enumerate(COLUMNS.items())
    }
    return FilledRow(title, title, cells, ours=at == 1)


def _hole() -> CellValue:
    return CellValue((), (), 21.0, "reid: the process of flows.stages.reid ended by signal SIGKILL")

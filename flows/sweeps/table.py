"""The outcome of a sweep as tables: one row a member, and one row a group that differs in seed only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from flows.sweeps.schedule import MemberOutcome

MEASURES = ("mAP", "rank1", "mAP_untrained")


def member_table(outcomes: Sequence[MemberOutcome]) -> pd.DataFrame:
    """Settings, measures, seconds of the re-ID stage, and the error of each member; the best mAP first."""
    rows = []
    for outcome in outcomes:
        metrics = outcome.metrics
        reid = outcome.artifacts.get("reid")
        rows.append(
            {
                **outcome.member.settings,
                **{name: metrics.get(name, np.nan) for name in MEASURES},
                "reid_seconds": np.nan if reid is None else reid.manifest.seconds,
                "error": outcome.error,
            }
        )
    return pd.DataFrame(rows).sort_values("mAP", ascending=False, na_position="last", ignore_index=True)


def group_table(members: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Mean and deviation over seeds, sorted by mean mAP.

    Members are one group where they agree in all settings but those called `seed`. Deviations are those of
    the sample (n - 1), NaN where one member is left; failed members are counted and left out of the means.
    """
    kept = [name for name in settings if name.rpartition(".")[2] != "seed"]
    groups = members.groupby(kept, sort=False) if kept else [((), members)]
    rows = []
    for values, group in groups:
        row = dict(zip(kept, values, strict=True))
        row |= {"members": len(group), "failed": int(group["error"].notna().sum())}
        for name in MEASURES:
            row |= {f"{name}_mean": group[name].mean(), f"{name}_std": group[name].std()}
        row["reid_seconds"] = group["reid_seconds"].mean()
        rows.append(row)
    return pd.DataFrame(rows).sort_values("mAP_mean", ascending=False, na_position="last", ignore_index=True)

"""Histograms of scores with the region that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from kdprune.report.charts import Bars, Chart, Missing, Panel
from kdprune.report.selections import Selection

BINS = 50
MOST = 12  # panels


def score_histograms(selections: Sequence[Selection], problems: Sequence[str]) -> Chart | Missing:
    """A panel for each way to choose samples by scores: kept and dropped samples, stacked."""
    title = "Scores and what was kept"
    scored = [selection for selection in selections if selection.scores is not None]
    if not scored:
        return Missing(title, problems[0] if problems else "no run chose its samples by scores")
    panels = [_panel(selection) for selection in scored[:MOST]]
    about = "Samples of the unpruned training set by their score; of several seeds the first one is shown."
    left_out = f"{len(scored) - MOST} further selections" if len(scored) > MOST else ""
    return Chart("scores", title, about, panels, left_out)


def _panel(selection: Selection) -> Panel:
    """Shapes: N samples."""
    scores = selection.scores
    assert scores is not None
    finite_N = np.isfinite(scores.values)
    values, is_kept_N = scores.values[finite_N].astype(np.float64), np.zeros(scores.total, dtype=bool)
    is_kept_N[selection.subset.ids] = True
    is_kept = is_kept_N[finite_N]
    edges = np.histogram_bin_edges(values, BINS)
    kept, dropped = np.histogram(values[is_kept], edges)[0], np.histogram(values[~is_kept], edges)[0]
    text = [
        f"{low:.3g} to {high:.3g}: {k:,} kept, {d:,} dropped"
        for (low, high), k, d in zip(pairwise(edges), kept, dropped, strict=True)
    ]
    bars = [
        Bars([float(f"{e:.6g}") for e in edges], counts.tolist(), text, name, strong, selection.series)
        for name, counts, strong in (("kept", kept, True), ("dropped", dropped, False))
    ]
    infinite = int((~finite_N & ~np.isnan(scores.values)).sum())
    more = f"; {infinite:,} infinite ones are not shown" if infinite else ""
    return Panel(selection.label, f"{scores.scorer} ({scores.hard} is hard)", f"samples{more}", bars)

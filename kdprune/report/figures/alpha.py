"""α × keep fraction as a heat map, the best α of each keep fraction marked."""

from __future__ import annotations

from kdprune.report.charts import Chart, Heat, Missing, Panel, percent
from kdprune.report.figures.apart import apart
from kdprune.report.sections import Arm, Section, title_of
from kdprune.sweep.study import value_words

MOST = 6  # panels

Key = tuple[str, ...]


def alpha_by_keep(section: Section) -> Chart | Missing:
    """Colours are points below the best α of the same keep fraction, since the keep fraction matters far more."""
    title = "α × keep fraction"
    arms = [arm for arm in section.arms if arm.top1 and arm.keep is not None]
    guided = [arm for arm in arms if arm.guided]
    plain = [arm for arm in arms if not arm.guided]
    groups: dict[Key, list[Arm]] = {}
    names = apart(guided, section, ("distill.alpha",))
    for arm in guided:
        values = arm.finished[0].values
        key = tuple(f"{title_of(name)} {value_words(values.get(name))}" for name in names)
        groups.setdefault(key, []).append(arm)
    groups = {key: found for key, found in groups.items() if len({_alpha(arm) for arm in found}) > 1}
    groups = {key: found for key, found in groups.items() if _compared(found, plain)}
    if not groups:
        return Missing(title, "it needs arms that differ in α at one keep fraction")
    panels = [
        Panel(", ".join(key), "keep fraction", "α (0: no teacher)", [_heat(found, plain)])
        for key, found in list(groups.items())[:MOST]
    ]
    left_out = f"{len(groups) - MOST} further combinations of settings" if len(groups) > MOST else ""
    about = (
        "Mean top-1, %. The ring marks the best α of each keep fraction; colours say how many points the others are "
        "below it."
    )
    return Chart("alpha", title, about, panels, left_out, wide=len(panels) == 1)


def _compared(arms: list[Arm], plain: list[Arm]) -> bool:
    """Whether some keep fraction has several α; where α follows the keep fraction, each has its own only."""
    values: dict[float | None, set[float]] = {}
    for arm in arms:
        values.setdefault(arm.keep, {0.0} if any(one.keep == arm.keep for one in plain) else set()).add(_alpha(arm))
    return any(len(of_keep) > 1 for of_keep in values.values())


def _heat(arms: list[Arm], plain: list[Arm]) -> Heat:
    cells: dict[tuple[float, float], Arm] = {}
    for arm in [*plain, *arms]:
        place = (_alpha(arm) if arm.guided else 0.0, arm.keep or 0.0)
        if place not in cells or (arm.mean_and_sd[0] or 0) > (cells[place].mean_and_sd[0] or 0):
            cells[place] = arm
    keeps = sorted({keep for _, keep in cells} & {arm.keep or 0.0 for arm in arms})
    alphas = sorted({alpha for alpha, _ in cells})
    means = [[cells[a, k].mean_and_sd[0] if (a, k) in cells else None for k in keeps] for a in alphas]
    columns = [[m for row in means if (m := row[c]) is not None] for c in range(len(keeps))]
    best = [max(column, default=0.0) for column in columns]
    marked = [next((r, c) for r, row in enumerate(means) if row[c] == best[c]) for c in range(len(keeps)) if columns[c]]
    return Heat(
        [f"{keep:g}" for keep in keeps],
        [f"{alpha:g}" for alpha in alphas],
        [[None if m is None else m - best[c] for c, m in enumerate(row)] for row in means],
        [["" if m is None else f"{m:.2f}" for m in row] for row in means],
        [[_text(cells.get((a, k))) for k in keeps] for a in alphas],
        [[cells[a, k].series if (a, k) in cells else None for k in keeps] for a in alphas],
        marked,
        "points below the best",
    )


def _text(arm: Arm | None) -> str:
    if arm is None:
        return "no run"
    mean, sd = arm.mean_and_sd
    return f"{arm.label}: {percent(mean or 0.0, sd, len(arm.top1))}"


def _alpha(arm: Arm) -> float:
    """α at the arm's keep fraction, whatever policy gave it."""
    found = arm.finished[0].summary.get("alpha")
    return round(float(found), 4) if isinstance(found, int | float) else 0.0

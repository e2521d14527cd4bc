"""Accuracy against the keep fraction, the teacher's size, and the cost; energy."""

from __future__ import annotations

from kdprune.report.bills import Bill
from kdprune.report.charts import Bars, Chart, Line, Mark, Missing, Panel, Points, Rule, in_units, percent
from kdprune.report.figures.apart import apart
from kdprune.report.sections import Arm, Section, title_of
from kdprune.report.statistics import mean_and_sd, pareto_front
from kdprune.report.tables import duration_words
from kdprune.sweep.study import value_words

TOP1 = "top-1, %"


def against_keep(section: Section) -> Chart | Missing:
    """A line for each series of arms, with a band of one standard deviation."""
    title = "Accuracy against keep fraction"
    keeps = sorted({arm.keep for arm in section.arms if arm.keep is not None and arm.top1})
    if len(keeps) < 2:
        return Missing(title, f"it needs finished runs at two keep fractions or more, and there are {len(keeps)}")
    marks: list[Mark] = []
    for series, label in enumerate(section.series):
        arms = sorted((arm for arm in section.arms if arm.series == series and arm.top1), key=_keep)
        if arms:
            means = [_mean(arm) for arm in arms]
            spreads = [arm.mean_and_sd[1] or 0.0 for arm in arms]
            text = [f"{label}, keep {arm.keep:g}: {_words(arm)}" for arm in arms]
            marks.append(Line([_keep(arm) for arm in arms], means, text, series, spreads, label))
    about = "Means over seeds at the last epoch; the bands are ± one standard deviation."
    wide = max(keeps) / min(keeps) > 8
    return Chart(
        "keep",
        title,
        about,
        [Panel("", "keep fraction", TOP1, marks, wide, {keep: f"{keep:g}" for keep in keeps})],
        wide=True,
    )


def against_teacher(section: Section) -> Chart | Missing:
    """For each keep fraction a line along the number of the teacher's parameters, the student without one beside it."""
    title = "Accuracy against teacher size"
    guided = [arm for arm in section.arms if arm.top1 and arm.guided and _parameters(arm)]
    names = apart(guided, section, ("teacher.",))
    groups: dict[tuple[str, ...], list[Arm]] = {}
    for arm in guided:
        values = arm.finished[0].values
        others = [f"{title_of(name)} {value_words(values.get(name))}" for name in names]
        groups.setdefault((f"{arm.keep:g}", *others), []).append(arm)
    groups = {key: arms for key, arms in groups.items() if len({_parameters(arm) for arm in arms}) > 1}
    if not groups:
        return Missing(title, "it needs arms that differ in the size of their teacher and in nothing else")
    panels = []
    for key, arms in sorted(groups.items(), key=lambda item: (_keep(item[1][0]), item[0])):
        arms = sorted(arms, key=_parameters)
        line = Line([_parameters(arm) for arm in arms], [_mean(arm) for arm in arms], [""] * len(arms), faint=True)
        marks: list[Mark] = [line]
        for arm in arms:
            name = str(arm.finished[0].values.get("teacher.name"))
            text = f"{arm.label}, teacher {name} ({_parameters(arm):,.0f} parameters): {_words(arm)}"
            marks.append(Points([_parameters(arm)], [_mean(arm)], [text], arm.series, [arm.mean_and_sd[1] or 0.0]))
        for plain in section.arms:
            if plain.keep == arms[0].keep and not plain.guided and plain.top1:
                text = f"{plain.label}: {_words(plain)}"
                ends = [_parameters(arms[0]), _parameters(arms[-1])]
                marks.append(Line(ends, [_mean(plain)] * 2, [text] * 2, plain.series, name=plain.label, markers=False))
        sizes = {arm.finished[0].values.get("student.parameters") for arm in arms}
        student = sizes.pop() if len(sizes) == 1 else None
        if isinstance(student, int):
            marks.append(Rule(student, "student"))
        ticks = {_parameters(arm): in_units(_parameters(arm)) for arm in arms}
        title_of_panel = ", ".join([f"keep {key[0]}", *key[1:]])
        panels.append(Panel(title_of_panel, "parameters of the teacher", TOP1, marks, True, ticks))
    about = (
        "Where few samples are kept, a smaller teacher may be the better one. Bars: ± one standard deviation; level "
        "line: no teacher."
    )
    return Chart("teacher", title, about, panels)


def against_cost(section: Section, bill: Bill) -> Chart | Missing:
    """An arm is a point; the line joins those that no other arm beats in accuracy and in cost."""
    title = "Accuracy against total cost"
    arms = [(i, arm) for i, arm in enumerate(section.arms) if arm.top1 and bill.seconds[i]]
    if len(arms) < 2:
        return Missing(title, "it needs two arms with finished runs")
    panels = []
    for unit, costs in (("seconds", bill.seconds), ("sample passes", bill.passes)):
        points = [(float(costs[i] or 0.0), _mean(arm)) for i, arm in arms]
        front = pareto_front(points)
        marks: list[Mark] = [
            Line([points[i][0] for i in front], [points[i][1] for i in front], [""] * len(front), faint=True,
                 name="Pareto front")
        ]  # fmt: skip
        for place, (index, arm) in enumerate(arms):
            cost = duration_words(points[place][0]) if unit == "seconds" else f"{points[place][0]:,.0f} passes"
            stages = bill.runs[index][0].stages
            parts = ", ".join(f"{stage} {duration_words(seconds)}" for stage, seconds in stages.items())
            text = f"{arm.label}: {_words(arm)}, {cost}\nfirst seed: {parts}"
            x, y = points[place]
            marks.append(Points([x], [y], [text], arm.series, [arm.mean_and_sd[1] or 0.0], hollow=place not in front))
        panels.append(Panel("", f"{unit} of one run from nothing", TOP1, marks, log_x=True))
    about = (
        "What one run of an arm takes from nothing: teacher, recording, cached targets and tuning included. Filled "
        "points are on the Pareto front: no arm is cheaper and as good, or as cheap and better."
    )
    return Chart("cost", title, about, panels)


def energy(section: Section) -> Chart | Missing:
    """A bar for each arm, where a tracker measured it."""
    title = "Energy and CO₂"
    rows = []
    for arm in section.arms:
        measured = [e.summary["energy"] for e in arm.finished if isinstance(e.summary.get("energy"), dict)]
        kwh, co2 = (mean_and_sd([float(one[name]) for one in measured if isinstance(one.get(name), int | float)])[0]
                    for name in ("kwh", "co2_kg"))  # fmt: skip
        if kwh is not None:
            said = "" if co2 is None else f", {1000 * co2:.3g} g CO₂"
            rows.append((arm, 1000 * kwh, f"{arm.label}: {1000 * kwh:.4g} Wh{said} a run (n = {len(measured)})"))
    if not rows:
        return Missing(title, "no run measured it (kdprune train --track_energy)")
    marks = [Bars([arm.label], [wh], [text], arm.label, series=(arm.series,), coloured=True) for arm, wh, text in rows]
    about = "Mean of an arm's runs, the student's training only, as its tracker measured or estimated it."
    return Chart("energy", title, about, [Panel("", "", "Wh a run", marks)], wide=True)


def _parameters(arm: Arm) -> float:
    """Of all its teachers together; 0 where that is not known."""
    found = arm.finished[0].values.get("teacher.parameters")
    return float(found) if isinstance(found, int | float) else 0.0


def _keep(arm: Arm) -> float:
    return arm.keep if arm.keep is not None else 0.0


def _mean(arm: Arm) -> float:
    return arm.mean_and_sd[0] or 0.0


def _words(arm: Arm) -> str:
    return percent(_mean(arm), arm.mean_and_sd[1], len(arm.top1))

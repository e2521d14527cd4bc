"""Arms that need other learning rates and were compared at one: a reader must know."""

from __future__ import annotations

from kdprune.messages import listed
from kdprune.report.sections import Section

_CHANGE_GRADIENT = ("distill.alpha", "distill.loss", "distill.temperature")


def confounded(section: Section) -> str | None:
    """A warning where α, losses, temperatures or "no teacher" are compared at one common learning rate.

    A sweep says so itself; this is for runs that were made one by one, or by a version that did not write it down.
    """
    runs = [entry.values for entry in section.entries if entry.finished]
    if "train.lr" in section.tuned or len({run.get("train.lr") for run in runs}) > 1:
        return None
    guided = [run for run in runs if run.get("teacher.models")]
    compared = [name for name in _CHANGE_GRADIENT if len({str(run.get(name)) for run in guided}) > 1]
    if 0 < len(guided) < len(runs):
        compared.append("runs with and without a teacher")
    if not compared:
        return None
    return (
        f"{listed(compared)}: compared at one learning rate, and they change the size of the gradient, so that the "
        "best one of each arm may differ; kdprune sweep --tune.train.lr chooses it for each arm on a part of the "
        "training set"
    )

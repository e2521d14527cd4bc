"""Conditions that several settings share; `s` is the situation, `t` one of its trainings."""

from __future__ import annotations

from kdprune.config.conditions import Condition, only, only_in

KEPT = "--subset.file says what is kept"
SELECTION = (
    only(lambda s: not s.config.subset.file, KEPT),
    only(lambda s: not s.draws_each_epoch, "--subset.dynamic {config.subset.dynamic} draws from all samples"),
)
CHOSEN = only(lambda s: s.config.subset.keep_fraction < 1, "all samples are kept")
SCORED = only(lambda s: s.reads_scores, "selector {config.subset.selector} reads no scores")
STUDENT = only(lambda s: s.builds_student, "kdprune {command} builds no student")
STUDENT_ONLY = only(lambda s: s.trains_student, "kdprune {command} trains no student")
GUIDED = (
    only(lambda s: s.config.teacher.models, "--teacher.models names no teacher"),
    only(lambda s: s.listens, "--distill.alpha is 0, with which a student learns nothing from a teacher"),
)
TRAINS = only(lambda s: s.trainings, "kdprune {command} trains nothing")
DISTILLED = only(lambda s: s.distils, "kdprune {command} distils nothing")
SEVERAL = only(lambda s: len(s.config.teacher.models) > 1, "there is one teacher")
TAUGHT = only(lambda s: s.trains_teacher, "all teachers have weights, so none is trained here")
CACHED = only(lambda s: s.config.teacher.targets == "cached", "--teacher.targets online keeps nothing")
MASKED = only(lambda s: s.has_mask, "neither --student.sparsity nor --student.mask is given")
PRUNED = only(lambda s: s.prunes, "no weight is pruned here: --student.sparsity is 0, or --student.mask says which")
PROXIES = only(lambda s: s.trains_proxies, "no proxies are trained")
WITH_LR_BASE = only_in(lambda t: t.settings.lr_base is not None, "no lr_base is given")
COUNTED = only_in(lambda t: t.settings.steps is None, "steps are given, which say how long the training is")


def observed(kind: str) -> Condition:
    return only(lambda s: kind in s.records, f"no {kind} are recorded")


def scheduled(*names: str) -> Condition:
    return only_in(lambda t: t.settings.sched in names, f"the schedule is {{settings.sched}}, not {' or '.join(names)}")

"""Seeds by role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdprune.config.conditions import only, setting
from kdprune.config.settings.when import STUDENT_ONLY


@dataclass
class SeedConfig:
    """Seeds by role; each is --seed unless it is given.

    Args:
        weights: Of initial weights, dropout and projectors.
        data: Of the order of samples and their views, so that runs can share cached targets.
        subset: Of the kept samples, and of those that are held out for validation.
        teacher: Of a teacher that is trained here: its weights, order and views. Given, runs of several seeds share it,
            with --teacher.train_fraction or --data.val_fraction if seeds.subset is given, too.
        role: Whose training it is. A teacher draws other views and weights than a student of the same seed.
    """

    weights: int | None = setting(None, STUDENT_ONLY)
    data: int | None = setting(None, STUDENT_ONLY)
    subset: int | None = None
    teacher: int | None = setting(None, only(lambda s: s.trains_teacher, "no teacher is trained here"))
    role: Literal["student", "teacher", "proxy"] = "student"

"""What a caller hands over in Python in place of names in the settings: data, a student, teachers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import nn

from kdprune.checks import GIVEN
from kdprune.config import Config, DataConfig, StudentConfig, TeacherConfig


@dataclass(frozen=True)
class Given:
    """Objects that no name stands for.

    Attributes:
        data: the training and the held-out part, each as `data_of` takes it; the second may be None.
        student, teachers: modules from normalised images to logits.
    """

    data: tuple[Any, Any] | None = None
    student: nn.Module | None = None
    teachers: tuple[nn.Module, ...] = ()

    def named(self, config: Config) -> Config:
        """A copy of the settings in which what was given has the name of its class, as `given:NAME`.

        Raises:
            ValueError: a setting says something else of what was given; a given part that is not here.
        """
        config = deepcopy(config)
        if self.data is not None:
            _refuse("data", config.data.dataset, DataConfig().dataset, "data.dataset")
            config.data.dataset = _name(self.data[0])
        if self.student is not None:
            for option in ("model", "pretrained", "checkpoint", "drop_rate"):
                _refuse(
                    "student", getattr(config.student, option), getattr(StudentConfig(), option), f"student.{option}"
                )
            config.student.model = _name(self.student)
        elif is_given(config.student.model):
            raise ValueError(f"--student.model: {config.student.model} is handed over in Python, with student=…")
        if self.teachers:
            for option in ("models", "checkpoints", "pretrained"):
                _refuse(
                    "teachers", getattr(config.teacher, option), getattr(TeacherConfig(), option), f"teacher.{option}"
                )
            config.teacher.models = [_name(teacher) for teacher in self.teachers]
        elif any(map(is_given, config.teacher.models)):
            raise ValueError(f"--teacher.models: {config.teacher.models} are handed over in Python, with teachers=…")
        return config


NOTHING_GIVEN = Given()


def is_given(name: str) -> bool:
    """Whether a name in the settings stands for an object that was handed over."""
    return name.startswith(GIVEN)


def _name(what: object) -> str:
    return f"{GIVEN}{type(what).__name__}"


def _refuse(argument: str, value: Any, default: Any, option: str) -> None:
    """Refuse a setting that would say the same as an argument, or something else."""
    if value != default and not (isinstance(value, str) and is_given(value)):
        raise ValueError(f"{option}: {value!r} given beside {argument}=…; leave one of them out")

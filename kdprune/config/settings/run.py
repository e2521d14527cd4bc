"""All settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdprune.config.conditions import only, setting
from kdprune.config.settings.data import DataConfig
from kdprune.config.settings.distill import DistillConfig
from kdprune.config.settings.record import RecordConfig
from kdprune.config.settings.seeds import SeedConfig
from kdprune.config.settings.student import StudentConfig
from kdprune.config.settings.subset import SubsetConfig
from kdprune.config.settings.teacher import TeacherConfig
from kdprune.config.settings.train import TrainConfig
from kdprune.config.settings.values import as_list
from kdprune.config.settings.when import DISTILLED, GUIDED, STUDENT_ONLY, TRAINS


@dataclass
class Config:
    """A training run.

    Args:
        seed: Of everything that is random; see seeds for what can be given apart.
        output: Folder for run directories.
        name: Name of the run directory (default: made from what the run is).
        baseline: Also train the same student on the same subset without the teacher, for comparison.
        log_with: Accelerate trackers (tensorboard, wandb, …); metrics.csv is always written.
        remake: Train a finished run again if a file of it is missing or has changed, instead of refusing.
        track_energy: Measure energy and CO₂ of each training by codecarbon, without a network; in summary.json.
    """

    seed: int = 0
    output: str = "runs"
    name: str | None = setting(None, STUDENT_ONLY)
    baseline: bool = setting(False, STUDENT_ONLY, *GUIDED)
    log_with: list[str] | str = setting(list, TRAINS)
    remake: bool = False
    track_energy: bool = setting(False, TRAINS)
    seeds: SeedConfig = field(default_factory=SeedConfig)
    data: DataConfig = setting(DataConfig, only(lambda s: s.opens_data, "kdprune {command} opens no data"))
    subset: SubsetConfig = setting(
        SubsetConfig, only(lambda s: s.trains_student, "kdprune {command} is of all samples")
    )
    record: RecordConfig = field(default_factory=RecordConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = setting(TeacherConfig, *GUIDED)
    distill: DistillConfig = setting(DistillConfig, *GUIDED, DISTILLED)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.log_with = as_list(self.log_with)

    def seed_of(self, role: Literal["weights", "data", "subset", "teacher"]) -> int:
        """The seed of a role: its own, or --seed."""
        own = getattr(self.seeds, role)
        return self.seed if own is None else own

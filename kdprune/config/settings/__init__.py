"""Every setting of a training run, in one place, with one owner for each field.

A setting that does not always matter says here when it does, of the `Situation` (see `kdprune.config.situation`) or, in
`TrainConfig`, of each training that reads it. Where it does not matter, a value other than the default is warned of and
put back, so that it is no part of what a run is (see `kdprune.config.effect`).

This module imports nothing heavy, so that help texts and mistakes in the command line answer at once.
"""

from kdprune.config.settings.data import DataConfig
from kdprune.config.settings.distill import DistillConfig
from kdprune.config.settings.record import RecordConfig
from kdprune.config.settings.run import Config
from kdprune.config.settings.seeds import SeedConfig
from kdprune.config.settings.student import StudentConfig
from kdprune.config.settings.subset import SubsetConfig
from kdprune.config.settings.teacher import TeacherConfig
from kdprune.config.settings.train import TRAININGS, TeacherTrainConfig, TrainConfig

__all__ = [
    "TRAININGS",
    "Config",
    "DataConfig",
    "DistillConfig",
    "RecordConfig",
    "SeedConfig",
    "StudentConfig",
    "SubsetConfig",
    "TeacherConfig",
    "TeacherTrainConfig",
    "TrainConfig",
]

"""Settings: what they are, how they are read, what a run is by them, which of them matter. Imports nothing heavy."""

from kdprune.config.identity import config_hash, dotted, relevant, to_dict
from kdprune.config.reading import from_dict
from kdprune.config.settings import (
    Config,
    DataConfig,
    DistillConfig,
    RecordConfig,
    SeedConfig,
    StudentConfig,
    SubsetConfig,
    TeacherConfig,
    TeacherTrainConfig,
    TrainConfig,
)

__all__ = [
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
    "config_hash",
    "dotted",
    "from_dict",
    "relevant",
    "to_dict",
]

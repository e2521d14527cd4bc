"""Settings of what is observed for scorers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdprune.config.conditions import only, setting
from kdprune.config.settings.train import TeacherTrainConfig
from kdprune.config.settings.values import as_list
from kdprune.config.settings.when import PROXIES, observed


@dataclass
class RecordConfig:
    """What is observed for the scorer, if it was not before.

    Args:
        source: Whose training dynamics: of a teacher that is trained here anyway, or of proxies, models that are
            trained for nothing else; auto takes the teacher's where they are recorded on all samples.
        files: Records to use instead: directories of runs or of records; several are repeats of one.
        model: Of the proxies (default: the student).
        repeats: Proxies that differ in their seed; scores are means over them.
        view: Whether proxies are recorded on plain images after each epoch, or on their training views.
        train: Anything of train.* for the proxies (default: the run's).
        seed: Of the first proxy (default: seed).
        epoch: After which epoch of the proxies per-sample gradients are taken (0: of their first weights; default: the
            last one).
        train_fraction: Part of the data that each training for memorization scores sees.
        embeddings: Model whose features are recorded: any that --teacher.models may name (default: the teacher, or else
            a trained proxy).
    """

    source: Literal["auto", "proxy", "teacher"] = setting("auto", observed("dynamics"))
    files: list[str] | str = setting(
        list, only(lambda s: s.trains_student and s.asks_for_records, "no record is asked for that they could be")
    )
    model: str | None = setting(None, PROXIES)
    repeats: int = setting(1, PROXIES, only(lambda s: s.repeats, "embeddings are those of one model"))
    view: Literal["plain", "training"] = setting("plain", PROXIES)
    train: TeacherTrainConfig = setting(TeacherTrainConfig, PROXIES)
    seed: int | None = setting(None, PROXIES)
    epoch: int | None = setting(None, observed("gradients"))
    train_fraction: float = setting(0.7, observed("memorization"))
    embeddings: str | None = setting(None, observed("embeddings"))

    def __post_init__(self) -> None:
        self.files = as_list(self.files)

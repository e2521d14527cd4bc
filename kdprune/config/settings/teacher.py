"""Settings of the teachers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdprune.config.conditions import only, setting
from kdprune.config.settings.train import TeacherTrainConfig
from kdprune.config.settings.values import as_list
from kdprune.config.settings.when import CACHED, DISTILLED, SEVERAL, TAUGHT


@dataclass
class TeacherConfig:
    """The models that guide the student. One that comes without weights is trained first, on the full data.

    Args:
        models: One or several, each a timm name, an hf-hub: name, or the directory of an earlier run (RUN, or
            RUN@EPOCH for a snapshot that it kept); or ema, the student's own moving average (with --train.ema).
            Empty: plain training without a teacher.
        checkpoints: A weights file for each model (or none at all).
        pretrained: Use timm's pretrained weights.
        weights: Weight of each teacher in the average (default: equal); or learned: those that make the labels of
            training samples likeliest that no teacher was trained on (--teacher.train_fraction 0.9 leaves a tenth).
        temperatures: Temperature of each teacher (default: distill.temperature).
        by_correctness: Weigh several teachers anew for every sample, by the probability they give to its label.
        train: Anything of train.* for a teacher that is trained here (default: the run's).
        train_fraction: Part of the training data that a teacher trained here sees (the paper's f_t).
        augment: View recipe for a teacher that is trained here (default: data.augment).
        drop_rate: Dropout of a teacher that is trained here.
        snapshot: Use this snapshot of a teacher trained here instead of its last epoch (an early-epoch teacher).
        generations: Born-again teachers: one that is trained here teaches the next of its kind, with the run's loss and
            alpha, and the last of so many teaches the student (1: none but that).
        targets: online: the teacher runs at every step; cached: its logits are stored and met again.
        views: Number of different views of a sample (epoch e uses view e mod views); default: one for each epoch.
        cache: Folder of cached targets (default: a folder in the output, named by all that they depend on).
        top_k: Cache the k largest logits and what rebuilds the rest at any temperature (default: all logits).
        engine: frozen: BatchNorm folded and weights cast once to the run's precision; plain: as the model is.
    """

    models: list[str] | str = field(default_factory=list)
    checkpoints: list[str] | str = field(default_factory=list)
    pretrained: bool = setting(False, only(lambda s: s.weightless, "all teachers have weights of their own"))
    weights: list[float] | Literal["learned"] | None = setting(None, DISTILLED, SEVERAL)
    temperatures: list[float] | None = setting(None, DISTILLED)
    by_correctness: bool = setting(False, DISTILLED, SEVERAL)
    train: TeacherTrainConfig = setting(TeacherTrainConfig, TAUGHT)
    train_fraction: float = setting(1.0, TAUGHT)
    augment: str | None = setting(None, TAUGHT)
    drop_rate: float = setting(0.0, TAUGHT)
    snapshot: int | None = setting(None, TAUGHT)
    generations: int = setting(1, TAUGHT)
    targets: Literal["online", "cached"] = setting("online", DISTILLED)
    views: int | None = setting(None, DISTILLED)
    cache: str | None = setting(None, DISTILLED, only(lambda s: s.keeps_targets, CACHED.otherwise))
    top_k: int | None = setting(None, DISTILLED, CACHED)
    engine: Literal["frozen", "plain"] = setting(
        "frozen", DISTILLED, only(lambda s: not s.averages, "--teacher.models is ema, which is the student itself")
    )

    def __post_init__(self) -> None:
        self.models = as_list(self.models)
        self.checkpoints = as_list(self.checkpoints)

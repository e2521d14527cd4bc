"""Settings of the student, its weight pruning among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdprune.config.conditions import only, setting
from kdprune.config.settings.values import as_list
from kdprune.config.settings.when import MASKED, PRUNED, STUDENT, STUDENT_ONLY


@dataclass
class StudentConfig:
    """The model that is trained on the kept samples.

    Args:
        model: Any timm model name, or one of kdprune's (cifar_resnet8 … cifar_resnet110, cifar_vgg16 …, mlp_800 …).
        pretrained: Start from timm's pretrained weights.
        checkpoint: Start from a safetensors file (or a .pth that holds weights only).
        drop_rate: Dropout before the classifier.
        sparsity: Weight pruning: pruned / all weights of convolutions and linear layers, in [0, 1).
        pruner: Which weights go: a name, or NAME(ARGUMENTS), such as snip(per_class=20) or synflow(rounds=50).
        prune_at: When: init (before the first step), a number of steps (500) or epochs (10ep), end (after the last
            step), or gradual(BEGIN, END, every=STEPS).
        prune_scope: Whether the highest scores of the whole network are kept, or those of each layer, all at one
            density.
        prune_exclude: Layers that are left whole: first, last, or unfit, those whose input dimension is no multiple of
            four; or several of these.
        pattern: 2:4 keeps two of every four weights along the input dimension, those of the highest scores, which
            is a sparsity of 0.5 that some GPUs can use.
        mask: A mask.json, or the directory of a run that has one, to use instead of pruning.
        mask_check: Sanity check of the mask: shuffle it within each layer, reinit the weights under it, or invert it
            (keep what would go).
        rewind_to: Begin at this step of the schedule and of the order of samples instead of the first, with the weights
            of --student.checkpoint that a training had after it (lottery-ticket rewinding).
        allow_collapse: Go on although a layer is left without weights.
    """

    model: str = setting("cifar_resnet8", STUDENT)
    pretrained: bool = setting(
        False, STUDENT, only(lambda s: s.config.student.checkpoint is None, "--student.checkpoint is given")
    )
    checkpoint: str | None = setting(None, STUDENT)
    drop_rate: float = setting(
        0.0, only(lambda s: s.trains_student or s.trains_proxies, "kdprune {command} trains no student and no proxies")
    )
    sparsity: float = setting(
        0.0, STUDENT_ONLY, only(lambda s: not s.config.student.mask, "--student.mask says which weights are pruned")
    )
    pruner: str = setting("magnitude", STUDENT_ONLY, PRUNED)
    prune_at: str = setting("init", STUDENT_ONLY, PRUNED)
    prune_scope: Literal["global", "layer"] = setting(
        "global", STUDENT_ONLY, PRUNED, only(lambda s: s.config.student.pattern is None, "--student.pattern is given")
    )
    prune_exclude: list[str] | str = setting(list, STUDENT_ONLY, PRUNED)
    pattern: Literal["2:4"] | None = setting(None, STUDENT_ONLY, PRUNED)
    mask: str | None = setting(None, STUDENT_ONLY)
    mask_check: Literal["shuffle", "reinit", "invert"] | None = setting(None, STUDENT_ONLY, MASKED)
    rewind_to: int = setting(0, STUDENT_ONLY)
    allow_collapse: bool = setting(False, STUDENT_ONLY, MASKED)

    def __post_init__(self) -> None:
        self.prune_exclude = as_list(self.prune_exclude)
        self.prune_at = str(self.prune_at)
        if self.pattern is not None and self.mask is None and self.sparsity == 0:
            self.sparsity = 0.5

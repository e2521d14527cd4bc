"""Settings of a training: the student's, a teacher's, or a proxy's."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, Literal, get_type_hints

from kdprune.config.conditions import EVERYWHERE, only_in, setting
from kdprune.config.settings.when import COUNTED, WITH_LR_BASE, scheduled

TRAININGS = ("train", "teacher.train", "record.train")  # the groups of settings that are a `TrainConfig`


@dataclass
class TrainConfig:
    """The training of one model.

    Args:
        epochs: Passes over the kept samples (budget subset) or over as many samples as the full set has (full).
        steps: Optimizer steps; overrides epochs.
        budget: subset: epochs count kept samples, so that small subsets get fewer steps; full: the same number of
            steps for every subset.
        batch_size: Samples an optimizer step, over all processes and accumulation steps together.
        grad_accum: Parts that each process cuts its share of a batch into, to save memory.
        opt: timm's name of the optimizer ('sgd' is Nesterov), with further arguments of it by timm's names if they are
            given: 'adamw(betas=[0.9, 0.95], eps=1e-6, layer_decay=0.75)'.
        momentum: For the optimizers that have it.
        lr: Learning rate.
        lr_base: Learning rate at a batch of lr_base_size samples, scaled to batch_size by lr_base_scale (timm's rule);
            overrides lr.
        lr_base_size: The batch that lr_base is for.
        lr_base_scale: How lr_base grows with the batch (default: sqrt for Adam's kin and LAMB, linear for others).
        sched: timm's name of the scheduler, torch's 'onecycle', or 'none' for a constant rate.
        min_lr: Lowest rate of the cosine, poly and onecycle schedules.
        warmup_epochs: Linear warm-up, after which the schedule begins; of onecycle, its rise (default there: 30% of the
            steps).
        decay_milestones: Epochs at which the multistep schedule decays.
        decay_rate: Its factor; for the poly schedule, its power.
        weight_decay: On weights; biases and norm parameters are left out, as timm does.
        smoothing: Label smoothing of the cross-entropy (never of the distillation term).
        precision: auto takes bf16 where the hardware multiplies in it.
        compile: torch.compile the student and the frozen teachers.
        ema: Decay of an exponential moving average of the student, which is then what is evaluated (0: none).
        ema_warmup: Let that decay grow with the steps (timm's rule), so that short runs forget their first weights.
        clip_grad: Largest gradient norm (default: no clipping).
        eval_every: Epochs between evaluations; the last epoch is always evaluated.
        checkpoint_every: Epochs ('1'), or minutes ('5min'), between checkpoints.
        checkpoint_keep: How many of the latest checkpoints are kept.
        save_epochs: Epochs after which a snapshot of the weights is kept, for RUN@EPOCH.
        save_steps: Steps after which one is kept, for RUN@stepSTEP.
        record: Keep statistics of every sample and epoch in the run directory, for scorers: of the training views, at
            next to no cost, or of plain images after each epoch, at the cost of a forward pass over all samples.
            (default: training for a teacher that is trained here, else none).
    """

    epochs: float = setting(30, COUNTED)
    steps: int | None = None
    budget: Literal["subset", "full"] = setting("subset", COUNTED)
    batch_size: int = setting(128, EVERYWHERE)
    grad_accum: int = setting(1, EVERYWHERE)
    opt: str = "sgd"
    momentum: float = setting(0.9, only_in(lambda t: t.has_momentum, "{settings.opt} has none"))
    lr: float = setting(0.1, only_in(lambda t: t.settings.lr_base is None, "lr_base and the batch say the rate"))
    lr_base: float | None = None
    lr_base_size: int = setting(256, WITH_LR_BASE)
    lr_base_scale: Literal["linear", "sqrt"] | None = setting(None, WITH_LR_BASE)
    sched: Literal["cosine", "multistep", "poly", "onecycle", "none"] = "cosine"
    min_lr: float = setting(0.0, scheduled("cosine", "poly", "onecycle"))
    warmup_epochs: float = 0.0
    decay_milestones: list[float] = setting(list, scheduled("multistep"))
    decay_rate: float = setting(0.1, scheduled("multistep", "poly"))
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    precision: Literal["auto", "no", "bf16", "fp16"] = setting("auto", EVERYWHERE)
    compile: bool = setting(False, EVERYWHERE)
    ema: float = 0.0
    ema_warmup: bool = setting(True, only_in(lambda t: t.settings.ema > 0, "there is no moving average"))
    clip_grad: float | None = None
    eval_every: int = 1
    checkpoint_every: str = "5min"
    checkpoint_keep: int = 2
    save_epochs: list[int] = field(default_factory=list)
    save_steps: list[int] = field(default_factory=list)
    record: Literal["none", "training", "plain"] = "none"

    def __post_init__(self) -> None:
        self.checkpoint_every = str(self.checkpoint_every)


_HINTS = get_type_hints(TrainConfig)
TeacherTrainConfig: Any = make_dataclass(
    "TeacherTrainConfig",
    [(f.name, _HINTS[f.name] | None, field(default=None, metadata=f.metadata)) for f in fields(TrainConfig)],
)
"""The fields of TrainConfig, each None unless it is given."""
TeacherTrainConfig.__module__ = __name__
TeacherTrainConfig.__doc__ = str(TrainConfig.__doc__).replace(
    "The training of one model.", "The training of a teacher; what is not given is as in train."
)

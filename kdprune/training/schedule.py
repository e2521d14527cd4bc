"""How long a training takes, in steps, and timm's optimizers and schedulers over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn, zeros
from torch.optim import SGD, Optimizer

from kdprune.config import TrainConfig
from kdprune.data.stream import total_steps
from kdprune.messages import unknown


@dataclass(frozen=True)
class Budget:
    """The length of a training.

    Attributes:
        steps: in all.
        kept: samples of an epoch.
        batch_size: samples of a step.
        schedule_epoch: steps by which warm-up and milestones are counted: epochs of all the data under budget full.
        begun: epochs, where they do not all hold as many samples.
    """

    steps: int
    kept: int
    batch_size: int
    schedule_epoch: float
    begun: int | None = None

    @property
    def epoch(self) -> float:
        """Steps in which as many samples are seen as are kept."""
        return self.kept / self.batch_size

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return self.begun if self.begun is not None else -(-self.steps * self.batch_size // self.kept)


def make_budget(train: TrainConfig, kept: int, total: int) -> Budget:
    """The length of a training on `kept` of `total` samples."""
    steps = total_steps(train.epochs, train.steps, train.budget, kept, total, train.batch_size)
    counted = kept / train.batch_size if train.steps is not None else steps / train.epochs
    return Budget(steps, kept, train.batch_size, counted)


def check_optimizer(name: str) -> None:
    """Refuse an optimizer that timm does not know."""
    known = [str(optimizer) for optimizer in list_optimizers()]
    if name not in known:
        raise ValueError("--train.opt: " + unknown("optimizer", name, known))


def make_optimizer(config: TrainConfig, model: nn.Module, extra: list[nn.Parameter]) -> Optimizer:
    """timm's optimizer for a model and the parameters of its losses; no weight decay on biases and norms."""
    check_optimizer(config.opt)
    kwargs: dict[str, Any] = {"fused": True} if config.opt in ("sgd", "momentum", "adam", "adamw") else {}
    # Nesterov's step is undefined without momentum, and plain SGD is what is meant then.
    name = "momentum" if config.opt == "sgd" and config.momentum == 0 else config.opt
    optimizer = create_optimizer_v2(
        model, opt=name, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum, **kwargs
    )
    if extra:
        for decays in (True, False):
            group = [parameter for parameter in extra if (parameter.ndim > 1) == decays]
            optimizer.add_param_group({"params": group, "weight_decay": config.weight_decay if decays else 0.0})
    return optimizer


def make_scheduler(config: TrainConfig, optimizer: Optimizer, budget: Budget) -> Any:
    """timm's scheduler, a function of the step."""
    total, steps_per_epoch = budget.steps, budget.schedule_epoch
    constant = config.sched == "none"  # as milestones that never come, so that there is a warm-up
    warmup = round(config.warmup_epochs * steps_per_epoch)
    falls = config.sched in ("cosine", "poly")  # from where the warm-up ends, or the rate would drop there
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="multistep" if constant else config.sched,
        num_epochs=max(1, total - warmup) if falls else total,
        warmup_epochs=warmup,
        warmup_prefix=falls,
        warmup_lr=config.lr / 100,
        min_lr=config.min_lr,
        decay_milestones=[] if constant else [round(epoch * steps_per_epoch) for epoch in config.decay_milestones],
        decay_rate=config.decay_rate,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler


def rate_after(config: TrainConfig, budget: Budget, step: int) -> float:
    """The learning rate that a training has reached after `step` steps, its warm-up taken for done."""
    optimizer = SGD([nn.Parameter(zeros(1))], lr=config.lr)
    scheduler = make_scheduler(config, optimizer, budget)
    if step < round(config.warmup_epochs * budget.schedule_epoch):
        return config.lr
    scheduler.step_update(step)
    return float(optimizer.param_groups[0]["lr"])

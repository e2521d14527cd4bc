"""The state of a training: what a checkpoint holds, and a trainer that goes on from it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from kdprune.training.trainer import Trainer

log = logging.getLogger("kdprune")


def state_of(trainer: Trainer, sums: Tensor) -> dict[str, Any]:
    """Everything that is not a function of the settings and the step.

    Args:
        sums: of what was measured in this epoch, over all processes.
    """
    scaler, kd, ema = trainer.accelerator.scaler, trainer.task.kd, trainer.ema
    return {
        "step": trainer.step,
        "processes": trainer.accelerator.num_processes,
        "student": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.optimizer.state_dict(),
        "ema": None if ema is None else ema.module.state_dict(),
        "kd": None if kd is None else kd.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "sums": sums,
        "history": trainer.history,
        "seconds": [trainer.seconds, trainer.epoch_seconds],
        "asked": None if trainer.task.targets is None else trainer.task.targets.forward_samples,
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put a trainer where `state_of` found one."""
    trainer.model.load_state_dict(state["student"])
    trainer.optimizer.optimizer.load_state_dict(state["optimizer"])
    if trainer.ema is not None:
        trainer.ema.module.load_state_dict(state["ema"])
    if trainer.task.kd is not None:
        trainer.task.kd.load_state_dict(state["kd"])
    if trainer.accelerator.scaler is not None and state["scaler"] is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    if trainer.accelerator.is_main_process:  # the sums of all processes
        trainer.sums.copy_(state["sums"])
    trainer.step, trainer.history = state["step"], state["history"]
    trainer.seconds, trainer.epoch_seconds = state["seconds"]
    if trainer.task.targets is not None:
        trainer.task.targets.forward_samples = state.get("asked", 0)
    label, processes = trainer.task.label, trainer.accelerator.num_processes
    log.info("%s: goes on at step %d of %d", label, trainer.step, trainer.total)
    if state["processes"] != processes:
        log.warning(
            "%s: the checkpoint was written by %d processes and %d go on: the result will be equal up to rounding "
            "(and BatchNorm sees other local batches), not bit for bit",
            label, state["processes"], processes,
        )  # fmt: skip

"""summary.json: what came out of a run, and what it cost."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator

from kdprune import alpha as alpha_policies
from kdprune.checks import EMA
from kdprune.config import Config, config_hash
from kdprune.data.dataset import Data
from kdprune.data.subset import Subset
from kdprune.models.build import (
    Built,
    count_parameters,
)
from kdprune.runs.accelerator import device_name
from kdprune.teachers.targets import OnlineTargets
from kdprune.teachers.teacher import Teacher


def summarise(
    config: Config, data: Data, subset: Subset, built: Built, teachers: list[Teacher], targets: OnlineTargets | None,
    result: dict[str, Any], accelerator: Accelerator,
) -> dict[str, Any]:  # fmt: skip
    """summary.json (see docs/DESIGN.md for what it must hold)."""
    alpha = alpha_policies.parse(config.distill.alpha).at(subset.keep_fraction) if config.teacher.models else 0.0
    seen = result["images_seen"]
    parameters = count_parameters(built.model)
    described = [teacher.summary() for teacher in teachers]
    if config.teacher.models == [EMA]:
        described = [{"name": EMA, "source": "the student", "parameters": parameters, "test_top1": result["test_top1"]}]
    nothing = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0}
    if targets is not None and teachers:
        described = [{**one, "weight": weight} for one, weight in zip(described, targets.weights, strict=True)]
    spent = [teacher.training["cost"] for teacher in teachers if teacher.training]
    trained = [cost[stage] for cost in spent for stage in ("student_training", "teacher_training")]  # of generations
    asked = 0 if targets is None else targets.forward_samples * accelerator.num_processes
    cost = {
        "observation": nothing,
        "teacher_training": {key: sum(cost[key] for cost in trained) for key in nothing},
        # A cache that fills on the way costs its passes here and its seconds in the student's training.
        "target_caching": {**nothing, "forward_samples": asked if config.teacher.targets == "cached" else 0},
        "student_training": {
            "seconds": result["train_seconds"], "forward_samples": seen, "backward_samples": seen,
            "teacher_forward_samples": asked if config.teacher.targets == "online" else 0,
        },
    }  # fmt: skip
    return {
        **result,
        "keep_fraction": subset.keep_fraction,
        "kept": len(subset.ids),
        "total": subset.total,
        "dropped": len(subset.dropped),
        "budget": config.train.budget,
        "alpha": alpha,
        "alpha_policy": str(config.distill.alpha) if described else None,
        "temperature": config.distill.temperature if described else None,
        "loss": str(config.distill.loss) if described else None,
        "teacher": described,
        "student": {"name": built.name, "parameters": parameters},
        "seed": config.seed,
        "dataset": config.data.dataset,
        "cost": cost,
        "config_hash": config_hash(config),
        "subset_hash": subset.hash,
        "dataset_fingerprint": data.fingerprint,
        "device": device_name(accelerator.device),
        "precision": accelerator.mixed_precision,
    }

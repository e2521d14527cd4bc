"""summary.json: what came out of a run, what it was made of, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdprune import alpha as alpha_policies
from kdprune.artefact import key_hash, read_record
from kdprune.checks import EMA
from kdprune.config import config_hash
from kdprune.models.build import count_parameters
from kdprune.orders.common.plan import Dynamic
from kdprune.pipeline.dynamic import epoch_size, keep_fraction
from kdprune.pipeline.job import Job
from kdprune.pipeline.masks import is_sparse
from kdprune.pipeline.sparsity import sparsity
from kdprune.runs.accelerator import device_name
from kdprune.runs.run_dir import RunDir
from kdprune.teachers.targets import OnlineTargets
from kdprune.teachers.teacher import Teacher
from kdprune.training.state import TrainState

NOTHING = {"seconds": 0.0, "forward_samples": 0, "backward_samples": 0}


def summarise(
    job: Job,
    run: RunDir,
    teachers: list[Teacher],
    targets: OnlineTargets | None,
    state: TrainState,
    search: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """summary.json (see docs/DESIGN.md for what it must hold).

    Args:
        search: what a search for α found, if there was one.
    """
    config, subset, accelerator = job.config, job.subset, job.session.accelerator
    result = student_result(job, state)
    parameters = count_parameters(job.student.model)
    described = _described(job, teachers, targets, parameters, result["test_top1"])
    fraction = keep_fraction(config, subset)
    alpha = alpha_policies.parse(config.distill.alpha).at(fraction) if config.teacher.models else 0.0
    return {
        **result,
        **({} if job.dynamic is None else {"dynamic": _dynamic(job, job.dynamic, result["images_seen"])}),
        "keep_fraction": fraction,
        "kept": epoch_size(config, subset),
        "total": subset.total,
        "dropped": len(subset.dropped),
        "budget": config.train.budget,
        "alpha": alpha,
        "alpha_policy": str(config.distill.alpha) if described else None,
        "temperature": config.distill.temperature if described else None,
        "loss": str(config.distill.loss) if described else None,
        "teacher": described,
        "student": {"name": job.student.name, "parameters": parameters},
        **({"weight_pruning": sparsity(job, run)} if is_sparse(config) else {}),
        "seed": config.seed,
        "dataset": config.data.dataset,
        "cost": _cost(job, teachers, targets, state, result, search),
        "name": run.path.name,
        "key_hash": key_hash(run.artefact.key),
        "key": run.artefact.key,
        "config_hash": config_hash(run.config),
        "subset_hash": subset.hash,
        "dataset_fingerprint": job.session.data.fingerprint,
        "inputs": _inputs(job, teachers),
        "device": device_name(accelerator.device),
        "precision": accelerator.mixed_precision,
    }


def _inputs(job: Job, teachers: list[Teacher]) -> dict[str, Any]:
    """Keys of what the run was made of, so that a chain of runs can be followed by contents."""
    data = job.session.data
    made_of = [{"run": _run_key(teacher.source), "weights": teacher.weights_hash} for teacher in teachers]
    return {
        "data": data.fingerprint,
        "test_data": data.test_fingerprint,
        "subset": job.subset.hash,
        "scores": _scores(job),
        "teachers": made_of,
    }


def _scores(job: Job) -> dict[str, Any] | None:
    """The scores that the subset was selected by, and what was observed for them."""
    scores = job.session.scores
    if scores is None:
        return None
    return {"hash": scores.hash, "scorer": scores.scorer, "hard": scores.hard, "origin": dict(scores.origin)}


def _run_key(source: str) -> str | None:
    """The hash of the key of the run that a teacher comes from; None where it comes from elsewhere."""
    run = Path(source.rpartition("@")[0] or source)
    record = read_record(run) if run.is_dir() else None
    return None if record is None else key_hash(record["key"])


def _dynamic(job: Job, dynamic: Dynamic, seen: int) -> dict[str, Any]:
    """What the epochs held, and which part of the cost of as many epochs over all samples was saved."""
    return {
        "order": job.config.subset.dynamic,
        "epochs": job.budget.epochs,
        "may_be_seen": len(job.subset.ids),
        "saved": 1 - seen / dynamic.all_samples,
    }


def student_result(job: Job, state: TrainState) -> dict[str, Any]:
    """What a training came to: accuracy at the last epoch, budget, speed."""
    row: dict[str, Any] = state.history[-1] if state.history else {}
    seen = state.steps * job.config.train.batch_size
    validation: dict[str, Any] = {name: row[name] for name in ("val_top1", "val_loss") if name in row}
    return {
        "test_top1": row.get("test_top1"),
        "test_loss": row.get("test_loss"),
        **validation,
        "epochs": seen / epoch_size(job.config, job.subset),
        "steps": state.steps,
        "images_seen": seen,
        "train_seconds": state.seconds,
        "images_per_second": seen / state.seconds,
    }


def lost_in(job: Job, state: TrainState) -> dict[str, Any]:
    """What of a training was done twice, because it was killed between two checkpoints: seconds and samples."""
    return {"seconds": state.lost_seconds, "samples": state.lost_steps * job.config.train.batch_size}


def _described(
    job: Job, teachers: list[Teacher], targets: OnlineTargets | None, parameters: int, test_top1: float | None
) -> list[dict[str, Any]]:
    """The teachers, with their weights in the mean."""
    if job.config.teacher.models == [EMA]:
        return [{"name": EMA, "source": "the student", "parameters": parameters, "test_top1": test_top1}]
    if targets is None:
        return []
    return [{**teacher.summary(), "weight": weight} for teacher, weight in zip(teachers, targets.weights, strict=True)]


def _cost(
    job: Job,
    teachers: list[Teacher],
    targets: OnlineTargets | None,
    state: TrainState,
    result: dict[str, Any],
    search: dict[str, Any] | None,
) -> dict[str, Any]:
    """Seconds and sample passes of each stage."""
    before = [teacher.training["cost"] for teacher in teachers if teacher.training]
    trained = [cost[stage] for cost in before for stage in ("student_training", "teacher_training")]  # of generations
    asked = 0 if targets is None else targets.forward_samples * job.session.accelerator.num_processes
    cached = job.config.teacher.targets == "cached"
    lost = lost_in(job, state)
    return {
        "observation": dict(job.session.observation or NOTHING),
        "teacher_training": {name: sum(cost[name] for cost in trained) for name in NOTHING},
        # A cache that fills on the way costs its passes here and its seconds in the student's training.
        "target_caching": {**NOTHING, "forward_samples": asked if cached else 0},
        "student_training": {
            "seconds": result["train_seconds"] + lost["seconds"],
            "forward_samples": result["images_seen"] + lost["samples"],
            "backward_samples": result["images_seen"] + lost["samples"],
            "teacher_forward_samples": 0 if cached else asked,
            "lost": lost,
        },
        **({} if search is None else {"alpha_search": search["cost"]}),
    }

"""What the result of a training is a function of, as a key of hashes of contents and settings (see `artefact`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kdprune import alpha as alpha_policies
from kdprune.artefact import Key, key_hash
from kdprune.checks import EMA
from kdprune.config import TrainConfig
from kdprune.config.effect import normal_training
from kdprune.data.dataset import no_ids
from kdprune.models.hashing import weights_hash
from kdprune.models.spec import BuiltModel
from kdprune.pipeline.dynamic import needs_scores
from kdprune.pipeline.effect import has_momentum
from kdprune.pipeline.job import Job
from kdprune.training.optimizer import learning_rate

VERSION = 1
"""Of the training. To be raised with a change after which the same settings give other weights, so that results of
before are not taken for results of now."""

# Settings of train.* that say how often something is looked at or written.
_NOT_THE_RESULT = ("precision", "eval_every", "checkpoint_every", "checkpoint_keep", "record")


def run_key(job: Job, teachers: Sequence[BuiltModel], mask: Key | None = None) -> Key:
    """The key of a run's student.

    Args:
        teachers: with their weights; none for plain training and for the student's own moving average.
        mask: the key of what is pruned of the student; None for a dense one.
    """
    config, data = job.config, job.session.data
    # The fingerprint sees an image that became unreadable only if it is one of the sampled ones.
    test_dropped = no_ids() if data.test is None else data.test.unreadable
    # Where its first weights follow from the seed, they need not be hashed.
    own = job.student.structure is not None
    has_past = own or config.student.pretrained or config.student.checkpoint is not None
    return {
        "version": VERSION,
        "data": {
            "train": data.fingerprint,
            "test": data.test_fingerprint,
            "test_dropped": ids_hash(test_dropped) if len(test_dropped) else None,
            "validation": ids_hash(data.validation) if len(data.validation) else None,
        },
        "subset": job.subset.hash,
        "student": {
            **network_key(job.student, with_weights=has_past),
            "drop_rate": config.student.drop_rate,
            "frozen": [name for name, x in job.student.model.named_parameters() if not x.requires_grad] or None,
        },
        "seeds": {"weights": config.seed_of("weights"), "data": config.seed_of("data"), "role": config.seeds.role},
        "views": job.views.key(),
        "precision": job.session.accelerator.mixed_precision,
        "train": training_key(config.train),
        "record": config.train.record if config.seeds.role == "proxy" else None,  # all that it is trained for
        **({"rewound_to": config.student.rewind_to} if config.student.rewind_to else {}),
        **({} if mask is None else {"weight_pruning": mask}),
        **(_dynamic_key(job) if config.subset.dynamic is not None else {}),
        **(_guidance_key(job, teachers) if config.teacher.models else {}),
    }


def training_key(train: TrainConfig) -> Key:
    """Settings of the optimisation, each where it decides anything, so that runs of before know themselves."""
    settings = asdict(normal_training(train, has_momentum(train)))
    key: Key = {name: value for name, value in settings.items() if name not in _NOT_THE_RESULT}
    # Snapshots change nothing of a training. They stand here as those of one that keeps none.
    key |= {"save_epochs": [], "save_steps": []}
    key |= {"lr": learning_rate(train), "lr_base": None, "lr_base_size": None, "lr_base_scale": None}
    return {**key, "ema_warmup": True if train.ema and train.ema_warmup else None}


def _dynamic_key(job: Job) -> Key:
    """What decides which samples the epochs hold; their size is settled by the keep fraction."""
    scores = job.session.difficulty(job.config.subset.hard) if needs_scores(job.config) else None
    return {
        "dynamic": job.config.subset.dynamic,
        "epoch_size": job.budget.kept,
        "scores": None if scores is None else hashlib.sha256(scores.astype("<f4").tobytes()).hexdigest(),
    }


def ids_hash(ids: np.ndarray) -> str:
    """SHA-256 of sample ids, hex."""
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()


def network_key(built: BuiltModel, with_weights: bool = True) -> Key:
    """What a network computes: its architecture, its input and, unless they follow from the seed, its weights."""
    key: Key = {"model": built.name, "arguments": built.model_args, "input": built.spec.to_json()}
    key["structure"] = built.structure
    return {**key, "weights": weights_hash(built.model.state_dict())} if with_weights else key


def _guidance_key(job: Job, teachers: Sequence[BuiltModel]) -> Key:
    config, teacher = job.config, job.config.teacher
    who: Any = EMA if teacher.models == [EMA] else [key_hash(network_key(built))[:16] for built in teachers]
    return {
        "teachers": who,
        "teacher": {
            "weights": teacher.weights,
            "judges": None if job.judges is None else ids_hash(job.judges),
            "temperatures": teacher.temperatures,
            "by_correctness": teacher.by_correctness,
            "targets": teacher.targets,
            "views": teacher.views,
            "top_k": teacher.top_k if teacher.targets == "cached" else None,
            "engine": teacher.engine,
        },
        "distill": {
            "loss": config.distill.loss,
            "temperature": config.distill.temperature,
            "layers": config.distill.layers,
            "alpha": config.distill.alpha,
            # A search draws its judges by this seed, also where all samples are kept or a file says which.
            "judges": config.seed_of("subset") if alpha_policies.search(config.distill.alpha) else None,
        },
    }

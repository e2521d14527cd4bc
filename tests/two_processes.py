"""What two processes do together: one session of both, in which every function of `CLAIMS` is run by each of them.

test_processes.py starts the session, and says what must come out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import torch
from helpers import Recorder, StopIn, config_of, restored_surroundings, train
from torch.nn.parallel import DistributedDataParallel

from kdprune.pipeline.cache import cache
from kdprune.pipeline.train import record
from kdprune.training.interrupt import Interrupted

# BatchNorm would see other local batches, so the students are fully connected.
KD = {
    "subset.keep_fraction": 0.5, "train.steps": 26, "data.augment": "crop(1)+mixup(0.4)", "train.batch_size": 96,
}  # fmt: skip
FEATURES = {
    "distill.loss": "kd + fitnet + 0.8*crd(negatives=128)", "distill.layers": [["act2", "layer2"]],
    "subset.keep_fraction": 0.5, "train.steps": 12, "train.lr": 0.02,
}  # fmt: skip
RECORDED = {"train.steps": None, "train.epochs": 3, "train.batch_size": 200}
SELECTED = {**RECORDED, "subset.keep_fraction": 0.5, "subset.selector": "hardest", "record.view": "training"}
CACHED = {"subset.keep_fraction": 0.3, "distill.alpha": 0.7}
INFOBATCH = {
    "subset.dynamic": "infobatch(ratio=0.6)", "subset.keep_fraction": 0.5, "train.steps": None, "train.epochs": 5,
    "train.batch_size": 96, "train.eval_every": 100,
}  # fmt: skip
SPARSE = {
    "subset.keep_fraction": 0.5, "train.steps": 6, "train.batch_size": 96, "train.eval_every": 100,
    "student.sparsity": 0.9, "student.pruner": "snip(per_class=2)",
}  # fmt: skip
STOPPED_AT = 20  # several processes look for signals every 20 steps


def distillation(folder: Path, teacher: str) -> Any:
    recorder = Recorder()
    train(folder, {**KD, "teacher.models": teacher}, recorder)
    return recorder.seen


def features(folder: Path, teacher: str) -> Any:
    train(folder, {**FEATURES, "teacher.models": teacher})


def filling(folder: Path, teacher: str) -> Any:
    with restored_surroundings():
        return cache(config_of(folder, {**CACHED, "teacher.models": teacher})).written


def odd_batch(folder: Path, teacher: str) -> Any:
    try:
        train(folder, {**KD, "train.batch_size": 95})
    except ValueError as error:
        return str(error)


def dynamic(folder: Path, teacher: str) -> Any:
    """Each process sees the losses of its own half only; they are stopped in an epoch that leaves samples out."""
    settings, recorder = {**INFOBATCH, "teacher.models": teacher}, Recorder()
    with contextlib.suppress(Interrupted):
        train(folder, settings, recorder, StopIn(STOPPED_AT - 3))
    torch.distributed.barrier()
    train(folder, settings, recorder)
    return recorder.seen


def stop(folder: Path, teacher: str) -> Any:
    """The signal reaches the second process only."""
    settings = {**KD, "teacher.models": teacher}
    observers = [StopIn(STOPPED_AT - 3, signal.SIGTERM)] if os.environ["RANK"] == "1" else []
    try:
        train(folder, settings, *observers)
    except Interrupted as stopped:
        torch.distributed.barrier()  # the first process may still write
        files = [path.name for path in folder.glob("*/checkpoints/*")]
        torch.distributed.barrier()
        train(folder, settings)
        return str(stopped), files


def gathering_losses(folder: Path, teacher: str) -> Any:
    from test_losses import crd_steps, dist_step

    half = slice(4 * int(os.environ["RANK"]), 4 * int(os.environ["RANK"]) + 4)
    return [step(half, DistributedDataParallel) for step in (dist_step, crd_steps)]


def recording(folder: Path, teacher: str) -> Any:
    for view in ("plain", "training"):
        train(folder, {**RECORDED, "train.record": view, "name": view})
        train(folder, {**RECORDED, "train.record": view, "name": f"{view}_in_parts", "train.grad_accum": 2})


def normalising(folder: Path, teacher: str) -> Any:
    """Running statistics are of the batches that a process saw."""
    train(folder, {**RECORDED, "student.model": "cifar_resnet8", "train.batch_size": 32, "train.epochs": 1,
                   "train.record": "plain"})  # fmt: skip


def pruning(folder: Path, teacher: str) -> Any:
    """A mask of the first weights, and one that is decided on the way by the weights that both have."""
    hashes = []
    for at in ("init", "3"):
        summary, _ = train(folder, {**SPARSE, "student.prune_at": at, "name": f"at_{at}"})
        hashes.append(summary["weight_pruning"]["mask_hash"])
    return hashes


def passing(folder: Path, teacher: str) -> Any:
    """A pass over all samples, of which there is an odd number; then scores, a subset and a student."""
    with restored_surroundings():
        record("teacher", config_of(folder, {**RECORDED, "teacher.models": teacher}))
    train(folder, {**SELECTED, "subset.scorer": "el2n"})


CLAIMS = (
    distillation, features, filling, odd_batch, dynamic, stop, gathering_losses, recording, normalising, pruning,
    passing,
)  # fmt: skip


def session(rank: int, port: int, folder: Path, teacher: str) -> None:
    """One of the two processes; what its claims give goes to `folder`."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    try:
        results = {claim.__name__: claim(folder / claim.__name__, teacher) for claim in CLAIMS}
    except BaseException:
        (folder / f"error{rank}").write_text(traceback.format_exc())
        os._exit(1)  # the other one may wait for this one in vain
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # DDP's threads can abort a process while its interpreter shuts down

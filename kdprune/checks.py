"""What can be seen to be wrong with settings before any work is done. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

from kdprune import alpha as alpha_policies
from kdprune.config import Config, TeacherConfig
from kdprune.data import recipe
from kdprune.losses.common import expression
from kdprune.messages import shown, unknown
from kdprune.pruners.common import when
from kdprune.registry import read_call

EMA = "ema"  # the name of a teacher that is the student's own moving average
RESERVED = (  # folders in the output
    "teachers", "targets", "records", "scores", "subsets", "masks", "preflight", "sweeps", "plans", "children", "noise",
)  # fmt: skip
LEARNED = "learned"  # weights of teachers, from held-out samples
LARGEST_SEED = 10**18 - 1
_WHOLE = ("first", "last", "unfit")  # layers that may be left so
GIVEN = "given:"  # before the name of what was handed over in Python, so that no name in the settings can mean it

# option → (lowest, highest, lowest is allowed, highest is allowed)
_RANGES = {
    "subset.keep_fraction": (0, 1, False, True),
    "subset.class_floor": (0, None, True, True),
    "data.image_size": (1, None, True, True),
    "data.workers": (0, None, True, True),
    "data.memory_gb": (0, None, True, True),
    "data.val_fraction": (0, 1, True, False),
    "record.repeats": (1, None, True, True),
    "record.epoch": (0, None, True, True),
    "record.train_fraction": (0, 1, False, False),
    "student.drop_rate": (0, 1, True, False),
    "student.sparsity": (0, 1, True, False),
    "student.rewind_to": (0, None, True, True),
    "teacher.train_fraction": (0, 1, False, True),
    "teacher.drop_rate": (0, 1, True, False),
    "teacher.snapshot": (1, None, True, True),
    "teacher.generations": (1, None, True, True),
    "teacher.views": (1, None, True, True),
    "teacher.top_k": (1, None, True, True),
    "distill.temperature": (0, None, False, True),
    "train.epochs": (0, None, False, True),
    "train.steps": (1, None, True, True),
    "train.batch_size": (1, None, True, True),
    "train.grad_accum": (1, None, True, True),
    "train.momentum": (0, 1, True, False),
    "train.lr": (0, None, False, True),
    "train.lr_base": (0, None, False, True),
    "train.lr_base_size": (1, None, True, True),
    "train.min_lr": (0, None, True, True),
    "train.warmup_epochs": (0, None, True, True),
    "train.decay_rate": (0, 1, False, True),
    "train.weight_decay": (0, None, True, True),
    "train.smoothing": (0, 1, True, False),
    "train.ema": (0, 1, True, False),
    "train.clip_grad": (0, None, False, True),
    "train.eval_every": (1, None, True, True),
    "train.checkpoint_keep": (1, None, True, True),
}


def checkpoint_interval(text: str, option: str = "--train.checkpoint_every") -> tuple[float | None, float | None]:
    """'2' → (2 epochs, None); '5min' → (None, 5 minutes)."""
    number = text.removesuffix("min").strip()
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{option}: {text!r} given, allowed are epochs ('1') or minutes ('5min')")
    return (None, value) if text.endswith("min") else (value, None)


def check(config: Config) -> None:
    """Refuse what can be seen to be wrong before any work is done.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    check_ranges(config)
    check_seeds(config)
    check_rates(config)
    check_name(config.name)
    read_call("selectors", config.subset.selector, "--subset.selector")
    if config.subset.dynamic is not None:
        read_call("orders", config.subset.dynamic, "--subset.dynamic")
    read_call("pruners", config.student.pruner, "--student.pruner")
    when.parse(config.student.prune_at)
    for layer in config.student.prune_exclude:
        if layer not in _WHOLE:
            raise ValueError(f"--student.prune_exclude: {unknown('layer to leave whole', layer, _WHOLE)}")
    _check_pattern(config)
    recipe.parse(config.data.augment)
    recipe.parse(config.teacher.augment or "", "--teacher.augment")
    expression.parse(config.distill.loss)
    if alpha_policies.search(config.distill.alpha) is None:
        alpha = alpha_policies.parse(config.distill.alpha)
        alpha.at(config.subset.keep_fraction)
        if config.teacher.generations > 1:  # those learn on a part of their own
            alpha.at(config.teacher.train_fraction)
    checkpoint_interval(config.train.checkpoint_every)
    if config.teacher.train.checkpoint_every is not None:
        checkpoint_interval(str(config.teacher.train.checkpoint_every), "--teacher.train.checkpoint_every")
    if config.subset.file and config.subset.without_classes:
        raise ValueError("--subset.without_classes: given beside --subset.file, which says itself what is kept")
    if config.teacher.train.precision not in (None, config.train.precision):
        raise ValueError(
            f"--teacher.train.precision: {config.teacher.train.precision} given, allowed is that of the run "
            f"(--train.precision {config.train.precision}): one command computes in one precision"
        )
    check_teachers(config.teacher)
    check_mean_teacher(config)
    if config.track_energy and importlib.util.find_spec("codecarbon") is None:
        raise ValueError("--track_energy: codecarbon is not installed: pip install 'kdprune[energy]'")


def _check_pattern(config: Config) -> None:
    student = config.student
    if student.pattern is not None and student.mask is None and student.sparsity != 0.5:
        raise ValueError(
            f"--student.sparsity: {student.sparsity:g} given, and --student.pattern {student.pattern} is one of 0.5; "
            "leave it out"
        )


def check_files(config: Config) -> None:
    """Refuse files that are not there, before the data is opened.

    Raises:
        FileNotFoundError: naming the option.
    """
    subset, student = config.subset, config.student
    given = [("student.checkpoint", student.checkpoint), ("student.mask", student.mask)]
    given += [(f"subset.{name}", getattr(subset, name)) for name in ("file", "scores", "features")]
    given += [("teacher.checkpoints", file) for file in config.teacher.checkpoints]
    given += [("record.files", file.partition("@")[0]) for file in config.record.files]
    for option, path in given:
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(f"--{option}: {shown(path)} given, and there is no such file")


def check_name(name: str | None) -> None:
    """Refuse a name that is no plain folder name, or that stands for something else in the output."""
    if name is None:
        return
    plain = name.strip(" .") and name.isprintable() and len(name.encode()) <= 200 and not any(c in name for c in "/\\")
    if not plain or name in RESERVED:
        raise ValueError(
            f"--name: {name!r} given, allowed is the name of a folder in --output, other than {' and '.join(RESERVED)}"
        )


def check_seed(seed: int | None, option: str) -> None:
    """Refuse a seed that the generators cannot take, with some room for those that are made by adding to it."""
    if seed is not None and abs(seed) > LARGEST_SEED:
        raise ValueError(
            f"{option}: {seed} given, allowed are whole numbers from {-LARGEST_SEED} to {LARGEST_SEED} (18 digits)"
        )


def check_seeds(config: Config) -> None:
    check_seed(config.seed, "--seed")
    check_seed(config.record.seed, "--record.seed")
    for role in ("weights", "data", "subset", "teacher"):
        check_seed(getattr(config.seeds, role), f"--seeds.{role}")


def check_rates(config: Config) -> None:
    """Refuse a schedule that would rise to its lowest rate."""
    for group, own in (
        ("train", config.train),
        ("teacher.train", config.teacher.train),
        ("record.train", config.record.train),
    ):
        lr, low, sched = (
            getattr(config.train if getattr(own, name) is None else own, name) for name in ("lr", "min_lr", "sched")
        )
        given = own.lr is not None or own.min_lr is not None or own.sched is not None
        by_base = (own.lr_base or config.train.lr_base) is not None  # the rate is a matter of the batch, too
        if given and not by_base and sched in ("cosine", "poly", "onecycle") and low > lr:
            raise ValueError(f"--{group}.min_lr: {low:g} given, allowed is at most the learning rate, {lr:g}")


def check_ranges(config: Config) -> None:
    ranges = dict(_RANGES)
    for group in ("teacher", "record"):
        ranges |= {f"{group}.{option}": limits for option, limits in _RANGES.items() if option[:6] == "train."}
    for option, (low, high, with_low, with_high) in ranges.items():
        value: Any = config
        for name in option.split("."):
            value = getattr(value, name)
        if value is None:
            continue
        if isinstance(value, list):
            _check_sides(option, value)
            continue
        below = value < low or (value == low and not with_low)
        above = high is not None and (value > high or (value == high and not with_high))
        if below or above or value != value or value == float("inf"):
            upper = "∞)" if high is None else f"{high}{']' if with_high else ')'}"
            raise ValueError(f"--{option}: {value} given, allowed is {'[' if with_low else '('}{low}, {upper}")


def _check_sides(option: str, sides: list[int]) -> None:
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"--{option}: {sides} given, allowed is one side or [height, width], each in [1, ∞)")


def check_teachers(teacher: TeacherConfig) -> None:
    if teacher.weights == LEARNED and len(teacher.models) < 2:
        raise ValueError(f"--teacher.weights: {LEARNED} given for {len(teacher.models)} teachers, it needs two or more")
    for option in ("checkpoints", "weights", "temperatures"):
        values = getattr(teacher, option)
        if values and values != LEARNED and len(values) != len(teacher.models):
            raise ValueError(
                f"--teacher.{option}: {len(values)} given for {len(teacher.models)} teachers "
                f"({', '.join(teacher.models) or 'none'}); allowed are none, or one for each"
            )
    if teacher.by_correctness and teacher.top_k:
        raise ValueError(
            "--teacher.by_correctness: reads the probability of each sample's label, which may not be among the "
            "--teacher.top_k largest; leave one of them out"
        )
    weights = [] if isinstance(teacher.weights, str) else teacher.weights
    if weights and not (all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0):
        raise ValueError(f"--teacher.weights: {weights} given, allowed are numbers ≥ 0 with a positive sum")
    if not all(0 < temperature < math.inf for temperature in teacher.temperatures or []):
        raise ValueError(f"--teacher.temperatures: {teacher.temperatures} given, allowed are numbers > 0")


def check_mean_teacher(config: Config) -> None:
    if EMA not in config.teacher.models:
        return
    alone = len(config.teacher.models) == 1 and config.teacher.targets == "online"
    if not alone or not config.train.ema:
        raise ValueError(
            "--teacher.models: ema is the student's own moving average; it is the only teacher, needs --train.ema "
            "above 0 and --teacher.targets online, since it changes at every step"
        )
    if config.teacher.temperatures:
        raise ValueError("--teacher.temperatures: given for ema, which answers at --distill.temperature")
    if alpha_policies.search(config.distill.alpha):
        raise ValueError("--distill.alpha: search needs teachers that stay as they are, ema given")

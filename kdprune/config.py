"""Every setting of a training run, in one place, with one owner for each field.

This module imports nothing heavy, so that help texts and mistakes in the command line answer at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, Literal, get_type_hints

from kdprune.messages import shown, unknown
from kdprune.typed import typed, types_of


@dataclass
class DataConfig:
    """The images.

    Args:
        dataset: `digits`, `torch/NAME` (torchvision), `hfds/NAME_OR_FOLDER` (Hugging Face), or a folder of images.
        root: Where downloads and the cache of decoded images live (default: ~/.cache/kdprune).
        image_size: Side of the square view in pixels (default: the stored size of small images, else the student's).
        augment: View recipe, parts joined by '+': crop(pad), rrc(min_area), flip, cutout(side), erase(p),
            jitter(strength), mixup(a), cutmix(a); or 'none'.
        workers: Worker processes for large images and for decoding (default: the number of cores, at most 16).
        memory_gb: Images whose decoded training set fits this many GiB are decoded once into a memory map.
        bad_images: What an unreadable image does: fail the run, or be dropped from it and recorded.
        val_fraction: Part of the training set, in [0, 1), that is set aside for choosing settings: nothing is trained
            on it, neither the student nor a teacher. A function of the seed, with its share of every class.
    """

    dataset: str = "digits"
    root: str | None = None
    image_size: int | None = None
    augment: str = "crop+flip"
    workers: int | None = None
    memory_gb: float = 4.0
    bad_images: Literal["fail", "drop"] = "fail"
    val_fraction: float = 0.0


@dataclass
class SubsetConfig:
    """The kept part of the training set.

    Args:
        keep_fraction: Kept samples / all samples, in (0, 1]; with a dynamic of rs2, those of an epoch.
        selector: How the kept samples are chosen: a name, or NAME(ARGUMENTS).
        balanced: Give every class its exact share, by largest remainder.
        class_floor: Keep at least so many samples of every class, or such a share in (0, 1) of what uniform pruning
            would leave of it; the others make room in proportion.
        without_classes: Names or indices of classes of which no sample is kept. keep_fraction still counts all samples,
            those of these classes too, and keeps at most what is left: 1.0 keeps all of it.
        file: A subset.json to use instead of selecting.
        scorer: How hard each sample is, for selectors that ask: a name, or NAME(ARGUMENTS). What it needs is recorded
            first (see record), unless it was before.
        scores: A score file to use instead of scoring.
        hard: Which scores mean a hard sample (default: what the scorer or the file says).
        features: A record of embeddings, for selectors that read features (default: recorded as record says).
        dynamic: Which of the kept samples each epoch holds, if not all of them: infobatch(ratio, anneal),
            curriculum(order, pacing, start, end), or rs2, which draws each epoch from all samples.
    """

    keep_fraction: float = 1.0
    selector: str = "random"
    scorer: str | None = None
    scores: str | None = None
    hard: Literal["high", "low"] | None = None
    features: str | None = None
    balanced: bool = False
    class_floor: float = 0
    without_classes: list[int | str] | int | str = field(default_factory=list)
    file: str | None = None
    dynamic: str | None = None

    def __post_init__(self) -> None:
        given = self.without_classes
        self.without_classes = [str(item) for item in ([given] if isinstance(given, int) else _as_list(given))]


@dataclass
class StudentConfig:
    """The model that is trained on the kept samples.

    Args:
        model: Any timm model name, or one of kdprune's (cifar_resnet8 … cifar_resnet110, mlp_800 …).
        pretrained: Start from timm's pretrained weights.
        checkpoint: Start from a safetensors file (or a .pth that holds weights only).
        drop_rate: Dropout before the classifier.
    """

    model: str = "cifar_resnet8"
    pretrained: bool = False
    checkpoint: str | None = None
    drop_rate: float = 0.0


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
        opt: timm's name of the optimizer ('sgd' is Nesterov).
        momentum: For the optimizers that have it.
        lr: Learning rate.
        sched: timm's name of the scheduler, or 'none' for a constant rate.
        min_lr: Lowest rate of the cosine and poly schedules.
        warmup_epochs: Linear warm-up, after which the schedule begins.
        decay_milestones: Epochs at which the multistep schedule decays.
        decay_rate: Its factor; for the poly schedule, its power.
        weight_decay: On weights; biases and norm parameters are left out, as timm does.
        smoothing: Label smoothing of the cross-entropy (never of the distillation term).
        precision: auto takes bf16 where the hardware multiplies in it.
        compile: torch.compile the student and the frozen teachers.
        ema: Decay of an exponential moving average of the student, which is then what is evaluated (0: none).
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

    epochs: float = 30
    steps: int | None = None
    budget: Literal["subset", "full"] = "subset"
    batch_size: int = 128
    grad_accum: int = 1
    opt: str = "sgd"
    momentum: float = 0.9
    lr: float = 0.1
    sched: Literal["cosine", "multistep", "poly", "none"] = "cosine"
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    decay_milestones: list[float] = field(default_factory=list)
    decay_rate: float = 0.1
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    compile: bool = False
    ema: float = 0.0
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
    "TeacherTrainConfig", [(f.name, _HINTS[f.name] | None, field(default=None)) for f in fields(TrainConfig)]
)
"""The fields of TrainConfig, each None unless it is given."""
TeacherTrainConfig.__module__ = __name__
TeacherTrainConfig.__doc__ = str(TrainConfig.__doc__).replace(
    "The training of one model.", "The training of a teacher; what is not given is as in train."
)


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
    pretrained: bool = False
    weights: list[float] | Literal["learned"] | None = None
    temperatures: list[float] | None = None
    by_correctness: bool = False
    train: TeacherTrainConfig = field(default_factory=TeacherTrainConfig)
    train_fraction: float = 1.0
    augment: str | None = None
    drop_rate: float = 0.0
    snapshot: int | None = None
    generations: int = 1
    targets: Literal["online", "cached"] = "online"
    views: int | None = None
    cache: str | None = None
    top_k: int | None = None
    engine: Literal["frozen", "plain"] = "frozen"

    def __post_init__(self) -> None:
        self.models = _as_list(self.models)
        self.checkpoints = _as_list(self.checkpoints)


@dataclass
class DistillConfig:
    """What the student learns from the teacher: (1 - alpha) · cross-entropy + alpha · loss.

    Args:
        loss: A loss or a weighted sum, such as 'kd' or 'kd + 100*attention_transfer(layers=...)'.
        temperature: Softens both sides; the loss is scaled by its square.
        layers: Pairs [student module path, teacher module path] for feature losses (default: the last stages of both,
            by timm's feature_info).
        alpha: A number in [0, 1], or a policy over the keep fraction: constant(a), linear(a_low, a_high),
            power(a_low, a_high, p), table([[f, a], ...]), auto (measured); each optionally '* warmup(t)',
            '* cosine(end)' or '* late(t)' over the progress of training. Or search,
            search([a, ...]), search([a, ...], [T, ...]): successive halving on kept samples.
    """

    loss: str | list[str | dict[str, Any]] | dict[str, Any] = "kd"
    temperature: float = 4.0
    layers: list[list[str]] = field(default_factory=list)
    alpha: float | str = "linear(1.0, 0.5)"


@dataclass
class RecordConfig:
    """What is observed for the scorer, if it was not before.

    Args:
        source: Whose training dynamics: of a teacher that is trained here anyway, or of proxies, models that are
            trained for nothing else; auto takes the teacher's where they are recorded on all samples.
        files: Records to use instead: directories of runs or of records; several are repeats of one.
        model: Of the proxies (default: the student).
        repeats: Proxies that differ in their seed; scores are means over them.
        view: Whether proxies are recorded on plain images after each epoch, or on their training views.
        train: Anything of train.* for the proxies (default: the run's).
        seed: Of the first proxy (default: seed).
        epoch: After which epoch of the proxies per-sample gradients are taken (0: of their first weights; default: the
            last one).
        train_fraction: Part of the data that each training for memorization scores sees.
        embeddings: Model whose features are recorded: any that --teacher.models may name (default: the teacher, or else
            a trained proxy).
    """

    source: Literal["auto", "proxy", "teacher"] = "auto"
    files: list[str] | str = field(default_factory=list)
    model: str | None = None
    repeats: int = 1
    view: Literal["plain", "training"] = "plain"
    train: TeacherTrainConfig = field(default_factory=TeacherTrainConfig)
    seed: int | None = None
    epoch: int | None = None
    train_fraction: float = 0.7
    embeddings: str | None = None

    def __post_init__(self) -> None:
        self.files = _as_list(self.files)


@dataclass
class SeedConfig:
    """Seeds by role; each is --seed unless it is given.

    Args:
        weights: Of initial weights, dropout and projectors.
        data: Of the order of samples and their views, so that runs can share cached targets.
        subset: Of the kept samples, and of those that are held out for validation.
        teacher: Of a teacher that is trained here: its weights, order and views. Given, runs of several seeds share it,
            with --teacher.train_fraction or --data.val_fraction if seeds.subset is given, too.
        role: Whose training it is. A teacher draws other views and weights than a student of the same seed.
    """

    weights: int | None = None
    data: int | None = None
    subset: int | None = None
    teacher: int | None = None
    role: Literal["student", "teacher", "proxy"] = "student"


@dataclass
class Config:
    """A training run.

    Args:
        seed: Of everything that is random; see seeds for what can be given apart.
        output: Folder for run directories.
        name: Name of the run directory (default: made from what the run is).
        baseline: Also train the same student on the same subset without the teacher, for comparison.
        log_with: Accelerate trackers (tensorboard, wandb, …); metrics.csv is always written.
        remake: Train a finished run again if a file of it is missing or has changed, instead of refusing.
    """

    seed: int = 0
    output: str = "runs"
    name: str | None = None
    baseline: bool = False
    log_with: list[str] | str = field(default_factory=list)
    remake: bool = False
    seeds: SeedConfig = field(default_factory=SeedConfig)
    data: DataConfig = field(default_factory=DataConfig)
    subset: SubsetConfig = field(default_factory=SubsetConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.log_with = _as_list(self.log_with)

    def seed_of(self, role: Literal["weights", "data", "subset", "teacher"]) -> int:
        """The seed of a role: its own, or --seed."""
        own = getattr(self.seeds, role)
        return self.seed if own is None else own


# Settings that change where or how often something is written or how fast it is computed, not (but for rounding) what.
_NOT_IN_HASH = {
    "output", "name", "baseline", "log_with", "remake", "data.root", "data.workers", "teacher.cache",
    *(f"{group}.{name}" for group in ("train", "teacher.train", "record.train")
      for name in ("eval_every", "checkpoint_every", "checkpoint_keep", "save_epochs", "save_steps", "record")),
}  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    return asdict(config)


def config_hash(config: Config) -> str:
    """Twelve hex digits of a hash over the settings that the result depends on and that differ from the defaults.

    Defaults are left out so that a later version with one more setting knows the runs of an earlier one.
    """
    defaults = relevant(Config())
    content = {k: _number(v) for k, v in relevant(config).items() if v != defaults[k]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _number(value: Any) -> Any:
    """15 and 15.0 are one setting."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def relevant(config: Config) -> dict[str, Any]:
    """The settings that the result depends on, with dotted names."""
    return {name: value for name, value in dotted(to_dict(config)).items() if name not in _NOT_IN_HASH}


def dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 0.1}} → {"train.lr": 0.1}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _as_list(value: Any) -> list[Any]:
    """None, one item, items joined by commas, or a list, as a list."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value)


def from_dict(content: dict[str, Any]) -> Config:
    """The configuration that `to_dict` was given.

    Raises:
        ValueError: an unknown name, or a value of another type than the setting's; the message names the option.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{shown(content)} given, allowed are settings by name")
    return _build(Config, content)


def _build(kind: Any, content: dict[str, Any], group: str = "") -> Any:
    known = {f.name: f for f in fields(kind)}
    if wrong := [name for name in content if name not in known]:
        raise ValueError(unknown("setting", wrong[0], known))
    values: dict[str, Any] = {}
    for name, value in content.items():
        factory, option = known[name].default_factory, f"{group}{name}"
        if is_dataclass(factory):
            if not isinstance(value, dict):
                raise ValueError(f"{option}: {shown(value)} given, allowed are settings by name")
            values[name] = _build(factory, value, f"{option}.")
        elif value is None and factory is list:
            values[name] = []  # null is no item
        else:
            values[name] = typed(f"--{option}", value, types_of(kind)[name])
    return kind(**values)

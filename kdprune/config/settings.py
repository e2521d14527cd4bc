"""Every setting of a training run, in one place, with one owner for each field.

A setting that does not always matter says here when it does, of the `Situation` (see `kdprune.config.situation`) or, in
`TrainConfig`, of each training that reads it. Where it does not matter, a value other than the default is warned of and
put back, so that it is no part of what a run is (see `kdprune.config.effect`).

This module imports nothing heavy, so that help texts and mistakes in the command line answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, Literal, get_type_hints

from kdprune.config.conditions import EVERYWHERE, Condition, only, only_in, setting

TRAININGS = ("train", "teacher.train", "record.train")  # the groups of settings that are a `TrainConfig`

# Conditions that several settings share; `s` is the situation, `t` one of its trainings.
_KEPT = "--subset.file says what is kept"
_SELECTION = (
    only(lambda s: not s.config.subset.file, _KEPT),
    only(lambda s: not s.draws_each_epoch, "--subset.dynamic {config.subset.dynamic} draws from all samples"),
)
_CHOSEN = only(lambda s: s.config.subset.keep_fraction < 1, "all samples are kept")
_SCORED = only(lambda s: s.reads_scores, "selector {config.subset.selector} reads no scores")
_STUDENT = only(lambda s: s.builds_student, "kdprune {command} builds no student")
_STUDENT_ONLY = only(lambda s: s.trains_student, "kdprune {command} trains no student")
_GUIDED = (
    only(lambda s: s.config.teacher.models, "--teacher.models names no teacher"),
    only(lambda s: s.listens, "--distill.alpha is 0, with which a student learns nothing from a teacher"),
)
_TRAINS = only(lambda s: s.trainings, "kdprune {command} trains nothing")
_DISTILLED = only(lambda s: s.distils, "kdprune {command} distils nothing")
_SEVERAL = only(lambda s: len(s.config.teacher.models) > 1, "there is one teacher")
_TAUGHT = only(lambda s: s.trains_teacher, "all teachers have weights, so none is trained here")
_CACHED = only(lambda s: s.config.teacher.targets == "cached", "--teacher.targets online keeps nothing")
_MASKED = only(lambda s: s.has_mask, "neither --student.sparsity nor --student.mask is given")
_PRUNED = only(lambda s: s.prunes, "no weight is pruned here: --student.sparsity is 0, or --student.mask says which")
_PROXIES = only(lambda s: s.trains_proxies, "no proxies are trained")
_WITH_LR_BASE = only_in(lambda t: t.settings.lr_base is not None, "no lr_base is given")
_COUNTED = only_in(lambda t: t.settings.steps is None, "steps are given, which say how long the training is")


def _observed(kind: str) -> Condition:
    return only(lambda s: kind in s.records, f"no {kind} are recorded")


def _scheduled(*names: str) -> Condition:
    return only_in(lambda t: t.settings.sched in names, f"the schedule is {{settings.sched}}, not {' or '.join(names)}")


@dataclass
class DataConfig:
    """The images.

    Args:
        dataset: `digits`, `torch/NAME` (torchvision), `hfds/NAME_OR_FOLDER` (Hugging Face), or a folder of images.
        root: Where downloads and the cache of decoded images live (default: ~/.cache/kdprune).
        image_size: Side of the square view in pixels, or [height, width] (default: the stored size of small images, or
            their shorter side; else the student's).
        augment: View recipe, parts joined by '+': crop(pad), rrc(min_area), flip, randaugment(n, m), trivialaugment,
            jitter(strength, hue), grey(p), cutout(side), erase(p), mixup(a), cutmix(a); or 'none'.
        workers: Worker processes for large images and for decoding (default: the number of cores, at most 16).
        memory_gb: Images whose decoded training set fits this many GiB are decoded once into a memory map.
        bad_images: What an unreadable image does: fail the run, or be dropped from it and recorded.
        val_fraction: Part of the training set, in [0, 1), that is set aside for choosing settings: nothing is trained
            on it, neither the student nor a teacher. A function of the seed, with its share of every class. Of data
            without a held-out part, such as a folder without val/, it is that part.
    """

    dataset: str = "digits"
    root: str | None = None
    image_size: int | list[int] | None = None
    augment: str = setting("crop+flip", only(lambda s: s.makes_views, "kdprune {command} makes no views"))
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

    keep_fraction: float = setting(1.0, only(lambda s: s.draws_each_epoch or not s.config.subset.file, _KEPT))
    selector: str = setting("random", *_SELECTION)
    scorer: str | None = setting(None, _SCORED)
    scores: str | None = setting(None, _SCORED)
    hard: Literal["high", "low"] | None = setting(None, _SCORED)
    features: str | None = setting(
        None, only(lambda s: s.reads_features, "selector {config.subset.selector} reads no features")
    )
    balanced: bool = setting(False, *_SELECTION, _CHOSEN)
    class_floor: float = setting(0, *_SELECTION, _CHOSEN)
    without_classes: list[int | str] | int | str = field(default_factory=list)
    file: str | None = None
    dynamic: str | None = setting(
        None, only(lambda s: not s.draws_all, "--subset.keep_fraction is 1, so that each epoch holds all samples")
    )

    def __post_init__(self) -> None:
        given = self.without_classes
        self.without_classes = [str(item) for item in ([given] if isinstance(given, int) else _as_list(given))]


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
        prune_exclude: Layers that are left whole: first, last, or both.
        mask: A mask.json, or the directory of a run that has one, to use instead of pruning.
        mask_check: Sanity check of the mask: shuffle it within each layer, reinit the weights under it, or invert it
            (keep what would go).
        allow_collapse: Go on although a layer is left without weights.
    """

    model: str = setting("cifar_resnet8", _STUDENT)
    pretrained: bool = setting(
        False, _STUDENT, only(lambda s: s.config.student.checkpoint is None, "--student.checkpoint is given")
    )
    checkpoint: str | None = setting(None, _STUDENT)
    drop_rate: float = setting(
        0.0, only(lambda s: s.trains_student or s.trains_proxies, "kdprune {command} trains no student and no proxies")
    )
    sparsity: float = setting(
        0.0, _STUDENT_ONLY, only(lambda s: not s.config.student.mask, "--student.mask says which weights are pruned")
    )
    pruner: str = setting("magnitude", _STUDENT_ONLY, _PRUNED)
    prune_at: str = setting("init", _STUDENT_ONLY, _PRUNED)
    prune_scope: Literal["global", "layer"] = setting("global", _STUDENT_ONLY, _PRUNED)
    prune_exclude: list[str] | str = setting(list, _STUDENT_ONLY, _PRUNED)
    mask: str | None = setting(None, _STUDENT_ONLY)
    mask_check: Literal["shuffle", "reinit", "invert"] | None = setting(None, _STUDENT_ONLY, _MASKED)
    allow_collapse: bool = setting(False, _STUDENT_ONLY, _MASKED)

    def __post_init__(self) -> None:
        self.prune_exclude = _as_list(self.prune_exclude)
        self.prune_at = str(self.prune_at)


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

    epochs: float = setting(30, _COUNTED)
    steps: int | None = None
    budget: Literal["subset", "full"] = setting("subset", _COUNTED)
    batch_size: int = setting(128, EVERYWHERE)
    grad_accum: int = setting(1, EVERYWHERE)
    opt: str = "sgd"
    momentum: float = setting(0.9, only_in(lambda t: t.has_momentum, "{settings.opt} has none"))
    lr: float = setting(0.1, only_in(lambda t: t.settings.lr_base is None, "lr_base and the batch say the rate"))
    lr_base: float | None = None
    lr_base_size: int = setting(256, _WITH_LR_BASE)
    lr_base_scale: Literal["linear", "sqrt"] | None = setting(None, _WITH_LR_BASE)
    sched: Literal["cosine", "multistep", "poly", "onecycle", "none"] = "cosine"
    min_lr: float = setting(0.0, _scheduled("cosine", "poly", "onecycle"))
    warmup_epochs: float = 0.0
    decay_milestones: list[float] = setting(list, _scheduled("multistep"))
    decay_rate: float = setting(0.1, _scheduled("multistep", "poly"))
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
    pretrained: bool = setting(False, only(lambda s: s.weightless, "all teachers have weights of their own"))
    weights: list[float] | Literal["learned"] | None = setting(None, _DISTILLED, _SEVERAL)
    temperatures: list[float] | None = setting(None, _DISTILLED)
    by_correctness: bool = setting(False, _DISTILLED, _SEVERAL)
    train: TeacherTrainConfig = setting(TeacherTrainConfig, _TAUGHT)
    train_fraction: float = setting(1.0, _TAUGHT)
    augment: str | None = setting(None, _TAUGHT)
    drop_rate: float = setting(0.0, _TAUGHT)
    snapshot: int | None = setting(None, _TAUGHT)
    generations: int = setting(1, _TAUGHT)
    targets: Literal["online", "cached"] = setting("online", _DISTILLED)
    views: int | None = setting(None, _DISTILLED)
    cache: str | None = setting(None, _DISTILLED, only(lambda s: s.keeps_targets, _CACHED.otherwise))
    top_k: int | None = setting(None, _DISTILLED, _CACHED)
    engine: Literal["frozen", "plain"] = setting(
        "frozen", _DISTILLED, only(lambda s: not s.averages, "--teacher.models is ema, which is the student itself")
    )

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
    temperature: float = setting(
        4.0, only(lambda s: s.reads_temperature, "--distill.loss {config.distill.loss} takes none from the run")
    )
    layers: list[list[str]] = setting(
        list, only(lambda s: "layers" in s.loss_reads, "--distill.loss {config.distill.loss} compares no layers")
    )
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

    source: Literal["auto", "proxy", "teacher"] = setting("auto", _observed("dynamics"))
    files: list[str] | str = setting(
        list, only(lambda s: s.trains_student and s.asks_for_records, "no record is asked for that they could be")
    )
    model: str | None = setting(None, _PROXIES)
    repeats: int = setting(1, _PROXIES, only(lambda s: s.repeats, "embeddings are those of one model"))
    view: Literal["plain", "training"] = setting("plain", _PROXIES)
    train: TeacherTrainConfig = setting(TeacherTrainConfig, _PROXIES)
    seed: int | None = setting(None, _PROXIES)
    epoch: int | None = setting(None, _observed("gradients"))
    train_fraction: float = setting(0.7, _observed("memorization"))
    embeddings: str | None = setting(None, _observed("embeddings"))

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

    weights: int | None = setting(None, _STUDENT_ONLY)
    data: int | None = setting(None, _STUDENT_ONLY)
    subset: int | None = None
    teacher: int | None = setting(None, only(lambda s: s.trains_teacher, "no teacher is trained here"))
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
        track_energy: Measure energy and CO₂ of each training by codecarbon, without a network; in summary.json.
    """

    seed: int = 0
    output: str = "runs"
    name: str | None = setting(None, _STUDENT_ONLY)
    baseline: bool = setting(False, _STUDENT_ONLY, *_GUIDED)
    log_with: list[str] | str = setting(list, _TRAINS)
    remake: bool = False
    track_energy: bool = setting(False, _TRAINS)
    seeds: SeedConfig = field(default_factory=SeedConfig)
    data: DataConfig = setting(DataConfig, only(lambda s: s.opens_data, "kdprune {command} opens no data"))
    subset: SubsetConfig = setting(
        SubsetConfig, only(lambda s: s.trains_student, "kdprune {command} is of all samples")
    )
    record: RecordConfig = field(default_factory=RecordConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = setting(TeacherConfig, *_GUIDED)
    distill: DistillConfig = setting(DistillConfig, *_GUIDED, _DISTILLED)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.log_with = _as_list(self.log_with)

    def seed_of(self, role: Literal["weights", "data", "subset", "teacher"]) -> int:
        """The seed of a role: its own, or --seed."""
        own = getattr(self.seeds, role)
        return self.seed if own is None else own


def _as_list(value: Any) -> list[Any]:
    """None, one item, items joined by commas, or a list, as a list."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value)

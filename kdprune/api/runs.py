"""Whole runs from Python: train, evaluate, cache, and the student of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from kdprune.api.data import parts_of
from kdprune.api.surroundings import collected_warnings, restored_surroundings
from kdprune.config import Config, from_dict
from kdprune.files import check_writable
from kdprune.models.inputs import Inputs
from kdprune.models.locate import resolve_teacher
from kdprune.models.saved import load_model
from kdprune.pipeline import cache as caching
from kdprune.pipeline import evaluate as evaluation
from kdprune.pipeline import train as training
from kdprune.pipeline.cache import CacheResult
from kdprune.pipeline.given import Given
from kdprune.teachers.teacher import is_convolutional


@dataclass(frozen=True, repr=False)
class Result:
    """A finished run.

    Attributes:
        path: its directory.
        summary: what `summary.json` there holds.
        warnings: what was warned of on the way.
        baseline: the run without a teacher, if `baseline` was asked for.

    Example:
        >>> import kdprune
        >>> settings = {"student": {"model": "mlp_64"}, "train": {"steps": 20}}
        >>> result = kdprune.train(settings)
        >>> result.summary["kept"], result.top1 == result.summary["test_top1"]
        (1347, True)
    """

    path: Path
    summary: dict[str, Any]
    warnings: tuple[str, ...] = ()
    baseline: Result | None = None
    _module: nn.Module | None = field(default=None, compare=False)

    @property
    def top1(self) -> float | None:
        """Accuracy on held-out data after the last epoch, in [0, 1]; None where there is no held-out part."""
        top1: float | None = self.summary["test_top1"]
        return top1

    def student(self, normalise: bool = False) -> nn.Module:
        """The trained module, in evaluation mode on the CPU; each call loads it anew (see `load_student`)."""
        return load_student(self.path, self._module, normalise)

    def __repr__(self) -> str:
        top1 = "none" if self.top1 is None else f"{self.top1:.4f}"
        return f"Result(top1={top1}, path={str(self.path)!r})"


def train(
    settings: Mapping[str, Any] | Config,
    data: Any = None,
    student: nn.Module | None = None,
    teachers: nn.Module | Sequence[nn.Module] | None = None,
) -> Result:
    """Train a student on a kept subset, with teachers or without; a run that is finished is found and not repeated.

    What runs is the command line's `kdprune train`. Nothing is printed, and nothing of the process stays changed. The
    log goes to `logging.getLogger("kdprune")`. Objects that are given are copied and left as they are; a run is found
    again by their contents (pixels, weights, structure), not by their names.

    Args:
        settings: nested settings by name, as in a recipe: `{"train": {"lr": 0.05}}`; or a `Config`.
        data: in place of `data.dataset`: a data set of (image, class) pairs with `len()` and item access, or a Hugging
            Face `Dataset`; or a tuple (train, test) of two; or a mapping of splits such as a `DatasetDict`. Images are
            PIL images, uint8 arrays H×W or H×W×C, or uint8 tensors C×H×W or H×W. Without a held-out part nothing is
            evaluated.
        student: in place of `student.model`: a module from images, float32 N×C×S×T, normalised by the data's mean and
            std, to logits N×classes. It is trained from the weights that it has. S×T is `data.image_size`, or else S =
            T the shorter side of the data's images.
        teachers: in place of `teacher.models`: one or several such modules. Losses between features need
            `distill.layers` with them.

    Returns:
        What came out.

    Raises:
        ValueError: settings, data or modules that do not fit, said before anything is trained.
        Interrupted: SIGINT or SIGTERM came, and the state is on disk; the same call goes on.
        FloatingPointError: the loss became NaN or infinite.

    Example:
        >>> import kdprune, torch
        >>> images = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8)
        >>> data = [(image, n % 3) for n, image in enumerate(images)]
        >>> student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> settings = {"train": {"steps": 3, "batch_size": 16}}
        >>> result = kdprune.train(settings, data=(data[:40], data[40:]), student=student)
        >>> result.summary["kept"], result.student()(torch.zeros(2, 1, 8, 8)).shape
        (40, torch.Size([2, 3]))
    """
    given = Given(None if data is None else parts_of(data), student, several(teachers))
    with restored_surroundings(), collected_warnings() as warnings:
        first, *others = training.run(config_of(settings), given)
    baseline = Result(others[0].path, others[0].summary, (), None, student) if others else None
    return Result(first.path, first.summary, tuple(warnings), baseline, student)


def evaluate(
    run: str | Path | Result,
    class_mass: Literal["missing", "all"] | None = None,
    data: Any = None,
    model: nn.Module | None = None,
) -> dict[str, Any]:
    """Measure the student of a finished run on held-out data.

    Args:
        run: its directory, or what `train` returned.
        class_mass: measure it once more with its biases moved by class mass: of the classes `missing` in its subset, or
            of `all` ([Hinton's experiment](hinton.md)).
        data: the run's, where it was given as an object (see `train`).
        model: a module of the student's kind, where that was given as an object; its weights do not matter.

    Returns:
        `top1`, `top5`, `loss` (nats), `calibration_error`, `per_class` (accuracy of each class, None without samples),
        `samples`; with `class_mass` the same after the correction in `class_mass`.

    Raises:
        FileNotFoundError: no run directory, or a run that is not finished.
        ValueError: data or model that are not the run's, or were not given; `missing` where no class is.

    Example:
        >>> import kdprune
        >>> result = kdprune.train({"student": {"model": "mlp_64"}, "train": {"steps": 20}})
        >>> kdprune.evaluate(result)["top1"] == result.top1
        True
    """
    if isinstance(run, Result):
        model, run = model or run._module, run.path
    given = Given(None if data is None else parts_of(data), model)
    with restored_surroundings():
        return evaluation.evaluate_run(Path(run), class_mass, given).result


def cache(
    settings: Mapping[str, Any] | Config,
    data: Any = None,
    teachers: nn.Module | Sequence[nn.Module] | None = None,
    verify: bool = False,
) -> CacheResult:
    """Compute the teachers' targets that `train` with the same arguments would read.

    Args:
        settings: as for `train`; `teacher.targets` is "cached", whatever they say.
        data: as for `train`.
        teachers: as for `train`.
        verify: compute a sample of the entries again afterwards, and compare.

    Returns:
        `written` (entries), `views`, `folders` (one a teacher), `error` (relative, if verified) and `healed`.

    Raises:
        ValueError: as for `train`; no teacher; or entries that are not what the teacher says now.
        OSError: the disk is full.

    Example:
        >>> import kdprune, torch
        >>> teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> kdprune.cache({"teacher": {"views": 2}}, teachers=teacher).written  # 1,347 digits in 2 views
        2694
    """
    given = Given(None if data is None else parts_of(data), None, several(teachers))
    with restored_surroundings():
        return caching.cache(config_of(settings), verify, given)


def load_student(run: str | Path | Result, model: nn.Module | None = None, normalise: bool = False) -> nn.Module:
    """The student of a run, in evaluation mode on the CPU.

    Args:
        run: a run directory, `RUN@EPOCH` for a snapshot, a file `….safetensors`, or what `train` returned.
        model: a module of the student's kind, where that was given to `train` as an object; a copy gets the weights.
        normalise: put in front what makes the model's input, so that the module takes uint8 images N×C×H×W.

    Returns:
        From images, float32 N×C×S×T, normalised, to logits N×classes; with `normalise` from uint8 images of
        any size, which are cut and scaled as when it was evaluated.

    Raises:
        ValueError: nothing there, weights that have changed or are not the model's, or a module that was not given.

    Example:
        >>> import kdprune, torch
        >>> result = kdprune.train({"student": {"model": "mlp_64"}, "train": {"steps": 20}})
        >>> deployed = kdprune.load_student(result.path, normalise=True)
        >>> deployed(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2, 10])
    """
    if isinstance(run, Result):
        model, run = model or run._module, run.path
    with restored_surroundings():
        weights = resolve_teacher(str(run))
        if weights is None:
            raise ValueError(f"no such run directory: {run}")
        built = load_model(weights, model)
    student = built.model.eval()
    if not normalise:
        return student
    inputs = Inputs(built.spec, channels_last=is_convolutional(student), whole_images=True)
    return nn.Sequential(inputs, student).eval()


def config_of(settings: Mapping[str, Any] | Config) -> Config:
    """The settings of a call.

    Raises:
        ValueError: unknown ones, or an output in which nothing can be written.
    """
    config = settings if isinstance(settings, Config) else from_dict(settings)  # type: ignore[arg-type]
    check_writable(config.output, "--output")
    return config


def several(teachers: nn.Module | Sequence[nn.Module] | None) -> tuple[nn.Module, ...]:
    if teachers is None:
        return ()
    # A Sequential is a sequence, too, of its layers.
    return (teachers,) if isinstance(teachers, nn.Module) or not isinstance(teachers, Sequence) else tuple(teachers)

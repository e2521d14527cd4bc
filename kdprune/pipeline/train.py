"""One training from its settings: samples, teachers, targets, student, each found if it was made before."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from kdprune import alpha as alpha_policies
from kdprune.artefact import Key, differences, key_hash, read_record
from kdprune.checks import check, check_files
from kdprune.config import Config
from kdprune.messages import listed, unknown
from kdprune.pipeline.distillation import with_layers
from kdprune.pipeline.effect import settled
from kdprune.pipeline.ensemble_weights import learn
from kdprune.pipeline.freezing import freeze_teachers
from kdprune.pipeline.given import NOTHING_GIVEN, Given
from kdprune.pipeline.job import Job, make_job
from kdprune.pipeline.keys import run_key
from kdprune.pipeline.masks import check_mask, mask_key, with_mask
from kdprune.pipeline.recipes import check_optimizers, without_teacher
from kdprune.pipeline.record import KINDS
from kdprune.pipeline.rehearsal import rehearse
from kdprune.pipeline.score import check_selection, rehearsed, selects_by_observation, with_scores
from kdprune.pipeline.search import search_alpha, with_found
from kdprune.pipeline.session import Session, open_session
from kdprune.pipeline.student import train_student
from kdprune.pipeline.summary import summarise
from kdprune.pipeline.targets import make_targets
from kdprune.pipeline.teachers import LoadedTeacher, check_models, given_teachers, load_teachers
from kdprune.records.dynamics import HEADER, Dynamics
from kdprune.runs.accelerator import environment, make_accelerator
from kdprune.runs.energy import measured
from kdprune.runs.naming import run_name
from kdprune.runs.reading import read_config
from kdprune.runs.run_dir import RunDir
from kdprune.runs.trackers import tracked
from kdprune.teachers.teacher import Teacher
from kdprune.training.checkpoint import Checkpoints
from kdprune.training.observers import Observer

log = logging.getLogger("kdprune")


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        path: its directory.
        summary: what `summary.json` there holds.
    """

    path: Path
    summary: dict[str, Any]


def run(config: Config, given: Given = NOTHING_GIVEN, observers: Sequence[Observer] = ()) -> list[Result]:
    """Train what the configuration says: the student, and the baseline without a teacher if one is asked for.

    Args:
        given: data and models that are no names in the settings.
        observers: who looks on while the student is trained.

    Raises:
        ValueError: a setting that does not fit; said before any training, with what is allowed.
        Interrupted, FloatingPointError: see `Trainer.fit`.
    """
    config = given.named(config)
    check_settings(config)
    config = settled(config)
    accelerator = make_accelerator(config.train.precision, list(config.log_with), config.output)
    session = observed(config, open_session(config, accelerator, given))
    arms = [config]
    if config.baseline and config.teacher.models:
        if (session.data.train.labels >= 0).all():
            arms.append(without_teacher(config))
        else:
            log.warning("%s has no labels: the baseline without a teacher is left out", config.data.dataset)
    return [train(arm, session, observers=observers) for arm in arms]


def check_settings(config: Config) -> None:
    """Refuse what can be seen to be wrong with a run before anything is opened.

    Raises:
        ValueError: naming the option, what was given and what is allowed.
    """
    check(config)
    check_optimizers(config)
    check_files(config)
    check_models(config)
    check_selection(config)


def record(kind: str, config: Config, given: Given = NOTHING_GIVEN) -> list[Path]:
    """Record what scorers of a kind need, without training a student.

    Args:
        kind: of `KINDS`.
        given: data and models that are no names in the settings.

    Returns:
        The folders of the record: one, or those of several repeats.

    Raises:
        ValueError: an unknown kind; what cannot be had from these settings.
    """
    if kind not in KINDS:
        raise ValueError(unknown("kind of record", kind, KINDS))
    config = given.named(config)
    check(config)
    check_optimizers(config)
    check_files(config)
    check_models(config)
    config = settled(config, f"record {kind}", [kind])
    accelerator = make_accelerator(config.train.precision, list(config.log_with), config.output)
    needs_classes = kind != "embeddings" or config.record.embeddings is None
    return KINDS[kind](config, open_session(config, accelerator, given, needs_classes), train).folders


def observed(config: Config, session: Session) -> Session:
    """A session that knows by what the subset is selected; what is not recorded yet is."""
    if selects_by_observation(config):
        with rehearsed(config, session) as rehearsal:
            job = make_job(*rehearsal)
            check_mask(job)
            rehearse(job, given_teachers(config, session))
        return with_scores(config, session, train)
    return session


def train(config: Config, session: Session, folder: Path | None = None, observers: Sequence[Observer] = ()) -> Result:
    """One run: its subset, its teachers, its student; a finished one is found.

    Args:
        folder: of run directories (default: the output).
        observers: who looks on while the student is trained.
    """
    job = make_job(config, session, observers=observers)
    given = given_teachers(config, session)
    rehearse(job, given)
    job = with_mask(job)
    teachers = load_teachers(config, session, train, given)
    run = open_run(job, teachers, folder or Path(config.output))
    trained = not _finished(run) or _lacking(run)
    if not trained:  # it may lie where nothing can be written, so it is not locked
        _warn_of_trackers(config, run)
    else:
        with owned(run, session.accelerator):
            # Another command may have finished it meanwhile; and a run that goes on from the middle lacks the snapshots
            # that it was not asked for in the beginning.
            frozen: list[Teacher] = []
            while not _finished(run) or _lacking(run):
                if _finished(run):
                    job, run = _once_more(job, run)
                with_features = bool(job.loss and job.loss.needs_features)
                frozen = frozen or freeze_teachers(config, session, teachers, with_features)
                fit(job, frozen, run)
    _warn_of_other_record(config, run)
    log.info("%s is finished", run.path)
    return Result(run.path, run.summary)


def _warn_of_trackers(config: Config, run: RunDir) -> None:
    if config.seeds.role != "student":
        return
    if config.log_with:
        log.warning("--log_with has no effect: %s is finished, and what it measured is in its metrics.csv", run.path)
    if config.track_energy and "energy" not in run.summary:
        log.warning("--track_energy has no effect: %s is finished, and was not measured", run.path)


def _warn_of_other_record(config: Config, run: RunDir) -> None:
    """A run is found by what it trained; whether its dynamics were recorded is no part of that."""
    wanted = config.train.record
    if wanted == "none" or config.seeds.role != "student":
        return
    view = Dynamics([run.path]).about.view if (run.dynamics / HEADER).is_file() else "none"
    if view != wanted:
        log.warning(
            "--train.record: %s given, and %s was finished with %s: remove it to have it trained and recorded again",
            *(wanted, run.path, view),
        )


def _finished(run: RunDir) -> bool:
    """Whether a run is finished, as the main process sees it: all must go the same way."""
    seen = [run.finished]
    broadcast_object_list(seen)
    return seen[0]


def _lacking(run: RunDir) -> list[str]:
    """Snapshots that a finished run was not asked for, and is now, as the main process sees it."""
    seen = [run.lacking]
    broadcast_object_list(seen)
    return seen[0]


def _once_more(job: Job, run: RunDir) -> tuple[Job, RunDir]:
    """Reopen a finished run for the sake of a snapshot; those that it has kept, it keeps again."""
    missing = listed(run.lacking)
    log.info("%s: finished without the snapshot %s that is asked for, so it is trained once more", run.path, missing)
    before, config = read_config(run.path).train, deepcopy(job.config)
    config.train.save_epochs = sorted({*config.train.save_epochs, *before.save_epochs})
    config.train.save_steps = sorted({*config.train.save_steps, *before.save_steps})
    job.session.accelerator.wait_for_everyone()
    if job.session.accelerator.is_main_process:
        run.artefact.reopen()
    # Put together anew, for the student may have been trained by this very command.
    anew = replace(make_job(config, job.session, job.observers), mask=job.mask)
    return anew, RunDir(run.path, config, run.artefact.key)


def open_run(job: Job, teachers: list[LoadedTeacher], folder: Path) -> RunDir:
    """The directory of a run, by all that its result is a function of."""
    key = run_key(job, [teacher.built for teacher in teachers], mask_key(job))
    path = folder / run_name(job.config, key)
    if job.config.name is None and not path.exists():
        path = next(_of_equal_contents(folder, key), path)
    return RunDir(path, job.config, key)


def _of_equal_contents(folder: Path, key: Key) -> Iterator[Path]:
    """Runs that have this key under another name: the data's folder may have been renamed, or --seed given by roles."""
    for path in sorted(folder.glob(f"*-{key_hash(key)[:8]}")):
        with contextlib.suppress(ValueError):
            record = read_record(path)
            if record is not None and not differences(record["key"], key):
                yield path


@contextlib.contextmanager
def owned(run: RunDir, accelerator: Accelerator) -> Iterator[None]:
    """Be the only command that works in a run directory; another one that does is waited for."""
    with run.artefact.owned() if accelerator.is_main_process else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        yield
        accelerator.wait_for_everyone()


def fit(job: Job, teachers: list[Teacher], run: RunDir) -> None:
    """Train the student of a run, and write down what came out."""
    config, accelerator = job.config, job.session.accelerator
    if job.loss is not None:
        job = replace(job, loss=with_layers(job, job.loss, teachers))
    weights = _weights(job, teachers)
    if accelerator.is_main_process:
        run.start(environment(accelerator), job.subset)
    accelerator.wait_for_everyone()
    found: dict[str, Any] | None = None
    if job.loss is not None and alpha_policies.search(config.distill.alpha):
        found = search_alpha(job, run, teachers, weights)
        job = with_found(job, found)
    targets = None if job.loss is None else make_targets(job, teachers, weights)
    with tracked(accelerator, run), measured(config.track_energy, accelerator, run.checkpoints) as energy:
        state = train_student(job, run, targets)
    summary = summarise(job, run, teachers, targets, state, found) | energy.row
    if accelerator.is_main_process:
        run.finish(summary)
        Checkpoints(run.checkpoints, {}, 1).clear()


def _weights(job: Job, teachers: list[Teacher]) -> list[float] | None:
    """Weights of the teachers in their mean; None for equal ones."""
    if job.judges is not None:
        return learn(job.config, job.session, teachers, job.judges)
    weights = job.config.teacher.weights
    assert not isinstance(weights, str)
    return weights

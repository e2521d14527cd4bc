"""Scores: from a scorer's name to a score file, with what it needs recorded first; each made once and found again."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from kdprune.artefact import Artefact, key_hash, obtain
from kdprune.config import Config
from kdprune.data.counter import bits, key, uniform
from kdprune.data.scores import Scores, load_scores
from kdprune.geometry.rows import Mapper
from kdprune.messages import about, listed
from kdprune.pipeline.dynamic import needs_scores, redraws
from kdprune.pipeline.job import make_job
from kdprune.pipeline.record import record
from kdprune.pipeline.recorder import recorded_epochs
from kdprune.pipeline.recording.dynamics import observed_recipe
from kdprune.pipeline.recording.embeddings import record_embeddings
from kdprune.pipeline.session import Session
from kdprune.pipeline.teachers import Train
from kdprune.records.rows import RowRecord
from kdprune.registry import names
from kdprune.scorers.common.apply import bound, check_fit, declared, score
from kdprune.scorers.common.observation import Observation, observe
from kdprune.selectors.common.select import needs_of
from kdprune.testing.simulated import simulated

log = logging.getLogger("kdprune")

VERSION = 2  # of the scorers: to be raised with a change after which one of them gives other scores, or other files
FOLDER, FILE = "scores", "scores.parquet"  # in the output, and in the folder of one


def with_scores(config: Config, session: Session, train: Train) -> Session:
    """A session that knows the scores and features which the subset is selected by.

    Raises:
        ValueError: scores of other data; a scorer or a selector that lacks what it needs.
    """
    subset = config.subset
    needs = needs_of(subset.selector) if subset.file is None else ()
    if "scores" in needs or needs_scores(config):
        if subset.scores is not None:
            scores = load_scores(subset.scores, session.data.fingerprint, len(session.data.train))
            session = replace(session, scores=scores)
        if subset.scorer is not None:
            session = _scored(config, session, train)
    if "features" in needs:
        with about("--subset.features"):
            session = _featured(config, session, train)
    return session


def check_selection(config: Config) -> None:
    """Refuse what can be seen to be wrong with scorer and selector before anything is opened.

    Raises:
        ValueError: options that contradict each other; a selector without what it needs; wrong arguments.
    """
    subset = config.subset
    needs = needs_of(subset.selector)
    given = [name for name in ("scorer", "scores", "features", "hard") if getattr(subset, name) is not None]
    if subset.file is not None:
        if given and not needs_scores(config):
            raise ValueError(f"--subset.{given[0]}: given beside --subset.file, which says itself what is kept")
        needs = ()
    reads_scores = subset.scorer is not None and "difficulty" in declared(bound(subset.scorer)[0].name).reads
    if reads_scores and subset.scores is None:
        raise ValueError(
            f"--subset.scores: {subset.scorer} starts from the scores of another scorer, and none are given"
        )
    if subset.scorer is not None and subset.scores is not None and not reads_scores:
        raise ValueError("--subset.scores: given beside --subset.scorer; leave one of the two out")
    asking = "--subset.selector: " + subset.selector if "scores" in needs else f"--subset.dynamic: {subset.dynamic}"
    if ("scores" in needs or needs_scores(config)) and subset.scorer is None and subset.scores is None:
        raise ValueError(
            f"{asking} goes by scores: name a scorer with --subset.scorer ({listed(names('scorers'), 50)}), or a score "
            "file with --subset.scores"
        )


def selects_by_observation(config: Config) -> bool:
    """Whether the subset of a run depends on anything that is recorded."""
    needs = needs_of(config.subset.selector) if config.subset.file is None and not redraws(config) else ()
    return bool({"scores", "features"} & set(needs)) or needs_scores(config)


def recorded_for(config: Config) -> list[str]:
    """Kinds of records that are made, or found, to select the subset of a run."""
    subset, kinds = config.subset, []
    needs = needs_of(subset.selector) if subset.file is None else ()
    if subset.scorer is not None and ("scores" in needs or needs_scores(config)) and not config.record.files:
        kinds.append(declared(bound(subset.scorer)[0].name).needs)
    if "features" in needs and subset.features is None and not (config.record.files and subset.scorer is None):
        kinds.append("embeddings")
    return [kind for kind in dict.fromkeys(kinds) if kind != "nothing"]


@contextlib.contextmanager
def rehearsed(config: Config, session: Session) -> Iterator[tuple[Config, Session]]:
    """The same run with scores that are draws, for whatever is wrong with it to show before anything is trained.

    Selectors that compare features are replaced by chance. What is said of that subset is not logged.

    Raises:
        ValueError: arguments that the scorer refuses, or epochs that would not be recorded.
    """
    subset, data = config.subset, session.data
    draws = uniform(bits(key("rehearsal"), torch.arange(len(data.train))), 1)[:, 0].numpy()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        columns: Collection[str] = ()
        if subset.scores is not None:
            columns = load_scores(subset.scores, data.fingerprint, len(data.train)).extra.keys()
        elif subset.scorer is not None:
            columns = _rehearsed_columns(subset.scorer, config, session)
        extra = dict.fromkeys(columns, draws)
        scores = Scores(draws, data.train.labels, data.fingerprint, str(subset.scorer), "high", extra=extra)
        if "features" in needs_of(subset.selector):
            subset = replace(subset, selector="random")
        yield replace(config, subset=subset), replace(session, scores=scores)
    finally:
        log.setLevel(level)


def _rehearsed_columns(text: str, config: Config, session: Session) -> Collection[str]:
    """Further columns of a scorer, seen on a simulated record of as many epochs as there will be."""
    says = declared(bound(text)[0].name)
    if config.record.files or says.needs == "embeddings":
        return ()
    epochs = recorded_epochs(make_job(observed_recipe(config), session)) if says.needs == "dynamics" else 1
    if not epochs:  # the teacher's training is no whole epoch; proxies are observed, and say so themselves
        return ()
    case = simulated(says.needs, 64, 1, epochs, seed=0)
    return score(text, case.observation(), difficulty=case.difficulty).extra.keys()


def _scored(config: Config, session: Session, train: Train) -> Session:
    text = config.subset.scorer
    assert text is not None
    says = declared(bound(text)[0].name)
    data = session.data
    if says.labels and (data.train.labels < 0).any():
        raise ValueError(f"--subset.scorer: {text} needs labels, and {config.data.dataset} has samples without one")
    if says.needs == "nothing":
        observation = Observation("nothing", data.train.labels, data.fingerprint, tuple(data.classes), {})
    else:
        recorded = record(says.needs, config, session, train)
        observation = observe(recorded.folders)
        session = replace(session, observation=recorded.cost)
        if observation.fingerprint != data.fingerprint:
            raise ValueError(
                f"--record.files: {', '.join(config.record.files)} observed another data set (its fingerprint is "
                f"{observation.fingerprint[:12]}…, this data set's is {data.fingerprint[:12]}…)"
            )
    folder, seed = Path(config.output) / FOLDER, config.seed_of("subset")
    found: list[Any] = [None]
    if session.accelerator.is_main_process:
        found = [score_file(text, observation, folder, seed=seed, base=session.scores)]
    broadcast_object_list(found)
    return replace(session, scores=load_scores(found[0]))


def score_file(
    text: str,
    observation: Observation,
    folder: Path,
    *,
    seed: int = 0,
    base: Scores | None = None,
    mapper: Mapper = map,
    option: str = "--subset.scorer",
) -> Path:
    """The score file of a record, which is made unless it is there.

    Args:
        text: a scorer, as in `--subset.scorer`.
        folder: of score files.
        seed: of scorers that draw.
        base: scores of another scorer, for those that start from them.
        mapper: `map`, or workers that do the same, for scorers that can be divided among them.
        option: that messages begin with.
    """
    call, _, arguments = bound(text, option)
    reads = declared(call.name).reads
    made_of = {
        "version": VERSION,
        "scorer": call.name,
        "arguments": {name: repr(value) for name, value in arguments.items()},
        "data": observation.fingerprint,
        "observed": observation.origin.get("observed"),
        "seed": seed if "seed" in reads else None,
        "base": None if base is None or "difficulty" not in reads else [base.hash, base.hard],
    }
    place = folder / f"{call.name}-{key_hash(made_of)[:8]}"

    def make() -> list[str]:
        difficulty = None if base is None else base.difficulty
        scores = score(text, observation, seed=seed, difficulty=difficulty, mapper=mapper, option=option)
        scores.save(place / FILE)
        return [FILE]

    try:
        obtain(Artefact(place, "scores", made_of), make)
    except ValueError:
        if not (place / FILE).exists():  # it was refused: nothing is there to be kept
            shutil.rmtree(place, ignore_errors=True)
        raise
    log.info("scores by %s: %s", text, place / FILE)
    return place / FILE


def _featured(config: Config, session: Session, train: Train) -> Session:
    folder = config.subset.features
    if folder is None and config.record.files and config.subset.scorer is None:  # else they are the scorer's
        folder = config.record.files[0]
    if folder is not None:
        found = RowRecord(Path(folder))
    else:
        recorded = record_embeddings(config, session, train)
        found = RowRecord(recorded.folders[0])
        before = session.observation or {}
        session = replace(
            session, observation={name: before.get(name, 0) + cost for name, cost in recorded.cost.items()}
        )
    if found.about.fingerprint != session.data.fingerprint:
        raise ValueError(f"{found.folder} is a record of another data set")
    return replace(session, features=found)


def score_files(
    scorers: Sequence[str], records: Sequence[Path], folder: Path, *, seed: int = 0, base: Scores | None = None,
    mapper: Mapper = map,
) -> list[Path]:  # fmt: skip
    """Score files of a record, each made unless it is there; whatever is wrong is said before any is made.

    Args:
        scorers: as in `--subset.scorer`.
        records: the folders of one record.
        folder, seed, base, mapper: see `score_file`.
    """
    # Workers elsewhere have other working directories.
    observation = observe(records if mapper is map else [record.absolute() for record in records])
    for text in scorers:
        check_fit(text, observation, None if base is None else base.difficulty, option="scorer")
    return [
        score_file(text, observation, folder, seed=seed, base=base, mapper=mapper, option="scorer") for text in scorers
    ]

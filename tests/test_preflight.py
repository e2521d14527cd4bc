"""What is measured of a teacher before the first step: once, and again when anything that it depends on changes."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch
from helpers import config_of, restored_surroundings

from kdprune.pipeline import freezing, preflight
from kdprune.pipeline.preflight import FILE, FOLDER
from kdprune.pipeline.session import open_session
from kdprune.pipeline.teachers import LoadedTeacher, given_teachers
from kdprune.runs.accelerator import make_accelerator
from kdprune.teachers import frozen


@pytest.fixture
def measured(monkeypatch):
    """Whatever is measured, in its order: "engine" for a comparison of an engine, "top1" for a pass over the data."""
    log = []
    for module, name, what in ((frozen, "_agrees", "engine"), (freezing, "evaluate", "top1")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, real=real, what=what: log.append(what) or real(*given))
    return log


def freeze(output, teacher, settings=None, *, precision="no", features=False, change=None, **data):
    """The one teacher of a run, as a command freezes it."""
    with restored_surroundings():
        config = config_of(output, {"teacher.models": str(teacher), **(settings or {})})
        session = open_session(config, make_accelerator(precision, [], str(output)))
        session = replace(session, data=replace(session.data, **data))
        built = given_teachers(config, session)[0]
        if change is not None:
            with torch.no_grad():
                next(built.model.parameters()).mul_(change)
        loaded = [LoadedTeacher(built, "given weights")]
        return freezing.freeze_teachers(config, session, loaded, features)[0], session.data


def test_a_teacher_is_measured_once(tmp_path, digits_teacher, measured):
    first, data = freeze(tmp_path, digits_teacher)
    assert measured == ["engine", "top1"]
    second, _ = freeze(tmp_path, digits_teacher, {"seed": 1, "distill.loss": "dkd", "subset.keep_fraction": 0.1})
    assert measured == ["engine", "top1"]
    assert second.summary() == first.summary()
    assert first.test_top1 is not None
    images = torch.from_numpy(data.train.images[:8].numpy())
    assert torch.equal(first(images), second(images))


@pytest.mark.parametrize(
    "change",
    [
        {"change": 1.5},
        {"precision": "bf16"},
        {"features": True},
        {"settings": {"teacher.engine": "plain"}},
        {"test_fingerprint": "f" * 64},
    ],
    ids=str,
)
def test_whatever_it_depends_on_has_it_measured_again(tmp_path, digits_teacher, measured, change):
    freeze(tmp_path, digits_teacher)
    before = len(measured)
    freeze(tmp_path, digits_teacher, **change)
    assert {"engine", "top1"} <= set(measured[before:])
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


def test_a_result_that_was_changed_is_not_believed(tmp_path, digits_teacher, measured, caplog):
    first, _ = freeze(tmp_path, digits_teacher)
    (file,) = (tmp_path / FOLDER).glob(f"*/{FILE}")
    good = file.read_bytes()
    file.write_text(json.dumps({**json.loads(good), "test_top1": 0.999}))
    caplog.set_level(logging.WARNING, "kdprune")
    again, _ = freeze(tmp_path, digits_teacher)
    assert measured == ["engine", "top1"] * 2
    assert again.test_top1 == first.test_top1
    assert file.read_bytes() == good
    assert str(file) in caplog.text


def test_a_teacher_near_chance_is_warned_of_each_time(tmp_path, digits_teacher, caplog):
    caplog.set_level(logging.WARNING, "kdprune")
    for _ in range(2):
        caplog.clear()
        freeze(tmp_path, digits_teacher, change=0.0)
        assert "near chance" in caplog.text


def test_another_version_of_a_package_has_it_measured_again(tmp_path, digits_teacher, measured, monkeypatch):
    freeze(tmp_path, digits_teacher)
    monkeypatch.setattr(preflight, "version", lambda package: f"another {package}")
    freeze(tmp_path, digits_teacher)
    assert measured == ["engine", "top1"] * 2

"""Energy is measured where it is asked for, and changes nothing."""

from __future__ import annotations

import logging
import socket

import pytest
from helpers import StopIn, restored_surroundings, train

from kdprune.artefact import read_record
from kdprune.checks import check
from kdprune.config import Config, config_hash
from kdprune.runs import energy
from kdprune.training.interrupt import Interrupted


def weights(run):
    return read_record(run)["files"]["student.safetensors"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain"))


def test_what_is_measured_stands_in_the_summary_and_nowhere_else(tmp_path, plain, monkeypatch):
    pytest.importorskip("codecarbon")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network is asked"))
    summary, run = train(tmp_path, {"track_energy": True})
    assert summary["energy"].keys() == {"kwh", "co2_kg", "seconds", "tracker"}
    assert summary["energy"]["kwh"] > 0
    assert summary["energy"]["co2_kg"] > 0
    assert "codecarbon" in summary["energy"]["tracker"]
    assert (weights(run), summary["key"]) == (weights(plain[1]), plain[0]["key"])
    assert run.name == plain[1].name
    assert "energy" not in plain[0]
    assert not list(run.rglob(energy.FILE))


def test_a_run_that_is_stopped_keeps_what_it_has_spent(tmp_path):
    pytest.importorskip("codecarbon")
    with pytest.raises(Interrupted):
        train(tmp_path, {"track_energy": True}, StopIn(5))
    (file,) = tmp_path.rglob(energy.FILE)
    before = energy._read(file)
    assert before["kwh"] > 0
    summary, _ = train(tmp_path, {"track_energy": True})
    assert summary["energy"]["kwh"] > before["kwh"]
    assert summary["energy"]["seconds"] > before["seconds"]


def test_parts_of_processes_add_up_and_their_time_does_not():
    part = {"kwh": 1.0, "co2_kg": 0.5, "seconds": 10.0, "tracker": "x"}
    total = energy._together([{**part, "seconds": 3.0}, part, None, {**part, "seconds": 11.0}])
    assert total == {"kwh": 3.0, "co2_kg": 1.5, "seconds": 14.0, "tracker": "x"}
    assert energy._together([part, None]) == part
    assert energy._together([None, None]) is None


def test_a_machine_that_cannot_be_measured_is_said(tmp_path, plain, monkeypatch, caplog):
    codecarbon = pytest.importorskip("codecarbon")

    def broken(**options):
        raise OSError("no counters")

    monkeypatch.setattr(codecarbon, "OfflineEmissionsTracker", broken)
    with caplog.at_level(logging.WARNING, "kdprune"):
        summary, run = train(tmp_path, {"track_energy": True})
    assert "energy" not in summary
    assert "--track_energy" in caplog.text
    assert "no counters" in caplog.text
    assert weights(run) == weights(plain[1])


def test_a_finished_run_is_not_measured_again(plain, caplog):
    with caplog.at_level(logging.WARNING, "kdprune"), restored_surroundings():
        train(plain[1].parent, {"track_energy": True})
    assert "--track_energy has no effect" in caplog.text


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--track_energy: .*pip install 'kdprune\[energy\]'"):
        check(Config(track_energy=True))


def test_it_is_no_part_of_what_a_run_is():
    assert config_hash(Config(track_energy=True)) == config_hash(Config())

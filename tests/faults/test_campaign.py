"""A small part of the campaign of faults, bounded in time; campaign.py runs any number of cases."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from faults.campaign import FAILED, FAULTS, REFUSED, SAME, Campaign, judged
from faults.damage import DAMAGES
from faults.states import Scene

SECONDS = 15.0  # of cases, for each of the two kinds


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return Scene(tmp_path_factory.mktemp("distilled"), "distilled")


def tried(campaign: Campaign, cases: int) -> int:
    end = time.monotonic() + SECONDS
    for number in range(cases):
        if time.monotonic() > end:
            return number
        campaign.try_out(number, seed=0)
    return cases


@pytest.mark.slow
def test_files_that_are_damaged_in_any_way(tmp_path, distilled):
    campaign = Campaign(tmp_path, ["distilled"], ["a damaged file"])
    campaign.scenes["distilled"] = distilled
    assert tried(campaign, 60) > 0
    assert not campaign.failures, "\n".join(campaign.failures)


@pytest.mark.slow
def test_processes_that_are_killed_and_disks_that_fill_up(tmp_path):
    campaign = Campaign(tmp_path, ["plain"], [name for name in FAULTS if name != "a damaged file"])
    assert tried(campaign, 20) > 0
    assert not campaign.failures, "\n".join(campaign.failures)


@pytest.mark.slow
def test_the_judge_is_strict(distilled):
    """A campaign that finds nothing should be able to."""
    distilled.put("finished")
    assert judged(distilled, 0, "").what == SAME
    assert judged(distilled, 2, "12:00:00  digits\nerror: it is full").what == REFUSED
    assert judged(distilled, 2, "Usage").what == FAILED
    assert judged(distilled, 1, "error: a\nTraceback (most recent call last)").what == FAILED
    assert judged(distilled, -11, "").what == FAILED
    weights = distilled.command.run / "student.safetensors"
    DAMAGES["flipped"](weights, random.Random(0), [])
    assert judged(distilled, 0, "").what == FAILED
    weights.unlink()
    assert judged(distilled, 0, "").what == FAILED


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_one_and_the_same_by_its_seed(tmp_path, name):
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        path, other = folder / "file.json", folder / "other.json"
        path.write_bytes(b"0123456789" * 20)
        other.write_bytes(b"another")
        DAMAGES[name](path, random.Random(5), [other])
        contents.append(path.read_bytes() if path.is_file() else Path(path).is_dir())
    assert contents[0] == contents[1] != b"0123456789" * 20

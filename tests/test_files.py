"""Files are written whole or not at all."""

import errno
import os
import re
import subprocess
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from helpers import options, said_by
from PIL import Image

from kdprune.data.scores import Scores
from kdprune.files import (
    NoSpace,
    check_space,
    check_writable,
    check_writable_file,
    write_json,
    write_text,
    write_whole,
)
from kdprune.outside import read_json

LARGE = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)


def write_figure(path):
    figure = matplotlib.figure.Figure(figsize=(9, 9))
    figure.figimage(LARGE)
    write_whole(path, lambda file: figure.savefig(file, format="png"))


# All ways in which files are written here: by Python, numpy, Pillow, matplotlib, pyarrow.
WRITERS = {
    "text": lambda path: write_text(path, "a" * 100_000),
    "array": lambda path: write_whole(path, lambda file: np.save(file, LARGE, allow_pickle=False)),
    "parts": lambda path: write_whole(path, lambda file: [file.write(row.data) for row in LARGE]),
    "picture": lambda path: write_whole(path, lambda file: Image.fromarray(LARGE).save(file, format="PNG")),
    "figure": write_figure,
    "scores": lambda path: Scores(
        LARGE.reshape(-1).astype(np.float32), np.zeros(LARGE.size, dtype=int), "data", "mine", "high"
    ).save(path),
}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 KiB."""
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", tmp_path]).returncode:
        pytest.skip("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_fills_up_is_said_with_what_was_needed_and_what_is_free(small_disk, kind):
    path = small_disk / "file"
    path.write_text("old")
    with pytest.raises(NoSpace, match=r"it needs at least .* KiB, 28 KiB are free") as full:
        WRITERS[kind](path)
    assert str(full.value).startswith(f"{path}: ")
    assert full.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert os.listdir(small_disk) == ["file"]


def test_a_place_where_nothing_can_be_written_is_named_and_nothing_is_made(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    check_writable(tmp_path / "a" / "b", "--output")
    check_writable_file(tmp_path / "a" / "b.json", "--output")
    check_writable_file(file, "--output")
    for check, given, reason in (
        (check_writable, file, "allowed is a folder, and this is no folder"),
        (check_writable, file / "a" / "b", f"allowed is a folder, and {file} is no folder"),
        (check_writable_file, tmp_path, "allowed is a file, and this is a folder"),
        (check_writable_file, file / "b.json", f"allowed is a file, and {file} is no folder"),
        *([(check_writable_file, Path("/proc/b.json"), "nothing can be written in /proc")] * Path("/proc").is_dir()),
    ):
        with pytest.raises(ValueError, match=re.escape(f"--output: {given} given, ") + ".*" + re.escape(reason)):
            check(given, "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_without_room_for_a_folder(small_disk):
    write_whole(small_disk / "all", lambda file: file.write(bytes(32 * 1024)))
    with pytest.raises(NoSpace, match="0 bytes are free"):
        write_json(small_disk / "folder" / "a.json", 1)
    with pytest.raises(NoSpace, match="the results need 1 KiB, 0 bytes are free: look elsewhere"):
        check_space(small_disk, 1024, "the results", "look elsewhere")


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_is_whole(tmp_path, kind):
    WRITERS[kind](tmp_path / "file")
    if kind in ("picture", "array"):
        read = np.load(tmp_path / "file") if kind == "array" else np.asarray(Image.open(tmp_path / "file"))
        assert (read == LARGE).all()
    assert len(os.listdir(tmp_path)) == 1


def test_whatever_goes_wrong_the_old_file_stays(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    write_json(path, {"ä": [1, 2]})
    assert read_json(path) == {"ä": [1, 2]}

    def half(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    assert read_json(path) == {"ä": [1, 2]}
    assert os.listdir(path.parent) == ["a.json"]


def test_a_file_has_the_rights_that_others_would_have(tmp_path):
    write_json(tmp_path / "ours", 1)
    (tmp_path / "usual").write_text("1")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_damaged_json_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("size", [4, 8, 12])
def test_a_tracker_whose_disk_is_full(tmp_path, size):
    place = tmp_path / "run" / "tracker"
    place.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place]).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        settings = {"data__dataset": "digits", "student__model": "mlp_64", "train__steps": 4, "name": "run"}
        status, _, said = said_by(["train", *options(**settings, log_with="tensorboard", output=tmp_path)])
    finally:
        subprocess.run(["umount", place], check=True)
    assert status == 1, said
    assert "Traceback" not in said
    assert "/tracker: " in said
    assert "are free (No space left on device)" in said

"""Files are written whole or not at all."""

import os

import pytest

from kdprune.files import write_json, write_whole
from kdprune.outside import read_json


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

"""The script behind the tables of the documentation."""

import pytest
from helpers import options, script


@pytest.mark.slow
def test_a_study_prints_a_row_for_each_arm_and_goes_on_where_it_was(tmp_path):
    words = [
        *options(output=tmp_path, data__dataset="digits", student__model="mlp_64", teacher__models="mlp_64"),
        "--seeds.teacher=0", "--keep", "0.1:1", "--seeds", "0", "1",
        "--arms", "none", "distill.alpha=0.5", "distill.alpha=1 distill.loss='dkd(alpha=1, beta=2)'",
    ]  # fmt: skip
    status, table, said = script("benchmarks/study.py", words)
    assert status == 0, said
    head, _, *rows = table.splitlines()
    assert head == "| | keep 0.1, 1 epochs |"
    assert [row.split(" | ")[0] for row in rows] == ["| none", "| distill.alpha=0.5", f"| {words[-1]}"]
    assert all(row.count(" ± ") == 1 for row in rows)
    assert script("benchmarks/study.py", words)[:2] == (0, table)
    assert len(list(tmp_path.glob("*/summary.json"))) == 6
    assert len(list(tmp_path.glob("teachers/*/summary.json"))) == 1


def test_choosing_needs_a_part_to_choose_by(tmp_path):
    words = [*options(output=tmp_path, data__dataset="digits"), "--keep", "0.1:1", "--on", "val", "--arms", "none"]
    assert script("benchmarks/study.py", words)[0] == 1
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_any_arm_shows_before_the_first_run(tmp_path):
    words = [*options(output=tmp_path, data__dataset="digits", teacher__models="mlp_64"), "--keep", "0.1:1"]
    status, _, said = script("benchmarks/study.py", [*words, "--arms", "distill.alpha=0.5", "distill.alpa=1"])
    assert status == 2
    assert "--distill.alpha?" in said
    assert not list(tmp_path.iterdir())

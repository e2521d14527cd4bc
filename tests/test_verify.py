"""`kdprune verify` finds every file that is not as it was written; `kdprune show` prints what a run was made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers import plain, train, unfinish

from kdprune.cli import main
from kdprune.pipeline.lineage import lineage
from kdprune.pipeline.verify import verify


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of runs with a teacher, cached targets and a snapshot; the student's run."""
    output = tmp_path_factory.mktemp("verify")
    _, run = train(
        output,
        {"teacher.models": "mlp_64", "teacher.targets": "cached", "train.steps": 22, "train.save_steps": [3]},
    )
    return output, run


def test_all_is_as_it_was_written(runs, capsys):
    output, run = runs
    found = {result.folder.resolve(): result for result in verify([run])}
    assert not [problem for result in found.values() for problem in result.problems]
    assert {result.what for result in found.values()} == {"a run", "cached targets", "decoded images"}
    assert run.resolve() in found
    assert (output / "teachers").resolve() in {folder.parent for folder in found}
    assert main(["verify", str(output)]) == 0
    assert main(["show", str(run)]) == 0
    said = plain(capsys.readouterr().out)
    for part in ("as written", "mlp_64", run.name, "digits"):
        assert part in said


FILES = ("student.safetensors", "summary.json", "metrics.csv", "config.yaml", "checkpoints/*.safetensors")


@pytest.mark.parametrize("pattern", [*(f"RUN/{file}" for file in FILES), "targets/*/*.bin"])
def test_one_flipped_bit_is_found_and_the_file_named(runs, pattern, capsys):
    output, run = runs
    file = next(output.glob(pattern.replace("RUN", run.name)))
    content = file.read_bytes()
    damaged = bytearray(content)
    damaged[-30] ^= 1
    try:
        file.write_bytes(damaged)
        assert main(["verify", str(run)]) == 1
        assert file.name in capsys.readouterr().out.replace("\n", "")
    finally:
        file.write_bytes(content)


def test_a_checkpoint_of_an_unfinished_run_is_checked(runs, tmp_path):
    _, run = runs
    copy = shutil.copytree(run, tmp_path / "run")
    unfinish(copy)
    (copy / "checkpoints" / "step_000000004.pth").write_bytes(b"PK damaged")
    (result,) = (found for found in verify([copy]) if found.folder == copy)
    assert not result.finished
    assert ["step_000000004.pth" in problem for problem in result.problems] == [True]


def test_what_is_no_run_is_refused(tmp_path, capsys):
    for command in ("verify", "show"):
        assert main([command, str(tmp_path)]) == 2
        assert "artefact.json" in capsys.readouterr().err


def test_the_tree_names_a_teacher_whose_run_was_trained_anew(runs, tmp_path):
    output, run = runs
    copy = shutil.copytree(output, tmp_path / "copy")
    summary = json.loads((copy / run.name / "summary.json").read_text())
    taught = copy / "teachers" / Path(summary["teacher"][0]["source"]).name
    summary["teacher"][0]["source"] = str(taught)
    (copy / run.name / "summary.json").write_text(json.dumps(summary))
    node = lineage(copy / run.name)
    (teacher,) = (made_of for made_of in node.inputs if made_of.title.startswith("teacher"))
    assert teacher.problem is None
    assert teacher.inputs[0].title == f"run {taught.name}"
    shutil.copy(copy / run.name / "student.safetensors", taught / "student.safetensors")
    (teacher,) = (made_of for made_of in lineage(copy / run.name).inputs if made_of.title.startswith("teacher"))
    assert "other weights" in str(teacher.problem)
    assert "digest" in str(teacher.inputs[0].problem)


def test_a_snapshot_after_a_step_is_a_teacher(runs, tmp_path):
    _, run = runs
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000000003.safetensors"]
    summary, _ = train(tmp_path, {"teacher.models": f"{run}@step3", "train.steps": 1})
    assert summary["teacher"][0]["source"] == f"{run}@step3"
    with pytest.raises(ValueError, match=r"'step4'.*step3"):
        train(tmp_path, {"teacher.models": f"{run}@step4"})


@pytest.mark.parametrize("content", ["null", "[1, 2]", "{}", "nonsense"])
def test_a_damaged_summary_is_said_and_no_traceback(runs, tmp_path, capsys, content):
    _, run = runs
    copy = shutil.copytree(run, tmp_path / run.name)
    (copy / "summary.json").write_text(content)
    assert main(["show", str(copy)]) == 2
    assert "summary.json" in capsys.readouterr().err


def test_a_damaged_record_of_an_input_is_found(runs, tmp_path, capsys):
    output, run = runs
    copy = shutil.copytree(output, tmp_path / "copy")
    (record,) = (copy / "teachers").glob("*/artefact.json")
    summary = json.loads((copy / run.name / "summary.json").read_text())
    for damage in (lambda: record.write_text("{"), record.unlink):
        damage()
        assert Path(summary["teacher"][0]["source"]).name == record.parent.name
        shutil.move(output / "teachers", output / "elsewhere")  # so that the copy's own teacher is the one that is met
        try:
            assert main(["verify", str(copy / run.name)]) == 1
        finally:
            shutil.move(output / "elsewhere", output / "teachers")
        assert "artefact.json" in capsys.readouterr().out.replace("\n", "")

"""What cannot be is said before a teacher is trained for it, and leaves nothing in the way."""

from __future__ import annotations

import shutil

import pytest
from helpers import config_of, plain, said_by, train

import kdprune
from kdprune.checks import check

UNTRAINED = {"teacher.models": "cifar_resnet8", "student.model": "cifar_resnet8", "train.steps": 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher.targets": "cached", "teacher.top_k": 20}, r"allowed is \[1, 9\]"),
        ({"teacher.snapshot": 5, "teacher.train.epochs": 2}, r"^--teacher\.snapshot or .*: 5 .* 1 to 2"),
        ({"teacher.train.save_epochs": [0], "teacher.train.epochs": 2}, r"--teacher\.train\.save_epochs: 0 given"),
        ({"distill.loss": "fitnet", "distill.layers": [["layerr3", "layer3"]]}, "layer of the student 'layerr3'"),
        ({"distill.loss": "fitnet", "distill.layers": [["layer3", "layerr3"]]}, "layer of the teacher 'layerr3'"),
        ({"distill.loss": "fitnet", "distill.layers": [["layer3"]]}, "allowed are pairs"),
        ({"distill.loss": "attention_transfer", "student.model": "mlp_64"}, "needs maps larger than 1×1"),
        ({"distill.loss": "kd(temperature=2)", "distill.alpha": "search([0.5], [2, 8])"}, "a search over α alone"),
        ({"distill.loss": "mse_logits", "distill.alpha": "search([0.5], [2, 8])"}, "a search over α alone"),
        (
            {"distill.loss": "kd + nkd(temperature=4)", "distill.alpha": "search([0.5, 1], [4, 8])",
             "teacher.targets": "cached", "teacher.top_k": 3},
            "nkd reads it at 1",
        ),
    ],
)  # fmt: skip
def test_before_a_teacher_is_trained(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, {**UNTRAINED, **settings})
    assert not list(tmp_path.rglob("*.safetensors"))


def test_alpha_is_checked_for_the_samples_of_a_file_and_for_generations(tmp_path):
    _, tenth = train(tmp_path, {"subset.keep_fraction": 0.1, "train.steps": 1})
    wanted = {**UNTRAINED, "distill.alpha": "linear(1.2, 0.4)", "subset.file": str(tenth / "subset.json")}
    with pytest.raises(ValueError, match=r"gives α = 1\.11982 at keep fraction 0\.100223"):
        train(tmp_path, wanted)
    assert not (tmp_path / "teachers").exists()
    generations = {**UNTRAINED, "distill.alpha": "linear(1.0, -0.5)", "subset.keep_fraction": 0.5}
    check(config_of(tmp_path, generations))
    with pytest.raises(ValueError, match=r"gives α = -0\.5 at keep fraction 1"):
        check(config_of(tmp_path, {**generations, "teacher.generations": 2}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher.temperatures": [float("nan")]}, "allowed are numbers > 0"),
        ({"teacher.temperatures": [float("inf")]}, "allowed are numbers > 0"),
        ({"teacher.weights": [float("nan")]}, "allowed are numbers ≥ 0"),
        ({"teacher.by_correctness": True, "teacher.top_k": 3}, "leave one of them out"),
        ({"teacher.train.precision": "fp16"}, r"--teacher\.train\.precision: fp16 .*--train\.precision"),
        ({"teacher.models": "ema", "train.ema": 0.9, "teacher.temperatures": [2.0]}, "given for ema"),
    ],
)
def test_numbers_and_pairs_of_options_that_mean_nothing(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        check(config_of(tmp_path, {**UNTRAINED, **settings}))


def test_the_mean_teacher_gives_no_features(tmp_path):
    for layers in ([], [["layer3", "layer3"]]):
        settings = {"teacher.models": "ema", "train.ema": 0.9, "distill.loss": "kd + fitnet", "distill.layers": layers}
        with pytest.raises(ValueError, match="features, which ema"):
            train(tmp_path, {**UNTRAINED, **settings})


def test_several_teachers_are_a_mean_at_one_temperature(tmp_path, digits_teacher):
    """A loss that reads them at another one is refused."""
    teachers = {"teacher.models": [str(digits_teacher), f"{digits_teacher}@1"], "train.steps": 1}
    for loss in ("kd(temperature=2)", "nkd"):
        with pytest.raises(ValueError, match=r"reads it at [12]; "):
            train(tmp_path, {**teachers, "distill.loss": loss, "distill.temperature": 4.0})
    for loss, temperature in (("mse_logits + logit_std(temperature=2)", 4.0), ("nkd(temperature=1)", 1.0)):
        train(tmp_path, {**teachers, "distill.loss": loss, "distill.temperature": temperature})


def test_a_run_that_was_refused_leaves_its_name_free(tmp_path, digits_teacher):
    """The subset is written, and only then the layers are looked for in the teacher that was given."""
    settings = {
        "name": "mine", "teacher.models": str(digits_teacher), "student.model": "cifar_resnet8", "train.steps": 1,
        "distill.loss": "fitnet",
    }  # fmt: skip
    with pytest.raises(ValueError, match="layerr3"):
        train(tmp_path, {**settings, "distill.layers": [["layerr3", "layer3"]]})
    train(tmp_path, {**settings, "distill.layers": [["layer3", "layer3"]]})
    assert "layerr3" not in (tmp_path / "mine" / "config.yaml").read_text()


def test_a_search_needs_samples_to_judge_by(tmp_path, digits_teacher):
    one = {"teacher.models": str(digits_teacher), "subset.keep_fraction": 1e-9, "distill.alpha": "search"}
    with pytest.raises(ValueError, match="and 1 are kept"):
        train(tmp_path, one)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "", "teachers", "targets", "a\x07b", "x" * 300])
def test_a_name_is_a_folder_in_the_output(tmp_path, name):
    with pytest.raises(ValueError, match="--name: "):
        check(config_of(tmp_path, {"name": name}))


def test_options_about_a_teacher_without_one_are_said_to_have_no_effect(tmp_path, caplog):
    settings = {"distill.alpha": 0.3, "teacher.targets": "cached", "teacher.train.lr": 0.1, "baseline": True}
    train(tmp_path, {"train.steps": 1, **settings})
    (said,) = (record.getMessage() for record in caplog.records if "no effect" in record.getMessage())
    assert all(f"--{name}" in said for name in settings)


def test_a_given_teacher_that_saw_the_validation_part_is_named(tmp_path, digits_teacher, caplog):
    train(tmp_path, {"train.steps": 1, "teacher.models": str(digits_teacher), "data.val_fraction": 0.1})
    assert f"--data.val_fraction: {digits_teacher} was trained on" in caplog.text
    caplog.clear()
    train(tmp_path, {"train.steps": 1, "teacher.models": "mlp_64", "data.val_fraction": 0.1})
    assert "--data.val_fraction" not in caplog.text


def test_a_teacher_that_is_named_twice_counts_twice_and_that_is_said(tmp_path, digits_teacher, caplog):
    train(tmp_path, {"train.steps": 1, "teacher.models": [str(digits_teacher)] * 2})
    assert "have the same weights" in caplog.text


UNWRITABLE = {  # FILE is one; a line, and what the answer begins with
    "score el2n --from nowhere --output FILE/scores": "--output: FILE/scores given",
    "select --scores nowhere.parquet --keep_fraction 0.5 --output FILE/subset.json": "--output: FILE/subset.json given",
    "select --scores nowhere.parquet --keep_fraction 0.1,0.5 --output HERE/a.json": "--output: HERE/a_0.5.json given",
    "select --scores nowhere.parquet --describe nowhere.json --figures FILE": "--figures: FILE given",
    "select --scores nowhere.parquet --describe FILE/b.json": "--figures: FILE/b_figures given",
    "analyse noise --scores nowhere.parquet --output FILE": "--output: FILE given",
    "analyse ntk nowhere --scores nowhere.parquet --output FILE/a": "--output: FILE/a given",
    "analyse barrier nowhere --scores nowhere.parquet --output FILE": "--output: FILE given",
    "analyse instability nowhere --output FILE": "--output: FILE given",
    "analyse prunable nowhere --output FILE": "--output: FILE given",
    "analyse classes nowhere elsewhere --output FILE": "--output: FILE/elsewhere given",
    "analyse classes nowhere RUN": "--output: RUN/analysis given",
    "analyse line RUN nowhere": "--output: RUN/analysis given",
    "export nowhere --to torch-export --output FILE/x.pt2": "--output: FILE/x.pt2 given",
    "export RUN --to onnx": "--output: RUN/student.onnx given",
    "export RUN --to hub-folder --output FILE": "--output: FILE given",
}


@pytest.mark.parametrize("line", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_said_before_any_work(line, tmp_path, digits_teacher):
    """Before anything is read, too: most of what these lines name is not there."""
    names = {"FILE": tmp_path / "file", "RUN": tmp_path / "run", "HERE": tmp_path}
    names["FILE"].write_text("")
    (tmp_path / "a_0.5.json").mkdir()
    if "RUN" in line:
        shutil.copytree(digits_teacher, names["RUN"])
        (names["RUN"] / "analysis").write_text("")
        (names["RUN"] / "student.onnx").mkdir()

    def filled(text):
        for name, path in names.items():
            text = text.replace(name, str(path))
        return text

    before = sorted(tmp_path.rglob("*"))
    status, _, said = said_by(filled(line).split())
    assert status == 2
    assert plain(said).startswith(f"error: {filled(UNWRITABLE[line])}, allowed is a ")
    assert len(said.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("call", [kdprune.train, kdprune.cache, lambda settings: kdprune.record("dynamics", settings)])
def test_an_output_of_a_call_that_cannot_be_written_is_said_before_any_work(call, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output: .*file/runs given, allowed is a folder"):
        call({"output": str(tmp_path / "file/runs"), "data": {"dataset": "/no/such/data"}})

"""No result of other inputs comes back as a fresh one: each is refused by what differs, or computed anew."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import config_of, restored_surroundings, train, unfinish
from PIL import Image
from safetensors.torch import load_file

from kdprune.artefact import key_hash, read_record
from kdprune.data.sources import open_source
from kdprune.models.saved import load_model, save_model
from kdprune.models.spec import BuiltModel, InputSpec
from kdprune.teachers.key import targets_key
from kdprune.training.interrupt import Interrupted
from kdprune.training.observers import Observer

FEW = {"train.steps": 3}


def folder_of_images(folder: Path, seed: int, count: int = 40) -> Path:
    """A data set in class folders; two seeds have the same file names, labels and sizes, and other pixels."""
    random = np.random.default_rng(seed)
    for i in range(count):
        place = folder / ("train" if i % 4 else "test") / f"class{i // 4 % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{i}.bmp")
    return folder


def hashes(output: Path) -> set[str]:
    """Of the students in a folder of runs."""
    return {path.read_bytes().hex()[-64:] for path in output.glob("*/student.safetensors")}


def test_data_of_the_same_name_in_another_root(tmp_path):
    """`--data.root A` → `B`: the data set's name stays."""
    for root, seed in (("a", 0), ("b", 1)):
        folder_of_images(tmp_path / root / "photos", seed)
    settings = {**FEW, "data.dataset": "photos", "train.batch_size": 8}
    first, one = train(tmp_path / "runs", {**settings, "data.root": str(tmp_path / "a")})
    second, two = train(tmp_path / "runs", {**settings, "data.root": str(tmp_path / "b")})
    assert first["dataset_fingerprint"] != second["dataset_fingerprint"]
    assert one != two
    assert len(hashes(tmp_path / "runs")) == 2
    train(tmp_path / "runs", {**settings, "name": "mine", "data.root": str(tmp_path / "a")})
    with pytest.raises(ValueError, match=r"data\.train: .* there, .* asked for.*choose another --name"):
        train(tmp_path / "runs", {**settings, "name": "mine", "data.root": str(tmp_path / "b")})


def test_held_out_data_that_changed(tmp_path):
    folder = folder_of_images(tmp_path / "photos", 0)
    settings = {**FEW, "data.dataset": str(folder), "train.batch_size": 8}
    _, before = train(tmp_path / "runs", settings)
    other = folder_of_images(tmp_path / "others", 1)
    shutil.rmtree(folder / "test")
    (other / "test").rename(folder / "test")
    _, after = train(tmp_path / "runs", settings)
    assert before != after


def test_a_subset_file_that_was_rewritten(tmp_path):
    """From a half to a twentieth, under the same name."""
    subset = tmp_path / "subset.json"
    kept = []
    for keep in (0.5, 0.05):
        _, run = train(tmp_path / f"chosen{keep}", {**FEW, "subset.keep_fraction": keep})
        shutil.copy(run / "subset.json", subset)
        summary, _ = train(tmp_path / "runs", {**FEW, "subset.file": str(subset)})
        kept.append(summary["kept"])
    assert kept == [674, 67]


def test_a_teachers_run_that_was_trained_anew(tmp_path):
    """The directory's name is the same, its weights are not."""
    teacher = {"student.model": "mlp_64", "name": "teacher", "train.steps": 4}
    seen = []
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "teacher", ignore_errors=True)
        train(tmp_path, {**teacher, "seed": seed})
        summary, run = train(tmp_path / "runs", {**FEW, "teacher.models": str(tmp_path / "teacher")})
        seen.append((summary["teacher"][0]["weights_hash"], run))
    assert len(set(seen)) == len({run for _, run in seen}) == 2


def test_a_checkpoint_that_was_replaced(tmp_path):
    _, run = train(tmp_path / "start", {**FEW, "student.model": "mlp_64"})
    checkpoint = tmp_path / "start.safetensors"
    shutil.copy(run / "student.safetensors", checkpoint)
    settings = {**FEW, "student.checkpoint": str(checkpoint)}
    first, one = train(tmp_path / "runs", settings)
    built = load_model(checkpoint)
    for parameter in built.model.parameters():
        torch.nn.init.normal_(parameter)
    save_model(checkpoint, built)
    second, two = train(tmp_path / "runs", settings)
    assert one != two
    assert first["test_loss"] != second["test_loss"]


def test_a_precision_that_changed_under_auto(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")  # what auto resolves to on any machine
    before, one = train(tmp_path, {**FEW, "train.precision": "no"})
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    after, two = train(tmp_path, {**FEW, "train.precision": "auto"})
    assert (before["precision"], after["precision"]) == ("no", "bf16")
    assert one != two


def test_a_teacher_trained_on_other_data_does_not_serve_data_of_the_same_name(tmp_path):
    sources = []
    for root, seed in (("a", 0), ("b", 1)):
        folder_of_images(tmp_path / root / "photos", seed)
        summary, _ = train(
            tmp_path / "runs",
            {**FEW, "data.dataset": "photos", "data.root": str(tmp_path / root), "teacher.models": "mlp_64",
             "train.batch_size": 8},
        )  # fmt: skip
        sources.append((summary["teacher"][0]["source"], summary["teacher"][0]["weights_hash"]))
    assert len({source for source, _ in sources}) == len({weights for _, weights in sources}) == 2


class StopAt(Observer):
    """SIGINT in a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, step: int) -> None:
        import os
        import signal

        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def stopped(output: Path, settings: dict) -> Path:
    """A run that was stopped in its fifth step; its directory."""
    with pytest.raises(Interrupted):
        train(output, {"name": "mine", **settings}, StopAt(5))
    return output / "mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seeds.weights: 0 there, 1 asked for"),
        ({"train.lr": 0.01}, "train.lr: 0.05 there, 0.01 asked for"),
        ({"subset.keep_fraction": 0.1}, "subset: "),
        ({"train.precision": "bf16"}, "precision: no there, bf16 asked for"),
    ],
)
def test_an_unfinished_run_does_not_go_on_as_another(tmp_path, change, said):
    """A resume after the subset had shrunk went on at step 1096 of 4218."""
    stopped(tmp_path, {"subset.keep_fraction": 0.5})
    with pytest.raises(ValueError, match="holds a run of something else") as refused:
        train(tmp_path, {"name": "mine", "subset.keep_fraction": 0.5, **change})
    assert said in str(refused.value)


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path):
    run = stopped(tmp_path / "a", {})
    other = stopped(tmp_path / "b", {"seed": 1})
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    with pytest.raises(ValueError, match=r"step_000000005\.pth was written by another run \(.*seeds\.weights"):
        train(tmp_path / "a", {"name": "mine"})


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(tmp_path):
    """It resumed into other weights, four times of four."""
    settings = {"train.steps": 8, "train.checkpoint_keep": 1}
    _, whole = train(tmp_path / "whole", settings)
    run = stopped(tmp_path / "broken", settings)
    (checkpoint,) = (run / "checkpoints").glob("*.pth")
    content = checkpoint.read_bytes()
    for place in np.linspace(0, len(content) - 1, 4).astype(int):
        damaged = bytearray(content)
        damaged[place] ^= 0b100
        checkpoint.write_bytes(damaged)
        _, again = train(tmp_path / "broken", {"name": "mine", **settings})
        assert (again / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
        shutil.rmtree(run)
        run.mkdir()
        stopped(tmp_path / "broken", settings)
        (checkpoint,) = (run / "checkpoints").glob("*.pth")


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_finished_run_that_lost_its_student_says_so_and_is_made_again_on_request(tmp_path, damage):
    _, run = train(tmp_path, {**FEW, "name": "mine"})
    weights = run / "student.safetensors"
    content = weights.read_bytes()
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(content[:-100] if damage == "cut" else content[:-100] + bytes(100))
    with pytest.raises(ValueError, match=r"student\.safetensors is .*--remake true"):
        train(tmp_path, {**FEW, "name": "mine"})
    train(tmp_path, {**FEW, "name": "mine", "remake": True})
    assert weights.read_bytes() == content
    train(tmp_path, {**FEW, "name": "mine"})


def test_a_teacher_with_a_flipped_bit_is_refused(tmp_path, digits_teacher):
    teacher = shutil.copytree(digits_teacher, tmp_path / "teacher")
    content = bytearray((teacher / "student.safetensors").read_bytes())
    content[-1000] ^= 1
    (teacher / "student.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"student\.safetensors.*not those that were written"):
        train(tmp_path / "runs", {**FEW, "teacher.models": str(teacher)})


def test_the_summary_names_the_run_its_key_and_its_inputs(tmp_path, digits_teacher):
    summary, run = train(tmp_path, {**FEW, "teacher.models": str(digits_teacher)})
    assert summary["name"] == run.name
    assert summary["key"] == read_record(run)["key"]
    inputs = summary["inputs"]
    assert inputs["data"] == summary["dataset_fingerprint"]
    assert inputs["subset"] == summary["subset_hash"]
    (teacher,) = inputs["teachers"]
    taught = json.loads((digits_teacher / "summary.json").read_text())
    assert teacher == {"run": taught["key_hash"], "weights": summary["teacher"][0]["weights_hash"]}


def _train_with_a_teacher(output: Path) -> None:
    torch.set_num_threads(1)
    with restored_surroundings():
        from kdprune.pipeline.train import run

        run(config_of(output, {**FEW, "teacher.models": "mlp_64", "teacher.train.steps": 40}))


def test_two_commands_at_once_train_a_teacher_and_a_student_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_train_with_a_teacher, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    (teacher,) = (tmp_path / "teachers").iterdir()
    (student,) = tmp_path.glob("*/student.safetensors")
    assert load_file(student)
    # One training: were there two, the second would have begun after the first was finished.
    written = (teacher / "config.yaml").stat().st_mtime_ns
    assert written < (teacher / "student.safetensors").stat().st_mtime_ns < student.stat().st_mtime_ns
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_unfinished_artefact_is_gone_on_with(tmp_path):
    """A kill between the last file and the record of it."""
    first, run = train(tmp_path, FEW)
    before = (run / "student.safetensors").read_bytes()
    unfinish(run)
    second, again = train(tmp_path, FEW)
    assert again == run
    assert (run / "student.safetensors").read_bytes() == before
    assert first["test_loss"] == second["test_loss"]


def test_a_search_that_is_judged_by_other_samples(tmp_path):
    """All samples are kept, so the seed of the subset decides on nothing but the judges."""
    teacher = {**FEW, "name": "teacher", "student.model": "mlp_64"}
    train(tmp_path, teacher)
    settings = {**FEW, "teacher.models": str(tmp_path / "teacher"), "distill.alpha": "search([0.5, 1.0])"}
    runs = [train(tmp_path / "runs", {**settings, "seeds.subset": seed})[1] for seed in (0, 1)]
    found = [json.loads((run / "search" / "search.json").read_text())["rungs"] for run in runs]
    assert found[0] != found[1]


def test_held_out_images_that_cannot_be_read_any_more(tmp_path):
    """Of the same size and not among those whose pixels are in the fingerprint."""
    photos = folder_of_images(tmp_path / "photos", 0, count=400)
    settings = {**FEW, "data.dataset": str(photos), "data.bad_images": "drop", "train.batch_size": 8}
    _, before = train(tmp_path / "runs", settings)
    source = open_source(str(photos), "test", tmp_path)
    sample_id = next(i for i in range(len(source)) if i not in source.spread(64))
    image = Path(source.describe(sample_id))
    image.write_bytes(bytes(image.stat().st_size))
    _, after = train(tmp_path / "runs", settings)
    assert before != after


def test_equal_contents_under_another_name_are_found(tmp_path):
    """A renamed folder, and a seed that is given by roles."""
    folder = folder_of_images(tmp_path / "photos", 0)
    settings = {**FEW, "train.batch_size": 8, "teacher.models": "mlp_64"}
    _, first = train(tmp_path / "runs", {**settings, "data.dataset": str(folder)})
    folder.rename(tmp_path / "images")
    roles = {f"seeds.{role}": 0 for role in ("weights", "data", "subset", "teacher")}
    _, again = train(tmp_path / "runs", {**settings, "data.dataset": str(tmp_path / "images"), "seed": 5, **roles})
    assert again == first
    assert len(list((tmp_path / "runs").rglob("student.safetensors"))) == 2


def test_targets_of_teachers_that_see_views_in_another_way_are_others():
    """Weights alone do not say what a teacher answers."""
    spec = InputSpec(1, 8, (0.5,), (0.5,))
    views = SimpleNamespace(key=dict, recipe=SimpleNamespace(mixes=False))
    engine = SimpleNamespace(route="folded", dtype=torch.float32)

    def key_of(spec):
        built = BuiltModel(torch.nn.Identity(), "net", 2, spec)
        teacher = SimpleNamespace(built=built, weights_hash="w", engine=engine)
        return key_hash(targets_key(teacher, "data", 10, views, "subset", SimpleNamespace(about="entries")))

    others = [{"interpolation": "bicubic"}, {"size": (8, 9)}, {"mean": (0.4,)}, {"std": (0.4,)}]
    assert len({key_of(spec), *(key_of(replace(spec, **other)) for other in others)}) == 5
    assert key_of(replace(spec, crop_pct=0.9)) == key_of(spec)  # for whole images, which views are not

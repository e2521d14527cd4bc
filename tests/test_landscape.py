"""Lines between runs: their ends are the runs, what is between is a literal interpolation, nothing is trained twice."""

from __future__ import annotations

import csv
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from helpers import FRESH, config_of, kdprune, plain, restored_surroundings, said_by, train
from hypothesis import given
from hypothesis import strategies as st

from kdprune.analysis.children import begun_at, child_recipes, going_on
from kdprune.analysis.connectivity import kept_ids, line_between, read_end, session_of
from kdprune.analysis.instability import instabilities
from kdprune.analysis.line import Line, networks
from kdprune.analysis.prunable import bisect, prunable_fraction
from kdprune.data.place import Place
from kdprune.data.reader import Reader
from kdprune.models.build import load_model
from kdprune.models.inputs import Inputs
from kdprune.models.mask_file import load_mask
from kdprune.pipeline.evaluate import evaluate_run
from kdprune.pipeline.job import view_settings
from kdprune.pipeline.lottery import Plan, lottery
from kdprune.pipeline.train import run as train_run
from kdprune.runs.reading import read_config

NORMALISED = {"student.model": "cifar_resnet8", "train.steps": 4}
SAVED = {"train.save_steps": [8, 22], "train.save_epochs": [1]}
PLANNED = ["--points", 3]


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("parent"), SAVED)[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[str]:
    """Two trainings of the same first weights, on other minibatches and views."""
    output = tmp_path_factory.mktemp("pair")
    return [str(train(output, {"seeds.data": seed, "train.steps": 9})[1]) for seed in (1, 2)]


@pytest.fixture(scope="module")
def normalised(tmp_path_factory) -> list[str]:
    """The same of a network with BatchNorm."""
    output = tmp_path_factory.mktemp("normalised")
    return [str(train(output, {**NORMALISED, "seeds.data": seed})[1]) for seed in (1, 2)]


def weights(path: Path | str) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def students(folder: Path) -> dict[Path, int]:
    """Students below a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("student.safetensors")}


def measured(function, *arguments, **options):
    with restored_surroundings():
        return function(*arguments, **options)


# --- the line ---------------------------------------------------------------------------------------------------------


def test_the_barrier_is_the_largest_error_less_the_mean_of_the_ends():
    line = Line(np.linspace(0, 1, 4), np.array([0.1, 0.5, 0.2, 0.3]), np.zeros(4), 100)
    assert (line.error, line.highest, line.barrier) == pytest.approx((0.2, 0.5, 0.3))
    assert Line(np.linspace(0, 1, 3), np.array([0.2, 0.0, 0.2]), np.zeros(3), 1).barrier == 0


def test_the_ends_are_what_evaluate_says(normalised):
    line, said = measured(line_between, *normalised, 3, "interpolated")
    found = [measured(evaluate_run, Path(run)).result for run in normalised]
    assert line.errors_A[[0, 2]].tolist() == [1 - one["top1"] for one in found]
    assert line.losses_A[[0, 2]].tolist() == [one["loss"] for one in found]
    assert line.samples == found[0]["samples"]
    assert "interpolated" in said


def literal_logits(runs: list[str], alpha: float, session) -> torch.Tensor:
    """float64, a weight at a time."""
    first, second = (weights(f"{run}/student.safetensors") for run in runs)
    built = load_model(f"{runs[0]}/student.safetensors")
    model = built.model.double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            flat = tensor.view(-1)
            for i, (a, b) in enumerate(
                zip(first[name].flatten().tolist(), second[name].flatten().tolist(), strict=True)
            ):
                flat[i] = (1 - alpha) * a + alpha * b
        mean, std = (torch.tensor(x).double().view(1, -1, 1, 1) for x in (built.spec.mean, built.spec.std))
        return model((session.data.test.images.double() / 255 - mean) / std)


def test_between_the_ends_is_a_literal_interpolation(pair):
    line, said = measured(line_between, *pair, 5)
    assert said == "no BatchNorm"
    session = measured(session_of, Path(pair[0]))
    labels = torch.from_numpy(session.data.test.labels)
    for point in (1, 2):
        logits = literal_logits(pair, point / 4, session)
        wrong = (logits.argmax(1) != labels).double().mean().item()
        assert line.errors_A[point] == pytest.approx(wrong, abs=1.01 / line.samples)  # two logits may be all but equal
        assert line.losses_A[point] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def literal_statistics(model: torch.nn.Module, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Means and unbiased variances of what comes into each BatchNorm, averaged over batches, layer by layer."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    seen: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.__setitem__(name, x[0].detach()))
    sums: dict[str, torch.Tensor] = {}
    model.train()
    for batch in batches:
        with torch.no_grad():
            model(batch)
        for name, maps in seen.items():
            for what, value in (("running_mean", maps.mean((0, 2, 3))), ("running_var", maps.var((0, 2, 3)))):
                sums[f"{name}.{what}"] = sums.get(f"{name}.{what}", 0) + value / len(batches)
    return sums


def test_statistics_measured_anew_are_those_of_a_literal_loop(normalised):
    ends = tuple(read_end(run).built for run in normalised)
    before = [{name: x.double() for name, x in end.model.state_dict().items()} for end in ends]
    with restored_surroundings():
        session = session_of(Path(normalised[0]))
        ids = kept_ids(Path(normalised[0]), session)
        views = view_settings(read_config(Path(normalised[0])), session.data, ends[0].spec)
        list(networks(ends, np.array([0.25]), ids, views, session))
        zeros = torch.zeros(len(ids), dtype=torch.int64)
        reader = Reader(session.data.train, views, ids, session.data.num_classes, Place(torch.device("cpu")))
        (seen,) = reader.read([(torch.from_numpy(ids), zeros)])
    assert not torch.equal(seen.images, session.data.train.images[torch.from_numpy(ids)])  # or it would not matter
    twin = load_model(f"{normalised[0]}/student.safetensors").model.double()
    twin.load_state_dict({name: 0.75 * x + 0.25 * before[1][name] for name, x in before[0].items()})
    inputs = Inputs(ends[0].spec)
    batches = [inputs(part).double() for part in seen.images.split(512)]
    expected = literal_statistics(twin, batches)
    found = ends[0].model.state_dict()
    assert {name for name in found if "running" in name} == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-4, atol=1e-5)
    for name, x in before[0].items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(found[name].double(), 0.75 * x + 0.25 * before[1][name], rtol=1e-6, atol=1e-7)


def test_it_matters_whether_statistics_are_measured(normalised):
    lines = [measured(line_between, *normalised, 3, one)[0] for one in ("measured", "interpolated")]
    assert not np.array_equal(lines[0].losses_A, lines[1].losses_A)


@pytest.mark.parametrize("statistics", ["measured", "interpolated"])
def test_there_is_no_barrier_between_a_run_and_itself(normalised, statistics):
    line, _ = measured(line_between, normalised[0], normalised[0], 4, statistics)
    assert line.barrier == 0
    assert len(set(line.errors_A)) == 1


def test_snapshots_are_ends(parent):
    line, _ = measured(line_between, f"{parent}@step8", f"{parent}@step22", 3)
    assert line.errors_A[-1] == 1 - measured(evaluate_run, parent).result["top1"]
    assert line.errors_A[0] > line.errors_A[-1]


# --- children ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sched", ["cosine", "onecycle", "multistep"])
def test_a_child_goes_on_as_its_parent_did(tmp_path, sched):
    """Without momentum, with the parent's own order, it comes to the parent's end, whatever the schedule."""
    options = {"train.momentum": 0.0, "train.warmup_epochs": 0.2, "train.sched": sched, "train.decay_milestones": [1],
               "train.save_steps": [9]}  # fmt: skip
    _, run = train(tmp_path, options)
    config = read_config(run)
    child = going_on(config, run, begun_at("step9", 9, run, config.student), config.seed_of("data"))
    again = measured(train_run, child)[0].path
    assert again != run
    found, expected = weights(again / "student.safetensors"), weights(run / "student.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_two_children_differ_in_their_data_seed_alone(parent):
    config = read_config(parent)
    for name, step in (("0", 0), ("step8", 8)):
        one, two = child_recipes(config, parent, name, step)
        assert len({one.seeds.data, two.seeds.data, config.seed_of("data")}) == 3
        one.seeds.data = two.seeds.data
        assert one == two
        assert (one.student.rewind_to, one.seed_of("weights")) == (step, config.seed)


@pytest.mark.parametrize("check", [None, "reinit", "shuffle"])
def test_children_have_the_mask_of_a_parent_that_was_pruned_at_first(tmp_path, check):
    """And not one that a pruner would make of samples of their own seeds, nor one that is shuffled twice."""
    options = {"student.sparsity": 0.7, "student.pruner": "snip", "student.mask_check": check, "train.steps": 4,
               "train.save_steps": [2]}  # fmt: skip
    _, run = train(tmp_path, options)
    rows, _ = measured(instabilities, run, ["0", "step2"], 3)
    assert [row["step"] for row in rows] == [0, 2]
    children = [path.parent for path in students(tmp_path / "children")]
    assert len(children) == 4
    assert {load_mask(child).hash for child in children} == {load_mask(run).hash}


def test_a_training_that_cannot_go_on_is_refused_before_any_child(tmp_path):
    gradual = {"student.sparsity": 0.5, "student.prune_at": "gradual(1, 3, every=1)"}
    _, run = train(tmp_path, {"train.steps": 4, "train.save_steps": [2], **gradual})
    with pytest.raises(ValueError, match=r"--spawn: .*gradual\(1, 3"):
        measured(instabilities, run, ["0", "step2"], 3)
    assert len(students(tmp_path)) == 1


def test_children_of_all_steps_are_equal(parent):
    before = students(parent.parent)
    rows, said = measured(instabilities, parent, ["step22"], 5)
    assert [(row["step"], row["barrier"]) for row in rows] == [(22, 0)]
    assert rows[0]["error"] == pytest.approx(1 - measured(evaluate_run, parent).result["top1"])
    assert students(parent.parent) == before
    assert said == "no BatchNorm"


def test_instability_falls_to_the_line_of_its_children_and_finds_them_again(parent):
    rows, _ = measured(instabilities, parent, ["1", "0", "step8"], 3)
    assert [(row["spawn"], row["step"]) for row in rows] == [("0", 0), ("step8", 8), ("1", 22)]
    before = students(parent.parent / "children")
    assert len(before) == 4  # an epoch of the digits is 22 batches: nothing is left to train after it
    again, _ = measured(instabilities, parent, ["step8"], 3)
    assert again == rows[1:2]
    assert students(parent.parent / "children") == before
    ends = [str(path.parent) for path in before if read_config(path.parent).student.rewind_to == 8]
    line, _ = measured(line_between, *ends, 3)
    assert {name: rows[1][name] for name in ("error", "highest", "barrier")} == {
        "error": line.error, "highest": line.highest, "barrier": line.barrier,
    }  # fmt: skip


# --- how far a level can be pruned ------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(1, 12))
def test_bisection_brackets_where_it_rises(where, probes):
    asked = []
    low, high = bisect(lambda x: asked.append(x) or x > where, probes)
    assert high - low == 2**-probes
    assert low <= where <= high
    assert len(asked) == len(set(asked)) == probes


def test_probes_are_levels_of_a_lottery(tmp_path):
    (dense,) = measured(lambda: [next(lottery(config_of(tmp_path), Plan(levels=1, rate=0.5, rewind_to=8)))])
    (low, high), rows, _ = measured(prunable_fraction, dense.result.path, "step8", 0.02, 2, points=3)
    assert high - low == 0.25
    assert {row["fraction"] for row in rows} == {0.5, 0.25 if high <= 0.5 else 0.75}
    assert all((row["barrier"] > 0.02) == (row["fraction"] >= high) for row in rows)
    for row in rows:
        mask = load_mask(Path(row["run"]))
        assert mask.count == mask.total - round(row["fraction"] * mask.total)
    before = students(tmp_path)
    _, level = measured(lambda: list(lottery(config_of(tmp_path), Plan(levels=1, rate=0.5, rewind_to=8))))
    assert str(level.result.path) == next(row["run"] for row in rows if row["fraction"] == 0.5)
    assert students(tmp_path) == before
    _, further, _ = measured(prunable_fraction, level.result.path, tolerance=0.9, probes=1, points=3)
    mask, alive = load_mask(Path(further[0]["run"])), load_mask(level.result.path)
    assert mask.count == mask.total - round(0.75 * mask.total)
    assert all((alive.kept[name] | ~kept).all() for name, kept in mask.kept.items())
    config = read_config(Path(further[0]["run"]))
    assert config.student.rewind_to == 8  # where the level itself began


def test_a_probe_without_a_layer_is_a_bad_one_and_no_mistake(tmp_path):
    seven = {"student.sparsity": 1 - 7 / 8832, "student.prune_scope": "layer"}
    _, run = train(tmp_path, {"train.steps": 3, **seven})
    assert load_mask(run).count == 7
    (low, high), rows, _ = measured(prunable_fraction, run, tolerance=0.999, probes=3, points=3)
    assert high == 1
    assert low == rows[-1]["fraction"]
    assert len(load_mask(Path(rows[-1]["run"])).collapsed) == 2  # of three layers; one weight is left


# --- the commands -----------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_the_line_as_a_table_and_as_json(pair, tmp_path):
    words = ["analyse", "line", *pair, *PLANNED, "--output", tmp_path]
    status, out, complaints = said_by(words)
    assert status == 0, complaints
    assert all(text in plain(out) for text in ("no BatchNorm", "barrier", "alpha", "held-out samples"))
    (table,), (figure,) = tmp_path.glob("*.csv"), tmp_path.glob("*.png")
    assert [row["alpha"] for row in rows_of(table)] == ["0.0", "0.5", "1.0"]
    assert is_png(figure)
    content = json.loads(said_by([*words, "--json"])[1])
    assert content["runs"] == pair
    assert content["barrier"] == pytest.approx(content["highest"] - content["error"])
    assert [row["error"] for row in content["line"]] == [float(row["error"]) for row in rows_of(table)]


def test_instability_and_what_is_prunable_as_commands(tmp_path):
    _, run = train(tmp_path, {"train.steps": 3, "train.save_steps": [2, 3]})
    status, out, complaints = said_by(["analyse", "instability", run, "--spawn", "step3", "step2", *PLANNED])
    assert status == 0, complaints
    assert "4 children" in complaints
    assert "from step" in plain(out)
    assert [row["step"] for row in rows_of(run / "analysis" / "instability.csv")] == ["2", "3"]
    assert is_png(run / "analysis" / "instability.png")
    words = ["analyse", "prunable", run, "--probes", 1, "--rewind_to", "step2", *PLANNED]
    content = json.loads(said_by([*words, "--json"])[1])
    assert content["with_barrier"] - content["without_barrier"] == 0.5
    assert [row["fraction"] for row in content["rows"]] == [0.5]
    assert is_png(run / "analysis" / "prunable.png")
    status, out, complaints = said_by(words)
    assert status == 0, complaints
    assert "1 probe: 64 samples" in complaints
    assert "without a barrier" in plain(out)


MISTAKES = {  # a line, and what the answer must name
    "analyse line PARENT": ["other"],
    "analyse line PARENT /no/run": ["/no/run"],
    "analyse line PARENT resnet18": ["resnet18", "RUN@EPOCH"],
    "analyse line PARENT@step7 PARENT": ["'step7'", "kept: 1, step8, step22"],
    "analyse line PARENT NORMALISED": ["mlp_64", "cifar_resnet8"],
    "analyse line PARENT OTHER": ["different data", "train"],
    "analyse line PARENT PARENT --points 2": ["--points: 2", "3 and more"],
    "analyse line PARENT PARENT --statistics none": ["--statistics", "measured"],
    "analyse instability /no/run": ["/no/run"],
    "analyse instability PARENT --spawn step7": ["'step7'", "kept: 1, step8, step22"],
    "analyse instability PARENT --points 1": ["--points: 1"],
    "analyse prunable PARENT --rewind_to step22": ["--rewind_to: step22", "came before"],
    "analyse prunable PARENT --rewind_to 7": ["'7'", "kept: 1, step8, step22"],
    "analyse prunable PARENT --tolerance 0": ["--tolerance: 0", "(0, 1)"],
    "analyse prunable PARENT --probes 0": ["--probes: 0", "1 to 20"],
}


@pytest.fixture(scope="module")
def other_data(tmp_path_factory) -> Path:
    """A run whose record says that it was of other data."""
    run = train(tmp_path_factory.mktemp("other"), {"train.steps": 1})[1]
    record = json.loads((run / "artefact.json").read_text())
    record["key"]["data"]["train"] = "f" * 64
    (run / "artefact.json").write_text(json.dumps(record))
    return run


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered_before_any_training(line, parent, normalised, other_data):
    named = {"PARENT": parent, "NORMALISED": normalised[0], "OTHER": other_data, "PARENT@step7": f"{parent}@step7"}
    before = students(parent.parent)
    status, _, complaints = said_by([named.get(word, word) for word in line.split()])
    assert status == 2, complaints
    for name in MISTAKES[line]:
        assert name in plain(complaints)
    assert students(parent.parent) == before


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_numbers(tmp_path):
    _, run = train(tmp_path, {"train.steps": 150, "train.save_steps": [50], "train.checkpoint_every": "1"})
    words, log, draw = (
        ["analyse", "instability", run, "--spawn", 0, "step50", *PLANNED, "--json"],
        tmp_path / "log",
        random.Random(0),
    )
    straight = said_by([*words, "--output", tmp_path / "straight"])[1]
    words += ["--output", tmp_path / "killed"]
    for finished in (0, 1, 2, 3):
        process = FRESH.Process(target=kdprune, args=(words, log))
        process.start()
        while process.is_alive() and len(students(tmp_path / "killed")) < finished:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert said_by(words)[1] == straight

"""Finding, comparing and repeating runs."""

import ast
import json
import shlex

import pytest
from helpers import metrics, said_by, train, unfinish
from hypothesis import given
from hypothesis import strategies as st

from kdprune.report.compare import command_of, differing, differing_inputs
from kdprune.report.runs import find_runs, full_name
from kdprune.report.where import Where

NAMES = ("lr", "seed", "name", "models", "missing")
VALUES = {"lr": 0.1, "seed": 3, "name": "resnet18", "models": ["a", "b"], "missing": None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    for seed, keep in ((0, 0.1), (1, 0.1), (0, 0.5)):
        train(output, {"seed": seed, "subset.keep_fraction": keep, "train.steps": 3})
    train(output, {"teacher.models": ["mlp_64"], "distill.temperature": 2.0, "train.steps": 3})
    train(output, {"train.steps": 4, "name": "half"})
    unfinish(output / "half")
    (output / "half" / "summary.json").unlink()
    return output


def where(text, values=None):
    return Where(text, str)({**VALUES, **(values or {})})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lr < 0.5", True),
        ("lr < 0.5 and seed == 4", False),
        ("lr > 1 or not seed == 4", True),
        ("0.05 <= lr < 0.1", False),
        ("0.05 <= lr <= 0.1", True),
        ("seed in [1, 2, 3]", True),
        ("seed not in (1, -2)", True),
        ("'resnet' in name", True),
        ("'b' in models and models != []", True),
        ("missing == None", True),
        ("missing < 3", False),
        ("missing >= 3", False),
        ("'x' in missing", False),
        ("missing in [None, 1]", True),
        ("a.b != 3", True),
    ],
)
def test_a_condition(text, meant):
    assert where(text) is meant


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "lr <", "lr = 3", "__import__('os').system('true')", "open('/etc/passwd')", "[x for x in name]",
        "lambda: 1", "name[0] == 'r'", "lr + 1 > 2", "lr ** 99999999 > 2", "seed is 3", "f'{lr}'", "(lr := 3)",
        "b'x' == name", "1j == lr", "(" * 900, "-" * 999 + "1", "lr" * 2000, "lr < 'a'", "'a' in lr", "models < 3",
        "{1: 2} == models", "await lr", "\0", "lr if seed else name", "...", "name.__class__.__mro__()",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused_and_never_run(text):
    with pytest.raises(ValueError, match="--where: "):
        where(text)


def conditions():
    constants = st.one_of(st.integers(-5, 5), st.sampled_from([0.1, -0.5, "a", "resnet18", None, True]))
    side = st.one_of(constants.map(repr), st.sampled_from(NAMES))
    one = st.tuples(side, st.sampled_from(["==", "!="]), side).map(" ".join)
    order = st.tuples(
        st.sampled_from(["lr", "seed"]), st.sampled_from(["<=", "<", ">=", ">"]), st.integers(-5, 5).map(str)
    )
    inside = st.tuples(side, st.sampled_from(["in", "not in"]), st.lists(constants, max_size=3).map(repr)).map(" ".join)

    def combined(part):
        pair = st.tuples(part, st.sampled_from(["and", "or"]), part)
        return part.map("not ({})".format) | pair.map(lambda parts: "({}) {} ({})".format(*parts))

    return st.recursive(st.one_of(one, order.map(" ".join), inside), combined, max_leaves=6)


@given(conditions())
def test_conditions_mean_what_they_mean_in_python(text):
    names = {node.id: VALUES[node.id] for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)}
    program = compile(text, "", "eval")
    assert where(text) == bool(eval(program, {"__builtins__": {}}, names))


@given(st.text(max_size=60) | st.text("()[]<>=.'\"+-andortiln 019,:", max_size=60))
def test_no_text_ends_in_anything_but_an_answer_or_a_refusal(text):
    try:
        answer = where(text)
    except ValueError as error:
        answer = str(error)
    assert answer in (True, False) or answer.startswith("--where: ")


def test_names_may_be_cut_to_their_ends(runs):
    found = find_runs([runs])
    assert full_name("lr", found) == "train.lr"  # not teacher.train.lr
    assert full_name("keep_fraction", found) == "subset.keep_fraction"
    assert full_name("student.name", found) == "student.name"
    with pytest.raises(ValueError, match="unknown name 'learning_rate'"):
        full_name("learning_rate", found)
    with pytest.raises(ValueError, match=r"did you mean .*temperature"):
        full_name("temperatur", found)
    with pytest.raises(ValueError, match=r"may be record\.model or student\.model"):
        full_name("model", found)


def test_every_run_is_found_with_what_its_files_say(runs):
    found = {run.path: run.values for run in find_runs([runs, runs])}
    assert len(found) == 6  # with the teacher
    for path, values in found.items():
        assert values["state"] == ("unfinished" if path.name == "half" else "finished")
        assert values["epoch"] == float(metrics(path)[-1]["epoch"])
        if values["state"] == "finished":
            summary = json.loads((path / "summary.json").read_text())
            assert values["test_top1"] == summary["test_top1"]
            assert values["student.parameters"] == summary["student"]["parameters"]
            assert values["cost.seconds"] == pytest.approx(sum(part["seconds"] for part in summary["cost"].values()))
    taught = next(values for values in found.values() if values["teacher.models"])
    assert (taught["teacher.name"], taught["distill.temperature"]) == ("mlp_64", 2.0)
    assert taught["cost.samples"] > taught["images_seen"] * 2


def test_what_was_lost_is_counted_once(runs, tmp_path):
    _, path = train(tmp_path, {"train.steps": 2, "name": "killed", "train.lr_base": 0.1, "train.batch_size": 64})
    summary = json.loads((path / "summary.json").read_text())
    student = summary["cost"]["student_training"]
    total = sum(part["seconds"] for part in summary["cost"].values())
    summary["cost"]["student_training"] = {**student, "lost": {"seconds": 30.0, "samples": 300}}
    (path / "summary.json").write_text(json.dumps(summary))
    (run,) = find_runs([tmp_path])
    assert run.values["cost.seconds"] == pytest.approx(total)
    assert run.values["train.lr"] == 0.1 * 64 / 256  # not the setting, which has no effect beside lr_base


def test_runs_are_filtered_sorted_and_printed(runs):
    status, out, _ = said_by(["runs", runs, "--where", "keep_fraction < 0.5", "--sort", "seed", "--json"])
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(line["seed"], line["subset.keep_fraction"]) for line in lines] == [(1, 0.1), (0, 0.1)]
    reverse = said_by(["runs", runs, "--where", "keep_fraction < 0.5", "--sort", "seed", "--json", "--reverse"])[1]
    assert reverse.splitlines() == out.splitlines()[::-1]
    table = said_by(["runs", runs, "--where", "keep_fraction < 0.5", "--columns", "momentum"])[1]
    assert "2 of 6 runs" in table
    assert all(part in table for part in ("momentum", "0.9", "┃ seed ┃"))
    assert "temperature" not in table  # in which these two do not differ
    assert said_by(["runs", runs, "--where", "seed == 77"])[1] == f"no runs in {runs} where seed == 77\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--where", "sed == 1"], "did you mean seed"),
        (["--sort", "sed"], "did you mean seed"),
        (["--columns", "sed"], "did you mean seed"),
        (["--where", "seed < 'a'"], "cannot be compared"),
        (["nowhere"], "no such folder: nowhere"),
        (["--compare", "nowhere", "nowhere"], "no such folder: nowhere"),
        (["--command", "nowhere"], "is not a run directory"),
    ],
)
def test_mistakes_are_said(runs, words, complaint):
    status, _, said = said_by(["runs", *([] if "nowhere" in words else [runs]), *words])
    assert status == 2
    assert complaint in said


def test_options_of_a_list_beside_what_is_none_say_that_they_have_no_effect(runs):
    run = next(run.path for run in find_runs([runs]))
    said = " ".join(said_by(["runs", "--command", run, "--where", "seed == 0", "--sort", "lr"])[2].split())
    assert "--where, --sort have no effect: --command" in said
    said = " ".join(said_by(["runs", "--compare", run, run, "--columns", "lr", "--json"])[2].split())
    assert "--columns, --json have no effect: --compare" in said


def test_a_damaged_run_is_named_and_left_out(runs, tmp_path, caplog):
    for name, file in (("a", "summary.json"), ("b", "config.yaml"), ("c", "artefact.json"), ("d", "metrics.csv")):
        train(tmp_path, {"name": name, "train.steps": 1})
        (tmp_path / name / file).write_text("[]" if file != "metrics.csv" else "epoch\nx\n")
    assert find_runs([tmp_path]) == []
    assert [record.args[0].name for record in caplog.records if "is left out" in record.msg] == ["a", "b", "c", "d"]


def test_two_runs_are_compared(runs):
    found = [run for run in find_runs([runs]) if run.values["subset.keep_fraction"] == 0.1]
    assert differing(found) == ["seed"]
    inputs = differing_inputs(*(run.path for run in found))
    assert [line.partition(":")[0] for line in inputs] == ["subset", "seeds.weights", "seeds.data", "views.seed"]
    out = said_by(["runs", "--compare", *(run.path for run in found)])[1]
    assert "seeds.weights: 0 and 1" in out
    assert "equal keys" in said_by(["runs", "--compare", found[0].path, found[0].path])[1]


def test_the_printed_command_finds_the_run_again(runs):
    for run in find_runs([runs]):
        if run.values["state"] == "finished" and run.values["seeds.role"] == "student":
            words = shlex.split(command_of(run.path))
            assert words[0] == "kdprune"
            status, _, said = said_by(words[1:])
            assert status == 0, said
            assert f"{run.path} is finished" in said
    assert len(find_runs([runs])) == 6  # nothing was trained

"""`import kdprune`: whole runs with objects of one's own, the pieces of a loop, and a process that stays as it was."""

from __future__ import annotations

import copy
import doctest
import importlib
import io
import logging
import os
import random
import re
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from helpers import REPO, config_of
from PIL import Image
from torch import nn

import kdprune
import kdprune.models
from kdprune import losses
from kdprune.config import to_dict
from kdprune.data.sources import open_source
from kdprune.losses import LossInput
from kdprune.models.structure import structure
from kdprune.pipeline.train import run as run_pipeline

FEW = {"data": {"augment": "crop(1)"}, "train": {"steps": 6, "batch_size": 64, "lr": 0.05, "precision": "no"}}
HEAVY = {"torch", "torchvision", "timm", "numpy", "accelerate", "datasets", "scipy", "sklearn", "PIL", "safetensors"}
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (REPO / "docs" / "api.md").read_text(), re.MULTILINE | re.DOTALL)


class Net(nn.Module):
    """A network that timm does not know."""

    def __init__(self, width: int = 16, classes: int = 10, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Linear(64, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.scale * self.norm(self.body(x.flatten(1))).relu())


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and caches go to the working directory unless they are sent elsewhere."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def pairs() -> tuple[list[Any], list[Any]]:
    """The digits as (array, class) pairs: training and held-out part."""
    sources = (open_source("digits", split) for split in ("train", "test"))
    train, test = ([(np.asarray(source[i]), int(source.labels[i])) for i in range(len(source))] for source in sources)
    return train, test


def net(seed: int = 0, kind: type[Net] = Net, **arguments: Any) -> Net:
    """The same network for the same seed; torch's generator stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(**arguments)


def state_equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# Importing


def loaded_by(line: str) -> set[str]:
    """The heavy packages that a program of one line loads."""
    code = f"import sys\n{line}\nprint(*(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    return set(done.stderr.split()) & HEAVY


@pytest.mark.parametrize(
    "line",
    ["import kdprune; dir(kdprune)",
     "from kdprune.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
     "from kdprune.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass"],
)  # fmt: skip
def test_import_and_help_load_nothing_heavy(line):
    assert not loaded_by(line)


def test_every_public_name_is_there_and_no_other():
    for name in kdprune.__all__:
        assert getattr(kdprune, name) is not None
        assert name in dir(kdprune)
    with pytest.raises(AttributeError, match="trian"):
        kdprune.trian  # noqa: B018
    assert set(losses.__all__) <= set(dir(losses))
    with pytest.raises(AttributeError, match="Lost"):
        losses.Lost  # noqa: B018


def test_own_networks_are_registered_by_an_import_that_says_so():
    line = "import timm; assert not timm.is_model('mlp_64'); import kdprune.models; assert timm.is_model('mlp_64')"
    subprocess.run([sys.executable, "-c", line], cwd=REPO, check=True, timeout=60)


USER = """
from pathlib import Path

import torch
from torch import nn

import kdprune
from kdprune import Interrupted, Result, Subset, Targets, Teacher, Views, losses, select


def whole(net: nn.Module, teachers: list[nn.Module]) -> float:
    try:
        result: Result = kdprune.train({"seed": 1}, data=([], []), student=net, teachers=teachers)
    except Interrupted:
        return 0.0
    path: Path = result.path
    figures: dict[str, object] = kdprune.evaluate(path, class_mass="all")
    written: int = kdprune.cache({}, teachers=net, verify=True).written
    module: nn.Module = kdprune.load_student(path, normalise=True)
    result.student().eval()
    return result.top1 or float(written + len(figures) + len(list(module.parameters())))


def pieces(net: nn.Module) -> torch.Tensor:
    subset: Subset = select([0, 1], 0.5, balanced=True)
    views = Views("digits", "crop(1)+flip", subset=subset)
    targets = Targets([Teacher(net, views), Teacher("RUN", views)], views, cache=Path("x"))
    loss = losses.Loss("kd", temperature=2.0)
    total = torch.zeros(())
    for batch in views.batches(8, epochs=1):
        total = total + loss(net(views.normalise(batch.images)), targets(batch), batch.labels)
    return total
"""


def test_types_hold_under_mypy_strict(tmp_path):
    Path("user.py").write_text(USER)
    wrong = USER.replace('{"seed": 1}', "1").replace("epochs=1", 'epochs="1"')
    Path("wrong.py").write_text(wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--ignore-missing-imports",
         "--cache-dir", str(REPO / ".mypy_cache" / "strict"), "user.py", "wrong.py"],
        capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(REPO)}, timeout=280,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(lines) == 2, done.stdout + done.stderr
    assert all(line.startswith("wrong.py") and "[arg-type]" in line for line in lines)
    assert (REPO / "kdprune" / "py.typed").is_file()


# Documentation


def documented() -> list[Any]:
    """What the public names stand for, with their methods."""
    return [getattr(kdprune, name) for name in kdprune.__all__ if name not in ("losses", "Config", "Interrupted")] + [
        losses.Loss
    ]


@pytest.mark.parametrize("what", documented(), ids=lambda what: what.__name__)
def test_the_examples_in_a_docstring_run(what):
    module = importlib.import_module(what.__module__)
    found = [test for test in doctest.DocTestFinder().find(what, module=module) if test.examples]
    assert what.__name__ in [test.name for test in found], "has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        test.globs = {}
        assert not runner.run(test).failed


@pytest.mark.parametrize("block", BLOCKS[:-1])
def test_the_examples_of_the_page_run(block):
    exec(compile(block, "docs/api.md", "exec"), {"__name__": "docs"})


def test_a_loop_of_ones_own_takes_25_lines_and_one_import(capfd):
    block = BLOCKS[-1]
    assert len(block.splitlines()) <= 25
    assert len(re.findall(r"^(?:from|import) kdprune", block, re.MULTILINE)) == 1
    names: dict[str, Any] = {}
    exec(compile(block, "docs/api.md", "exec"), names)
    assert names["accuracy"] > 0.8
    assert names["teacher"].test_top1 > 0.9
    assert names["targets"].forward_samples == 4 * len(names["views"].subset.ids)  # the second four epochs are read
    assert not any(capfd.readouterr())


# Objects of one's own


def test_a_timm_model_as_a_module_trains_as_it_does_by_name(digits_teacher):
    settings = {**FEW, "subset": {"keep_fraction": 0.5}}
    named = kdprune.train(
        {**settings, "student": {"model": "cifar_resnet8"}, "teacher": {"models": [str(digits_teacher)]}}
    )
    torch.manual_seed(0)  # the run's seed, as the named student has it
    student = timm.create_model("cifar_resnet8", num_classes=10, in_chans=1)
    before = {name: x.clone() for name, x in student.state_dict().items()}
    teacher = kdprune.load_student(digits_teacher)
    own = kdprune.train(settings, student=student, teachers=teacher)
    assert state_equal(named.student(), own.student())
    assert named.top1 == own.top1
    assert named.summary["teacher"][0]["test_top1"] == own.summary["teacher"][0]["test_top1"]
    assert all(torch.equal(x, before[name]) for name, x in student.state_dict().items())
    assert student.training
    assert not teacher.training
    assert "CifarResNet" in own.path.name


def test_data_at_hand_trains_as_the_same_data_by_name_does(pairs):
    settings = {**FEW, "student": {"model": "mlp_64"}}
    by_name = kdprune.train(settings)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))})
    table = {
        name: datasets.Dataset.from_dict(
            {"image": [{"bytes": png(image), "path": None} for image, _ in part], "label": [y for _, y in part]},
            features=features,
        )
        for name, part in zip(("train", "validation"), pairs, strict=True)
    }
    tensors = tuple([(torch.tensor(image)[None], y) for image, y in part] for part in pairs)
    for data in (pairs, tensors, table):
        result = kdprune.train(settings, data=data)
        assert state_equal(by_name.student(), result.student())
        assert by_name.top1 == result.top1 == kdprune.evaluate(result, data=data)["top1"]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_data_without_a_held_out_part_is_trained_on_and_not_evaluated(pairs):
    result = kdprune.train(FEW, data=pairs[0], student=net())
    assert result.top1 is None
    assert "none" in repr(result)
    with pytest.raises(ValueError, match="no held-out part"):
        kdprune.evaluate(result, data=pairs[0])


def test_a_module_is_loaded_and_evaluated_with_one_of_its_kind(pairs):
    result = kdprune.train(FEW, data=pairs, student=net())
    with pytest.raises(ValueError, match=r"Net.*model="):
        kdprune.load_student(result.path)
    with pytest.raises(ValueError, match="data="):
        kdprune.evaluate(result.path, model=net())
    with pytest.raises(ValueError, match=r"body\.weight"):
        kdprune.load_student(result.path, model=net(width=8))
    loaded = kdprune.load_student(result.path, model=net(seed=5))
    assert state_equal(loaded, result.student())
    assert kdprune.evaluate(result.path, data=pairs, model=net(seed=5))["top1"] == result.top1
    deployed = kdprune.load_student(result, normalise=True)
    images = torch.from_numpy(np.stack([image for image, _ in pairs[1]]))[:, None]
    labels = torch.tensor([label for _, label in pairs[1]])
    assert (deployed(images).argmax(1) == labels).double().mean().item() == pytest.approx(result.top1)


def test_the_same_objects_find_the_run_and_changed_ones_make_another(pairs):
    teacher = net(1, width=8)

    def train(student: nn.Module, teacher: nn.Module, data: Any = pairs) -> Path:
        return kdprune.train({**FEW, "train": {**FEW["train"], "steps": 1}}, data, student, teacher).path

    first = train(net(), teacher)
    written = (first / "student.safetensors").stat().st_mtime_ns
    assert train(net(), net(1, width=8)) == first
    assert (first / "student.safetensors").stat().st_mtime_ns == written
    with torch.no_grad():
        teacher.head.bias[0] += 1
    relabelled = ([(pairs[0][0][0], 9 - pairs[0][0][1]), *pairs[0][1:]], pairs[1])
    others = [
        train(net(), teacher),  # weights of the teacher
        train(net(3), net(1, width=8)),  # of the student
        train(net(scale=2.0), net(1, width=8)),  # a plain attribute, which no weight shows
        train(net(), net(1, width=8), relabelled),
    ]
    assert len({first, *others}) == 5


def test_structure_sees_the_code_of_a_class_and_not_its_weights():
    class Other(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.body(x.flatten(1))).sigmoid())

    Other.__qualname__, Other.__module__ = Net.__qualname__, Net.__module__
    assert structure(net(0)) == structure(net(1))
    assert len({structure(net()), structure(Other()), structure(net(width=8)), structure(net(scale=2.0))}) == 4


class Scaled(nn.Module):
    """Holds what it is given, as a function, an object, a tensor or a list of them."""

    def __init__(self, what: object) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def times(factor: float):
    return lambda x: factor * x


def tied(together: bool) -> nn.Module:
    parts = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    if together:
        parts[1].weight = parts[0].weight
    return parts


def with_hook(factor: float) -> nn.Module:
    module = nn.Linear(4, 4)
    module.register_forward_hook(lambda part, given, out: factor * out)
    return module


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Scaled(torch.relu), lambda: Scaled(torch.tanh)),
        (lambda: Scaled(times(1)), lambda: Scaled(times(2))),
        (lambda: Scaled({"scale": 1}), lambda: Scaled({"scale": 2})),
        (lambda: Scaled(torch.tensor(1.0)), lambda: Scaled(torch.tensor(2.0))),
        (lambda: Scaled([np.zeros(3)]), lambda: Scaled([np.ones(3)])),
        (lambda: Scaled(partial(torch.clamp, min=0)), lambda: Scaled(partial(torch.clamp, min=1))),
        (lambda: Scaled(SimpleNamespace(scale=1)), lambda: Scaled(SimpleNamespace(scale=2))),
        (lambda: Scaled((nn.Softmax(0),)), lambda: Scaled((nn.Softmax(1),))),
        (lambda: with_hook(1), lambda: with_hook(2)),
        (lambda: tied(True), lambda: tied(False)),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation=torch.relu),
         lambda: nn.TransformerEncoderLayer(4, 2, activation=torch.tanh)),
        (lambda: type("Of", (Net,), {"factor": 1})(), lambda: type("Of", (Net,), {"factor": 2})()),
        (lambda: type("Of", (Net,), {"factor": property(lambda self: 1)})(),
         lambda: type("Of", (Net,), {"factor": property(lambda self: 2)})()),
        (lambda: type("Of", (Net,), {"scaled": lambda self, x=1: x})(),
         lambda: type("Of", (Net,), {"scaled": lambda self, x=2: x})()),
    ],
)  # fmt: skip
def test_structure_sees_whatever_a_module_holds(one, other):
    assert structure(one()) == structure(one()) == structure(copy.deepcopy(one()))
    assert structure(one()) != structure(other())


def test_structure_takes_no_weights_of_parts_that_an_attribute_holds_once_more():
    def module() -> nn.Module:
        parts = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        parts.ends, parts.first = [parts[0], parts[1]], {"weight": [parts[0].weight]}
        return parts

    assert structure(module()) == structure(module())


def test_structure_ends_where_a_module_holds_itself():
    module = Scaled([])
    module.what.append(module.what)
    holder = SimpleNamespace()
    holder.back = holder
    assert structure(module) != structure(Scaled(holder))


def test_frozen_weights_are_part_of_the_key():
    frozen = net()
    frozen.body.requires_grad_(False)
    first, second = (kdprune.train(FEW, student=student) for student in (frozen, net()))
    assert first.path != second.path
    assert torch.equal(first.student().body.weight, frozen.body.weight)


def test_calls_from_threads_come_one_after_the_other():
    def run(seed: int, output: str) -> dict[str, torch.Tensor]:
        settings = {**FEW, "student": {"model": "mlp_64"}, "seed": seed, "output": output}
        return kdprune.train(settings).student().state_dict()

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: run(seed, "together"), range(4)))
    for seed, state in enumerate(together):
        assert all(torch.equal(x, y) for x, y in zip(state.values(), run(seed, "alone").values(), strict=True))
    assert not PartialState._shared_state


def test_features_are_compared_by_layers_that_are_named():
    distill = {"loss": "fitnet", "layers": [["body", "body"]], "alpha": 0.5}
    result = kdprune.train({**FEW, "distill": distill}, student=net(), teachers=net(1, width=32))
    assert result.summary["loss"] == "fitnet"


def test_two_modules_teach_as_one_and_fill_a_cache():
    teachers = [net(1), net(2, width=8)]
    settings = {**FEW, "teacher": {"views": 1, "weights": [1, 3], "targets": "cached"}}
    filled = kdprune.cache(settings, teachers=teachers)
    assert (filled.written, filled.views, len(filled.folders)) == (1347, 1, 2)
    result = kdprune.train(settings, student=net(), teachers=teachers)
    assert [teacher["weight"] for teacher in result.summary["teacher"]] == [0.25, 0.75]
    assert result.summary["cost"]["target_caching"]["forward_samples"] == 0


def test_a_baseline_comes_with_the_result():
    result = kdprune.train({**FEW, "baseline": True}, student=net(), teachers=net(1))
    assert result.baseline is not None
    assert result.baseline.summary["teacher"] == []
    assert result.summary["teacher"][0]["name"] == "Net"
    assert not state_equal(result.student(), result.baseline.student())


NOTHING = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"student": NOTHING}, r"student Sequential.*\(2, 7\).*10 classes"),
        ({"student": nn.Linear(3, 10)}, r"student Linear.*N×1×8×8"),
        ({"student": nn.Identity()}, r"student Identity"),
        ({"student": "cifar_resnet8"}, "student: str"),
        ({"teachers": [Net(), NOTHING]}, r"teacher Sequential.*\(2, 7\)"),
        ({"teachers": ["cifar_resnet8"]}, "teacher: str"),
        ({"settings": {"teacher": {"models": ["mlp_64"]}}, "teachers": Net()}, "teacher.models"),
        ({"settings": {"student": {"model": "mlp_64"}}, "student": Net()}, "student.model"),
        ({"settings": {"student": {"drop_rate": 0.5}}, "student": Net()}, "student.drop_rate"),
        ({"settings": {"data": {"dataset": "torch/mnist"}}, "data": [(np.zeros((8, 8), np.uint8), 0)]}, "data.dataset"),
        ({"settings": {"student": {"model": "given:Net"}}}, "student=…"),
        ({"settings": {"teacher": {"models": ["given:Net"]}}}, "teachers=…"),
        ({"settings": {"data": {"dataset": "given:list"}}}, "data=…"),
        ({"settings": {"train": {"lr": "fast"}}}, "--train.lr"),
        ({"settings": {"trian": {}}}, "did you mean 'train'"),
        ({"settings": "train"}, "settings by name"),
        ({"settings": {"train": {"batch_size": 0}}}, "--train.batch_size"),
        ({"settings": {"distill": {"loss": "fitnet"}}, "student": Net(), "teachers": Net()}, "--distill.layers"),
        ({"settings": {"distill": {"loss": "fitnet", "layers": [["bdy", "body"]]}}, "student": Net(),
          "teachers": Net()}, "'body'"),
        ({"data": {"training": []}}, "'train'"),
        ({"data": ([], [], [])}, "pair"),
        ({"data": iter([])}, "index"),
        ({"data": [(np.zeros((8, 8), np.float32), 0), (np.zeros((8, 8), np.float32), 1)]}, "uint8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(arguments, words, tmp_path):
    settings = arguments.pop("settings", {})
    with pytest.raises(ValueError, match=words):
        kdprune.train(settings, **arguments)
    assert not list(tmp_path.glob("runs/**/*.*"))


def test_a_run_of_given_objects_is_refused_on_the_command_line(capsys):
    from kdprune.cli import main

    result = kdprune.train(FEW, student=net())
    assert main(["train", "--config", str(result.path / "config.yaml")]) == 2
    assert "student=…" in capsys.readouterr().err


def test_settings_may_be_a_config_and_stay_as_they_are(tmp_path):
    config = config_of(tmp_path, {"train.steps": 2})
    before = to_dict(config)
    result = kdprune.train(config)
    assert to_dict(config) == before
    assert result.path.parent == tmp_path
    assert result.path == run_pipeline(config)[0].path


def test_what_is_warned_of_is_in_the_result(capfd):
    result = kdprune.train({**FEW, "teacher": {"augment": "flip"}}, student=net(), teachers=net(1))
    assert any("--teacher.augment" in message for message in result.warnings)
    assert any("near chance" in message for message in result.warnings)
    assert not any(capfd.readouterr())


# The process stays as it was


def surroundings() -> dict[str, Any]:
    """All that a library has no business to leave changed."""
    loggers = [logging.getLogger(), logging.getLogger("kdprune"), logging.getLogger("accelerate")]
    return {
        "torch": torch.get_rng_state().tolist(),
        "cuda": [x.tolist() for x in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else None,
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "logging": [(log.level, log.propagate, log.disabled, list(log.handlers)) for log in loggers],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "accelerate": [dict(kind._shared_state) for kind in (PartialState, AcceleratorState, GradientState)],
        "folder": os.getcwd(),
        "hooks": (sys.excepthook, list(sys.meta_path)),
    }


def calls() -> dict[str, Any]:
    def stopped() -> None:
        class Stops(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.training and len(x) > 2:  # two images are for trying it out
                    os.kill(os.getpid(), signal.SIGINT)
                return super().forward(x)

        with pytest.raises(kdprune.Interrupted):
            kdprune.train(FEW, student=net(kind=Stops))

    def refused() -> None:
        with pytest.raises(ValueError, match="student"):
            kdprune.train(FEW, student=nn.Identity())

    def failed() -> None:
        class Fails(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.training and len(x) > 2:  # two images are for trying it out
                    raise RuntimeError("in the middle of a step")
                return super().forward(x)

        with pytest.raises(RuntimeError, match="in the middle"):
            kdprune.train(FEW, student=net(kind=Fails))

    def pieces() -> None:
        views = kdprune.Views("digits", "crop(1)", subset=kdprune.select("digits", 0.1))
        targets = kdprune.Targets(kdprune.Teacher(net(1), views), views, cache="targets")
        batches = views.batches(16, epochs=1)
        targets(next(batches))
        targets(next(batches))

    def whole() -> None:
        result = kdprune.train(FEW, student=net(), teachers=net(1))
        kdprune.evaluate(result)
        kdprune.load_student(result)

    bf16 = {**FEW, "train": {**FEW["train"], "precision": "bf16"}}
    return {
        "whole": whole, "bf16": lambda: kdprune.train(bf16, student=net()), "stopped": stopped, "refused": refused,
        "failed": failed, "pieces": pieces, "cache": lambda: kdprune.cache(FEW, teachers=net(1)),
    }  # fmt: skip


@pytest.mark.parametrize("call", calls())
@pytest.mark.parametrize("with_accelerator", [False, True], ids=["", "own accelerator"])
def test_nothing_global_stays_changed_and_nothing_is_printed(call, with_accelerator, capfd, monkeypatch):
    model = nn.Linear(2, 2)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3) if with_accelerator else None
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    if accelerator is not None:
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    logging.getLogger("kdprune").setLevel(logging.ERROR)  # as a program may that does not want to hear of warnings
    torch.manual_seed(123)
    random.seed(4)
    np.random.seed(5)
    before = surroundings()
    calls()[call]()
    after = surroundings()
    assert {name: value for name, value in after.items() if value != before[name]} == {}
    assert not any(capfd.readouterr())
    if accelerator is not None:
        assert AcceleratorState().mixed_precision == accelerator.mixed_precision == "no"
        assert accelerator.gradient_accumulation_steps == 3
        with accelerator.accumulate(model):
            accelerator.backward(model(torch.ones(1, 2)).sum())
            optimizer.step()
        assert not accelerator.sync_gradients


# Pieces


def test_select_gives_the_subset_that_a_run_keeps(pairs):
    settings = {**FEW, "subset": {"keep_fraction": 0.25, "balanced": True}, "student": {"model": "mlp_64"}}
    result = kdprune.train({**settings, "train": {**FEW["train"], "steps": 1}})
    run = kdprune.Subset.load(result.path / "subset.json")
    subset = kdprune.select("digits", 0.25, balanced=True)
    assert subset.hash == run.hash
    assert subset.fingerprint == run.fingerprint
    labels = [label for _, label in pairs[0]]
    for data in (labels, np.array(labels), torch.tensor(labels), pairs, pairs[0]):
        assert kdprune.select(data, 0.25, balanced=True).hash == run.hash
    subset.save("subset.json")
    assert len(kdprune.Views("digits", subset="subset.json").subset.ids) == len(run.ids)
    assert (kdprune.Views(pairs, subset=kdprune.select(labels, 0.25)).subset.ids < 1347).all()
    assert 3 not in np.array(labels)[kdprune.select("digits", 0.5, without_classes=["3"]).ids]
    with pytest.raises(ValueError, match="other data"):
        kdprune.Views("digits", subset=kdprune.select(labels[1:], 0.5))
    with pytest.raises(ValueError, match="did you mean 'random'"):
        kdprune.select("digits", 0.5, "randon")


def test_a_loop_meets_what_a_run_meets(digits_teacher):
    """Plain SGD on views, targets and loss, step by step, gives the weights of the run."""
    settings: dict[str, Any] = {
        **FEW, "subset": {"keep_fraction": 0.5}, "teacher": {"models": [str(digits_teacher)]},
        "distill": {"loss": "kd + 0.5*dkd", "alpha": 0.75},
        "train": {**FEW["train"], "sched": "none", "weight_decay": 0.0, "steps": 12},
    }  # fmt: skip
    result = kdprune.train({**settings, "student": {"model": "mlp_64"}})
    views = kdprune.Views("digits", "crop(1)", subset=kdprune.select("digits", 0.5))
    teacher = kdprune.Teacher(digits_teacher, views, precision="no")
    assert teacher.test_top1 == result.summary["teacher"][0]["test_top1"]
    targets, loss = kdprune.Targets(teacher, views), losses.Loss("kd + 0.5*dkd", temperature=4.0)
    torch.manual_seed(0)
    student = timm.create_model("mlp_64", num_classes=10, in_chans=1, img_size=8)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for batch in views.batches(64, epochs=12 * 64 / 674):
        logits = student(views.normalise(batch.images))
        kd = loss(logits, targets(batch), batch.labels)
        (0.25 * nn.functional.cross_entropy(logits, batch.labels) + 0.75 * kd).backward()
        optimizer.step()
        optimizer.zero_grad()
    for ours, runs in zip(student.parameters(), result.student().parameters(), strict=True):
        torch.testing.assert_close(ours, runs, rtol=1e-4, atol=1e-5)


def test_a_loop_and_a_run_share_a_cache(digits_teacher):
    cached = {"models": [str(digits_teacher)], "targets": "cached", "views": 2, "cache": "shared"}
    filled = kdprune.cache({**FEW, "teacher": cached, "train": {**FEW["train"], "steps": 60}})
    views = kdprune.Views("digits", "crop(1)", subset=kdprune.select("digits", 0.2))
    targets = kdprune.Targets(kdprune.Teacher(digits_teacher, views, precision="no"), views, cache="shared")
    for batch in views.batches(64, epochs=2, views=2):
        targets(batch)
    assert filled.written == 2 * 1347
    assert targets.forward_samples == 0


def test_targets_of_several_teachers_online_and_cached_agree(pairs):
    views = kdprune.Views(pairs, "crop(1)")
    teachers = [kdprune.Teacher(net(seed), views, precision="no") for seed in (1, 2)]
    online = kdprune.Targets(teachers, views, weights=[1, 3])
    cached = kdprune.Targets(teachers, views, weights=[1, 3], cache="both", top_k=9)
    batch = next(views.batches(32, epochs=1))
    torch.testing.assert_close(online(batch), cached(batch), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(cached(batch), cached(batch), rtol=0, atol=0)
    assert (online.forward_samples, cached.forward_samples) == (64, 64)
    for arguments, words in (
        ({"top_k": 3}, "top_k"), ({"weights": [1]}, "weights"), ({"top_k": 10, "cache": "x"}, "top_k"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            kdprune.Targets(teachers, views, **arguments)
    with pytest.raises(ValueError, match="teachers"):
        kdprune.Targets([], views)


def test_a_teacher_has_weights_and_the_data_s_classes(digits_teacher, pairs):
    views = kdprune.Views([pair for pair in pairs[0] if pair[1] < 9])
    with pytest.raises(ValueError, match=r"10 classes, the data has 9"):
        kdprune.Teacher(digits_teacher, views)
    with pytest.raises(ValueError, match=r"\(2, 10\)"):
        kdprune.Teacher(net(), views)
    with pytest.raises(ValueError, match="pretrained"):
        kdprune.Teacher("cifar_resnet8", views)
    teacher = kdprune.Teacher(Net(classes=9), views)
    assert teacher.test_top1 is None
    with pytest.raises(ValueError, match="held-out"):
        views.held_out()
    batch = next(views.batches(4, 1))
    assert not teacher(batch.images).requires_grad
    assert views.normalise(batch.images, teacher.spec).shape == (4, 1, 8, 8)


def test_views_of_large_images_need_a_size(pairs):
    with pytest.raises(ValueError, match="image_size"):
        kdprune.Views(pairs, memory_gb=0)
    views = kdprune.Views(pairs, "rrc", image_size=12, memory_gb=0, workers=0)
    assert next(views.batches(4, epochs=1)).images.shape == (4, 1, 12, 12)
    assert next(views.held_out(4)).images.shape == (4, 1, 12, 12)


def test_a_loss_takes_tensors_or_a_batch():
    student, teacher = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5)
    labels = torch.arange(6) % 5
    loss = losses.Loss("0.5*kd + dkd", temperature=3.0)
    value = loss(student, teacher, labels)
    assert torch.equal(value, loss(LossInput(student, teacher, labels)))
    expected = 0.5 * losses.Loss("kd", 3.0)(student, teacher) + losses.Loss("dkd", 3.0)(student, teacher, labels)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert student.grad is not None
    with pytest.raises(ValueError, match="labels"):
        loss(student, teacher)
    with pytest.raises(ValueError, match="teacher"):
        loss(student)
    with pytest.raises(ValueError, match="did you mean 'kd'"):
        losses.Loss("kdd")

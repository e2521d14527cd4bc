"""The loss of one step: (1 - α)·CE + α·KD, and what it leaves alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdprune.data.reader import Batch
from kdprune.losses.common.sum import build_loss
from kdprune.models.build import build_student
from kdprune.models.inputs import Inputs
from kdprune.models.spec import InputSpec
from kdprune.teachers.targets import OnlineTargets
from kdprune.teachers.teacher import make_teacher
from kdprune.training.step import MEASURED, Distillation, DistillStep

CPU = torch.device("cpu")
T = 3.0


class Linear(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(16, 5)

    def forward(self, x_NCHW):
        return self.fc(x_NCHW.flatten(1))


class Given:
    """Targets that were worked out by hand."""

    temperature, features, forward_passes = T, None, 0

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __call__(self, batch: Batch) -> torch.Tensor:
        return self.logits


@pytest.fixture
def case():
    torch.manual_seed(0)
    batch = Batch(
        torch.arange(7), torch.zeros(7, dtype=torch.int64), torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8),
        torch.randint(0, 5, (7,)),
    )  # fmt: skip
    inputs = Inputs(InputSpec(1, 4, (0.5,), (0.25,)), CPU, False)
    return batch, inputs, Linear(1), 3 * torch.randn(7, 5)


def step_of(case, **options) -> DistillStep:
    _, inputs, student, teacher_logits = case
    distillation = Distillation(build_loss("kd", T), Given(teacher_logits), lambda _: 1.0)
    return DistillStep(student, inputs, distillation, **options)


def literal(case, smoothing: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """CE and T²·KL in float64, sums written out."""
    batch, inputs, student, teacher_logits = case
    log_q = torch.log_softmax(student(inputs(batch.images)).double(), 1)
    y = F.one_hot(batch.labels, 5) if batch.labels.ndim == 1 else batch.labels
    y = (1 - smoothing) * y + smoothing / 5
    ce = -(y * log_q).sum(1).mean()
    p = torch.softmax(teacher_logits.double() / T, 1)
    log_q_t = torch.log_softmax(student(inputs(batch.images)).double() / T, 1)
    return ce, T**2 * (p * (p.log() - log_q_t)).sum(1).mean()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_the_weighted_sum_and_smoothing_is_for_the_cross_entropy(case, alpha, smoothing, mixed):
    if mixed:
        case[0].labels = torch.softmax(torch.randn(7, 5), 1)
    result = step_of(case, smoothing=smoothing)(case[0], alpha)
    ce, divergence = literal(case, smoothing)
    assert result.task_loss.item() == pytest.approx(ce.item(), rel=1e-5)
    assert result.kd_loss.item() == pytest.approx(divergence.item(), rel=1e-5)
    assert result.loss.item() == pytest.approx(((1 - alpha) * ce + alpha * divergence).item(), rel=1e-5)
    assert result.output.shape == (7, 5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_at_its_ends_alpha_leaves_one_gradient(case, alpha):
    student = case[2]
    result = step_of(case)(case[0], alpha)
    got = torch.autograd.grad(result.loss, list(student.parameters()))
    expected = torch.autograd.grad(literal(case)[int(alpha)], list(student.parameters()))
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_without_a_teacher_the_loss_is_the_cross_entropy(case):
    batch, inputs, student, _ = case
    result = DistillStep(student, inputs, None)(batch, 0.7)
    assert result.loss.item() == result.task_loss.item() == pytest.approx(literal(case)[0].item(), rel=1e-5)
    assert result.kd_loss == 0


def test_without_labels_there_is_no_cross_entropy(case):
    case[0].labels = torch.full((7,), -1)
    result = step_of(case, labelled=False)(case[0], 1.0)
    assert result.task_loss == 0
    assert result.loss.item() == pytest.approx(result.kd_loss.item())
    assert result.loss.isfinite()


def test_what_is_measured_is_summed_over_the_batch(case):
    batch, inputs, student, teacher = case
    result = step_of(case)(batch, 0.3)
    measured = dict(zip(MEASURED, result.measured.tolist(), strict=True))
    guess = student(inputs(batch.images)).argmax(1)
    p = torch.softmax(teacher / T, 1)
    assert measured["samples"] == 7
    for name in ("loss", "task_loss", "kd_loss"):
        assert measured[name] == pytest.approx(7 * getattr(result, name).item(), rel=1e-5)
    assert measured["correct"] == (guess == batch.labels).sum()
    assert measured["agreement"] == (guess == teacher.argmax(1)).sum()
    assert measured["teacher_entropy"] == pytest.approx(-(p * p.log()).sum().item(), rel=1e-4)
    assert not result.measured.requires_grad


@pytest.mark.parametrize("fold", [False, True])
def test_a_teacher_is_out_of_reach_of_training(case, fold):
    """Its answers, parameters and running statistics stay, whatever is put into training mode."""
    batch, inputs, student, _ = case
    built = build_student("cifar_resnet8", 5, channels=1, image_size=4, mean=(0.5,), std=(0.25,), drop_rate=0.5)
    built.model.train()
    for _ in range(3):
        built.model(torch.randn(8, 1, 4, 4))  # running statistics that are not the initial ones
    built.model.eval()
    teacher = make_teacher(built, "here", batch.images, CPU, torch.float32, fold, False)
    before = copy.deepcopy(built.model.state_dict()), copy.deepcopy(teacher.engine.network.state_dict())
    answers = teacher(batch.images)
    loss = build_loss("kd", T)
    step = DistillStep(student, inputs, Distillation(loss, OnlineTargets([teacher], T), lambda _: 0.5))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(5):
        for module in (student, loss):
            module.train()
        result = step(batch, 0.5)
        result.loss.backward()
        optimizer.step()
    assert not any(module.training for module in teacher.engine.network.modules())
    assert not isinstance(teacher.engine, torch.nn.Module)  # so nothing finds it
    assert all(p.grad is None and not p.requires_grad for p in teacher.engine.network.parameters())
    for now, then in zip((built.model, teacher.engine.network), before, strict=True):
        assert all(torch.equal(tensor, then[name]) for name, tensor in now.state_dict().items())
    assert torch.equal(teacher(batch.images), answers)
    assert not answers.requires_grad
    built.model.eval()
    with torch.no_grad():
        assert torch.allclose(answers, built.model(teacher.inputs(batch.images)), atol=1e-4)

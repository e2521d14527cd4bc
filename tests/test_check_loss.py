"""The public contract check of losses: registered losses and a third party's pass it, broken ones do not."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
import torch
from helpers import REPO, install, need_fake_gpus
from torch.nn import functional as F

from kdprune import registry
from kdprune.losses.common.base import DistillLoss
from kdprune.losses.common.features import FeatureLoss, as_vector
from kdprune.losses.common.sum import build_loss
from kdprune.losses.kd import KD
from kdprune.testing import check_loss
from kdprune.testing.loss_batch import example_batch


@pytest.mark.parametrize("name", registry.names("losses"))
def test_every_registered_loss_passes(name):
    check_loss(name)


@pytest.mark.parametrize("expression", ["kd + 2*logit_std(loss='dkd') + 100*fitnet + 0.8*crd", "kd + rkd"])
def test_a_sum_of_losses_passes(expression):
    check_loss(build_loss, expression=expression)


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """The loss of docs/losses.md as an installed package: a module and its metadata, on the path."""
    page = (REPO / "docs" / "losses.md").read_text()
    module = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class L1" in code)
    install(monkeypatch, tmp_path, "acme_losses", module, {"losses": "l1 = acme_losses:L1"})


def test_a_third_partys_loss_is_found_by_its_entry_point_and_passes(third_party):
    assert "l1" in registry.names("losses")
    assert "acme_losses" not in sys.modules, "names are known without importing what they name"
    check_loss("l1")
    batch = example_batch()
    expected = (batch.student_logits - batch.teacher_logits).abs().mean()
    torch.testing.assert_close(build_loss("0.5*l1", 4.0)(batch), 0.5 * expected)


def test_constructor_arguments_are_handed_on():
    check_loss(KD, temperature=20)
    check_loss("logit_std", loss="dkd + nkd")
    with pytest.raises(AssertionError, match=r"KD.*\n.*check_construction.*temperature"):
        check_loss(KD, temperature=-1)


# --- broken losses --------------------------------------------------------------------------------------------------


class Difference(DistillLoss):
    """A right loss, from which the broken ones below differ by one mistake each."""

    def per_sample(self, batch):
        return (batch.student_logits - batch.teacher_logits).abs().sum(1)


class HintLoss(FeatureLoss):
    """Likewise for features."""

    def build(self, student_features, teacher_features):
        self.heads = torch.nn.ModuleList(
            torch.nn.Linear(as_vector(s).shape[1], as_vector(t).shape[1], device=s.device)
            for s, t in self.features(student_features, teacher_features)
        )

    def per_sample(self, batch):
        pairs = zip(self.heads, self.pairs(batch), strict=True)
        return sum((head(as_vector(s)) - as_vector(t)).square().mean(1) for head, (s, t) in pairs)


class DividesByClassesToo(Difference):
    def compute(self, batch):
        return self.per_sample(batch).mean() / batch.student_logits.shape[1]


class SumsOverTheBatch(Difference):
    def compute(self, batch):
        return self.per_sample(batch).sum()


class GivesTheMeanToEverySample(Difference):
    def per_sample(self, batch):
        loss_N = super().per_sample(batch)
        return loss_N.mean().expand_as(loss_N)


class MixesUpSamples(Difference):
    def per_sample(self, batch):
        return super().per_sample(batch).roll(1)


class GivesClassesForSamples(Difference):
    def per_sample(self, batch):
        return (batch.student_logits - batch.teacher_logits).abs().sum(0)


class HasNoLossOfASample(DistillLoss):
    def compute(self, batch):
        return (batch.student_logits - batch.teacher_logits).abs().sum(1).mean()


class SaysThatItIsRelational(Difference):
    relational = True


class IgnoresWeights(Difference):
    def forward(self, batch):
        return self.compute(batch).float()


class IsAVector(Difference):
    def compute(self, batch):
        return self.per_sample(batch)


class IsInDoublePrecision(Difference):
    def compute(self, batch):
        return self.per_sample(batch).double().mean()


class TakesTheLogOfASoftmax(DistillLoss):
    def per_sample(self, batch):
        p_NC, q_NC = batch.teacher_logits.softmax(1), batch.student_logits.softmax(1)
        return (p_NC * (p_NC.log() - q_NC.log())).sum(1)


class HasAnInfiniteGradient(DistillLoss):
    """√ at 0: the softmax of a certain student underflows."""

    def per_sample(self, batch):
        return (batch.student_logits.softmax(1).sqrt() - batch.teacher_logits.softmax(1).sqrt()).square().sum(1)


class NeedsTwoSamples(DistillLoss):
    relational = True

    def compute(self, batch):
        centred_NC = batch.student_logits - batch.student_logits.mean(0)
        return (batch.teacher_logits * centred_NC / centred_NC.norm(dim=0)).square().mean()


class TrainsTheTeacher(HintLoss):
    def pairs(self, batch):
        for student, teacher in self.layers:
            yield batch.student_features[student].float(), batch.teacher_features[teacher].float()


class DoesNotTrainTheStudent(Difference):
    def per_sample(self, batch):
        return super().per_sample(batch).detach() + 0 * batch.student_logits.sum(1)


class HasAnIdleParameter(Difference):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))


class MultipliesBfloat16ByFloat32(HintLoss):
    def pairs(self, batch):
        for student, teacher in self.layers:
            yield batch.student_features[student], batch.teacher_features[teacher].detach()


class ForgetsItsFlag(DistillLoss):
    def per_sample(self, batch):
        labels = batch.labels if batch.labels.ndim == 1 else batch.labels.argmax(1)
        return F.cross_entropy(batch.student_logits, labels, reduction="none")


class CannotUseMixedLabels(DistillLoss):
    needs_labels = True

    def per_sample(self, batch):
        return -batch.student_logits.log_softmax(1).gather(1, batch.labels[:, None])[:, 0]


class ForgetsItsLayers(DistillLoss):
    needs_features = True

    def per_sample(self, batch):
        return batch.student_features["deep"].float().square().mean((1, 2, 3))


class ChangesTheTeachersLogits(DistillLoss):
    def per_sample(self, batch):
        batch.teacher_logits.sub_(batch.teacher_logits.mean(1, keepdim=True))
        return (batch.student_logits - batch.teacher_logits).square().sum(1)


class CountsCalls(Difference):
    calls = 0

    def per_sample(self, batch):
        CountsCalls.calls += 1
        return super().per_sample(batch) / CountsCalls.calls


class KeepsStateOutsideOfBuffers(Difference):
    centre = 0.0

    def compute(self, batch):
        loss = super().compute(batch)
        self.centre = 0.9 * self.centre + 0.1 * loss.detach()
        return loss - self.centre


class WaitsForTheDevice(Difference):
    def compute(self, batch):
        loss = super().compute(batch)
        return loss if loss.item() < 1e6 else loss / 2


class BranchesOnATensor(Difference):
    def compute(self, batch):
        loss = super().compute(batch)
        return loss if loss < 1e6 else loss / 2


class WorksOnTheCPUOnly(Difference):
    def per_sample(self, batch):
        return super().per_sample(batch) * torch.ones(len(batch.student_logits))


class WarnsOfOrdinaryData(Difference):
    def check(self, num_classes):
        warnings.warn("unusual", stacklevel=1)


@pytest.mark.parametrize("right", [Difference, HintLoss])
def test_the_losses_that_are_broken_below_are_right(right):
    check_loss(right)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (DividesByClassesToo, "check_per_sample"),
        (SumsOverTheBatch, "check_per_sample"),
        (GivesTheMeanToEverySample, "check_per_sample"),
        (MixesUpSamples, "check_per_sample"),
        (GivesClassesForSamples, "check_per_sample"),
        (HasNoLossOfASample, "check_per_sample"),
        (SaysThatItIsRelational, "check_per_sample"),
        (IgnoresWeights, "check_per_sample"),
        (IsAVector, "check_scalar"),
        (IsInDoublePrecision, "check_scalar"),
        (MultipliesBfloat16ByFloat32, "check_scalar"),
        (TakesTheLogOfASoftmax, "check_confident_models"),
        (HasAnInfiniteGradient, "check_confident_models"),
        (NeedsTwoSamples, "check_batch_of_one"),
        (TrainsTheTeacher, "check_gradients"),
        (DoesNotTrainTheStudent, "check_gradients"),
        (HasAnIdleParameter, "check_gradients"),
        (ForgetsItsFlag, "check_labels"),
        (CannotUseMixedLabels, "check_labels"),
        (ForgetsItsLayers, "check_construction"),
        (WarnsOfOrdinaryData, "check_construction"),
        (ChangesTheTeachersLogits, "check_determinism"),
        (CountsCalls, "check_determinism"),
        (KeepsStateOutsideOfBuffers, "check_resume"),
        (WaitsForTheDevice, "check_device"),
        (BranchesOnATensor, "check_device"),
        (WorksOnTheCPUOnly, "check_device"),
    ],
)
def test_a_broken_loss_is_named_with_the_check_that_it_fails(broken, check):
    if check == "check_device":
        need_fake_gpus()
    with pytest.raises(AssertionError) as caught:
        check_loss(broken)
    message = str(caught.value)
    assert repr(broken.__name__) in message
    assert f"\n  {check}: " in message

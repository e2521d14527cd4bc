"""A dry step before anything is trained or recorded: what it refuses, and that it changes nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from helpers import config_of, restored_surroundings, train
from torch import Tensor, nn

from kdprune import registry
from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.pipeline.cache import cache
from kdprune.pipeline.given import NOTHING_GIVEN, Given
from kdprune.pipeline.job import Job, make_job
from kdprune.pipeline.rehearsal import rehearse
from kdprune.pipeline.session import open_session
from kdprune.pipeline.teachers import given_teachers
from kdprune.pipeline.train import run
from kdprune.runs.accelerator import make_accelerator

AT_32 = {"data.image_size": 32, "train.steps": 1, "subset.keep_fraction": 0.1}


@contextmanager
def planned(tmp_path, settings, given: Given = NOTHING_GIVEN) -> Iterator[Job]:
    with restored_surroundings():
        config = given.named(config_of(tmp_path, settings))
        yield make_job(config, open_session(config, make_accelerator("no", [], str(tmp_path)), given))


def net(*, norm: bool = False) -> nn.Sequential:
    """Of the digits; its normalisation cannot do with a single image."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6) if norm else nn.ReLU(), nn.Linear(6, 10))


@pytest.mark.parametrize(
    "settings",
    [
        {"student.model": "inception_v3", "teacher.models": "mlp_64"},
        {"teacher.models": ["mlp_64", "inception_v3"]},
        {"teacher.models": "inception_v3", "subset.scorer": "el2n", "subset.selector": "hardest"},
        {"teacher.models": "inception_v3", "subset.scorer": "el2n", "subset.selector": "hardest",
         "record.source": "proxy"},
    ],
)  # fmt: skip
def test_a_model_that_does_not_take_the_images_is_refused_before_anything_is_trained(tmp_path, settings):
    option = "--student.model" if "student.model" in settings else "--teacher.models"
    with pytest.raises(ValueError, match=rf"^{option}: inception_v3 .*1×32×32.*[Kk]ernel size.*made for 299×299"):
        train(tmp_path, {**AT_32, **settings})
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("dynamics*"))


def test_the_cache_command_looks_first_too(tmp_path):
    settings = {**AT_32, "student.model": "inception_v3", "teacher.models": "mlp_64"}
    with restored_surroundings(), pytest.raises(ValueError, match=r"inception_v3 .*1×32×32"):
        cache(config_of(tmp_path, settings))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, whose):
    broken = net()
    with torch.no_grad():
        broken[1].weight[0, 0] = torch.nan
    given = Given(student=broken) if whose == "student" else Given(teachers=(broken,))
    with restored_surroundings(), pytest.raises(ValueError, match=rf"^--{whose}\.models?: .*not finite"):
        run(config_of(tmp_path, {"student.model": "cifar_resnet8"} if whose == "student" else {}), given)


def test_a_student_without_anything_to_train_is_refused(tmp_path):
    settings = {"student.model": "cifar_resnet8"}
    with restored_surroundings(), pytest.raises(ValueError, match=r"^--student\.model: .*cannot be trained"):
        run(config_of(tmp_path, settings), Given(student=net().requires_grad_(False)))


def test_another_number_of_classes_is_refused(tmp_path):
    with planned(tmp_path, {}) as job:
        job.student.model.reset_classifier(7)
        with pytest.raises(ValueError, match=r"^--student\.model: mlp_64 .*\(2, 7\).*10 classes.*\(2, 10\)"):
            rehearse(job, [])


@pytest.mark.parametrize(("batch", "accum", "fits"), [(1, 1, False), (4, 4, False), (4, 2, True)])
def test_a_batch_that_batch_normalisation_refuses(tmp_path, batch, accum, fits):
    settings = {"train.batch_size": batch, "train.grad_accum": accum, "student.model": "cifar_resnet8"}
    with planned(tmp_path, settings, Given(student=net(norm=True))) as job:
        refused = pytest.raises(ValueError, match="on 1 images of 1×8×8: Expected more than 1 value")
        with nullcontext() if fits else refused:
            rehearse(job, [])


def test_a_loss_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    class Endless(DistillLoss):
        def per_sample(self, batch: LossInput) -> Tensor:
            return batch.student_logits.sum(1) / 0

    monkeypatch.setitem(registry._registered["losses"], "endless", Endless)
    settings = {"teacher.models": "mlp_64", "distill.loss": "kd + endless"}
    with pytest.raises(ValueError, match=r"^--student\.model: mlp_64: --distill\.loss kd \+ endless is (nan|-?inf)"):
        train(tmp_path, settings)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"teacher.models": "cifar_resnet8"},
        {"teacher.models": ["cifar_resnet8", "cifar_resnet20"], "student.drop_rate": 0.5},
        {"teacher.models": "cifar_resnet20", "distill.loss": "kd + fitnet + crd"},
        {"teacher.models": "ema", "train.ema": 0.9},
        {"teacher.models": "cifar_resnet8", "subset.dynamic": "infobatch"},
        {"teacher.models": "digits_teacher"},
    ],
)
def test_nothing_changes(tmp_path, digits_teacher, settings):
    settings = {"student.model": "cifar_resnet8", **settings}
    if settings.get("teacher.models") == "digits_teacher":
        settings["teacher.models"] = str(digits_teacher)
    with planned(tmp_path, settings) as job:
        given = given_teachers(job.config, job.session)
        models = [job.student.model, *(built.model for built in given if built), job.loss or nn.Identity()]
        before = [(copy.deepcopy(m.state_dict()), [part.training for part in m.modules()]) for m in models]
        generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        rehearse(job, given)
        assert torch.equal(torch.get_rng_state(), generators[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == generators[1:]
        for model, (state, modes) in zip(models, before, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
            assert [part.training for part in model.modules()] == modes
            assert all(parameter.grad is None for parameter in model.parameters())
            assert not any(part._forward_hooks for part in model.modules())

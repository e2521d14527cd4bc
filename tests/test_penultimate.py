"""The features that a classifier reads, for the families of timm that have different heads."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import kdprune.models  # noqa: F401 -- registers its networks
from kdprune.models.penultimate import Penultimate

# A head that is a linear layer, one with a norm, one with a hidden layer, a 1×1 convolution, layers in a wrapper.
HEADS: dict[str, dict] = {
    "cifar_resnet8": {},
    "resnet10t": {},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 1},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
    "mobilenetv3_small_050": {},
    "resnetv2_18": {},
    "sequencer2d_s": {},
    "caformer_s18": {},
}


@pytest.mark.parametrize("name", HEADS)
def test_features_give_the_logits(name):
    model = timm.create_model(name, num_classes=5, **HEADS[name]).eval()
    tap = Penultimate(model)
    images = torch.randn(3, 3, 32, 32)
    for _ in range(2):
        logits = model(images)
        features = tap.taken()
        assert not features.requires_grad
        weight, bias = tap.classifier.weight.flatten(1), tap.classifier.bias
        torch.testing.assert_close(features @ weight.T + bias, logits)
    tap.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_features_are_those_that_timm_gives():
    model = timm.create_model("resnet10t", num_classes=5).eval()
    tap, images = Penultimate(model), torch.randn(3, 3, 64, 64)
    model(images)
    torch.testing.assert_close(tap.taken(), model.forward_head(model.forward_features(images), pre_logits=True))


def test_a_model_without_classes_is_refused():
    with pytest.raises(ValueError, match=r"CifarResNet is Identity.*num_classes"):
        Penultimate(timm.create_model("cifar_resnet8", num_classes=0))


def test_two_classifiers_are_refused():
    with pytest.raises(ValueError, match=r"VisionTransformerDistilled has 2 classifiers \(Linear, Linear\)"):
        Penultimate(timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, depth=1))


def test_logits_that_another_layer_gives_are_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    Penultimate(model)
    with pytest.raises(ValueError, match="'0' puts out"):
        model(torch.randn(2, 4))

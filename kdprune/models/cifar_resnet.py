"""The small residual networks of the CIFAR papers, registered in timm (importing this file is enough).

`cifar_resnetD` are the 6n+2-layer networks of He et al. 2016 (§4.2): a 3×3 stem, three stages of n blocks with 16, 32
and 64 channels, global average pooling. Their shortcuts are the paper's option A: where the shape changes, the input is
subsampled and padded with zero channels, so a shortcut has no parameters.

`cifar_resnet8x4` and `cifar_resnet32x4` are the wide ones that distillation papers compare on (RepDistiller): a stem of
32 channels, stages of 64, 128 and 256, and 1×1 projections in the shortcuts (option B), as they were published.
`cifar_resnet8x0_5` has half of ResNet-8's channels (option A). `projection=True` gives any of them option B. Parameter
names agree with RepDistiller's, so its weights load.

Shapes: N images, C channels, H×W pixels; the stages have strides 1, 2, 4, whatever the input size.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from kdprune.models.pooled import PooledNetwork, cifar_cfg, initialise


class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that are new."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra = out_channels - in_channels
        self.stride = stride

    def forward(self, x_NCHW: Tensor) -> Tensor:
        subsampled = x_NCHW[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


def _shortcut(in_channels: int, out_channels: int, stride: int, projection: bool) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if not projection:
        return PadShortcut(in_channels, out_channels, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x))))))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride, projection)
        self.act2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        return self.act2(residual + self.downsample(x))


class CifarResNet(PooledNetwork):
    """A residual network for small images, with timm's interface.

    Args:
        depth: number of weighted layers, 6n+2.
        num_classes: outputs; 0 leaves the pooled features.
        in_chans: channels of the input.
        widths: channels of the stem and of the three stages.
        projection: 1×1 convolutions in the shortcuts (option B) in place of zero padding (option A).
        drop_rate: dropout before the classifier.
        global_pool: 'avg', or '' for none.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_chans: int = 3,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        projection: bool = False,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__(num_classes, in_chans, widths[-1], drop_rate, global_pool)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not 6n+2 (allowed: 8, 14, 20, …)")
        self.feature_info = [
            {"num_chs": width, "reduction": 2**stage, "module": f"layer{stage + 1}"}
            for stage, width in enumerate(widths[1:])
        ]
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.act1 = nn.ReLU(inplace=True)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(widths[0], widths[1], blocks, 1, projection)
        self.layer2 = _stage(widths[1], widths[2], blocks, 2, projection)
        self.layer3 = _stage(widths[2], widths[3], blocks, 2, projection)
        self.fc = self.make_head()
        self.apply(initialise)

    def forward_features(self, x_NCHW: Tensor) -> Tensor:
        """Images to the last stage's feature map, [N, num_features, H/4, W/4]."""
        x = self.act1(self.bn1(self.conv1(x_NCHW)))
        return self.layer3(self.layer2(self.layer1(x)))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int, projection: bool) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, projection)
    rest = [BasicBlock(out_channels, out_channels, 1, projection) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
_NAMES = (*(f"cifar_resnet{depth}" for depth in _DEPTHS), "cifar_resnet8x0_5", "cifar_resnet8x4", "cifar_resnet32x4")
default_cfgs = generate_default_cfgs({name: cifar_cfg("conv1") for name in _NAMES})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(CifarResNet, variant, pretrained, **kwargs)


def _create_wide(variant: str, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return _create(variant, pretrained, **{"widths": (32, 64, 128, 256), "projection": True, **kwargs})


@register_model
def cifar_resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8: 0.08M parameters."""
    return _create("cifar_resnet8", pretrained, depth=8, **kwargs)


@register_model
def cifar_resnet14(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-14: 0.17M parameters."""
    return _create("cifar_resnet14", pretrained, depth=14, **kwargs)


@register_model
def cifar_resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-20: 0.27M parameters."""
    return _create("cifar_resnet20", pretrained, depth=20, **kwargs)


@register_model
def cifar_resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-32: 0.46M parameters."""
    return _create("cifar_resnet32", pretrained, depth=32, **kwargs)


@register_model
def cifar_resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-44: 0.66M parameters."""
    return _create("cifar_resnet44", pretrained, depth=44, **kwargs)


@register_model
def cifar_resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-56: 0.85M parameters."""
    return _create("cifar_resnet56", pretrained, depth=56, **kwargs)


@register_model
def cifar_resnet110(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-110: 1.7M parameters."""
    return _create("cifar_resnet110", pretrained, depth=110, **kwargs)


@register_model
def cifar_resnet8x0_5(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """ResNet-8 of half the width, a teacher smaller than the smallest student: 0.02M parameters."""
    return _create("cifar_resnet8x0_5", pretrained, **{"depth": 8, "widths": (8, 8, 16, 32), **kwargs})


@register_model
def cifar_resnet8x4(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """RepDistiller's ResNet-8×4: 1.2M parameters."""
    return _create_wide("cifar_resnet8x4", pretrained, depth=8, **kwargs)


@register_model
def cifar_resnet32x4(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """RepDistiller's ResNet-32×4: 7.4M parameters."""
    return _create_wide("cifar_resnet32x4", pretrained, depth=32, **kwargs)

"""Wide residual networks for small images, registered in timm (importing this file is enough).

`cifar_wrnD_K` is WRN-D-K of Zagoruyko & Komodakis 2016 (arXiv 1605.07146, table 1): a 3×3 stem of 16 channels, three
stages of (D − 4)/6 pre-activation blocks with 16K, 32K and 64K channels, BatchNorm, ReLU, average pooling. Where the
shape changes, the shortcut is a 1×1 convolution of the activated input.

Shapes: N images, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from kdprune.models.pooled import PooledNetwork, cifar_cfg, initialise


class PreActivationBlock(nn.Module):
    """shortcut(x) + conv(relu(bn(conv(relu(bn(x))))))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.downsample = None if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(active)
        return shortcut + self.conv2(self.act2(self.bn2(self.conv1(active))))


class CifarWideResNet(PooledNetwork):
    """A wide residual network for small images, with timm's interface.

    Args:
        depth: number of weighted layers, 6n+4.
        width: factor of the stages' channels, K.
        num_classes: outputs; 0 leaves the pooled features.
        in_chans: channels of the input.
        drop_rate: dropout before the classifier.
        global_pool: 'avg', or '' for none.
    """

    def __init__(
        self,
        depth: int = 16,
        width: int = 8,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__(num_classes, in_chans, 64 * width, drop_rate, global_pool)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth {depth} is not 6n+4 (allowed: 10, 16, 22, …)")
        widths, blocks = (16, 16 * width, 32 * width, 64 * width), (depth - 4) // 6
        self.feature_info = [
            {"num_chs": channels, "reduction": 2**stage, "module": f"layer{stage + 1}"}
            for stage, channels in enumerate(widths[1:])
        ]
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.layer1 = _stage(widths[0], widths[1], blocks, 1)
        self.layer2 = _stage(widths[1], widths[2], blocks, 2)
        self.layer3 = _stage(widths[2], widths[3], blocks, 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.act1 = nn.ReLU(inplace=True)
        self.fc = self.make_head()
        self.apply(initialise)

    def forward_features(self, x_NCHW: Tensor) -> Tensor:
        """Images to the activated feature map of the last stage, [N, 64K, H/4, W/4]."""
        return self.act1(self.bn1(self.layer3(self.layer2(self.layer1(self.conv1(x_NCHW))))))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


default_cfgs = generate_default_cfgs({"cifar_wrn16_8": cifar_cfg("conv1")})


@register_model
def cifar_wrn16_8(pretrained: bool = False, **kwargs: Any) -> CifarWideResNet:
    """WRN-16-8: 11.0M parameters."""
    return build_model_with_cfg(CifarWideResNet, "cifar_wrn16_8", pretrained, **{"depth": 16, "width": 8, **kwargs})

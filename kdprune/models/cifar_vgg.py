"""The VGG networks of the lottery-ticket papers, registered in timm (importing this file is enough).

`cifar_vggD` has the 3×3 convolutions of Simonyan & Zisserman 2015 (arXiv 1409.1556, table 1: A, B, D, E), each followed
by BatchNorm, and one linear layer on the averaged feature map in place of three (Frankle & Carbin 2019, arXiv
1803.03635, appendix). The convolutions have no biases: BatchNorm's would swallow them.

The last of the five poolings is the average over the feature map, whatever its size. The others round up, so that
images of fewer than 16 pixels are taken, too; of 32 pixels nothing has to be rounded.

Shapes: N images, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from kdprune.models.pooled import PooledNetwork, cifar_cfg, initialise

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # of each stage


class CifarVgg(PooledNetwork):
    """A VGG network for small images, with timm's interface.

    Args:
        depth: weighted layers of the original, of which the last two linear ones are missing here: 11, 13, 16 or 19.
        num_classes: outputs; 0 leaves the pooled features.
        in_chans: channels of the input.
        drop_rate: dropout before the classifier.
        global_pool: 'avg', or '' for none.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__(num_classes, in_chans, WIDTHS[-1], drop_rate, global_pool)
        if depth not in CONVOLUTIONS:
            raise ValueError(f"depth {depth} is no VGG network's (allowed: {', '.join(map(str, CONVOLUTIONS))})")
        self.feature_info = [
            {"num_chs": width, "reduction": 2**stage, "module": f"stage{stage + 1}"}
            for stage, width in enumerate(WIDTHS)
        ]
        entries = (in_chans, *WIDTHS)
        for stage, count in enumerate(CONVOLUTIONS[depth]):
            setattr(self, f"stage{stage + 1}", _stage(entries[stage], entries[stage + 1], count, pooled=stage > 0))
        self.fc = self.make_head()
        self.apply(initialise)

    def forward_features(self, x_NCHW: Tensor) -> Tensor:
        """Images to the last stage's feature map, [N, 512, H/16, W/16]."""
        x = x_NCHW
        for stage in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"stage{stage}")(x)
        return x


def _stage(in_channels: int, out_channels: int, convolutions: int, pooled: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if pooled else []
    for _ in range(convolutions):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
        in_channels = out_channels
    return nn.Sequential(*layers)


default_cfgs = generate_default_cfgs({f"cifar_vgg{depth}": cifar_cfg("stage1.0") for depth in CONVOLUTIONS})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CifarVgg:
    return build_model_with_cfg(CifarVgg, variant, pretrained, **kwargs)


@register_model
def cifar_vgg11(pretrained: bool = False, **kwargs: Any) -> CifarVgg:
    """VGG-11: 9.2M parameters."""
    return _create("cifar_vgg11", pretrained, depth=11, **kwargs)


@register_model
def cifar_vgg13(pretrained: bool = False, **kwargs: Any) -> CifarVgg:
    """VGG-13: 9.4M parameters."""
    return _create("cifar_vgg13", pretrained, depth=13, **kwargs)


@register_model
def cifar_vgg16(pretrained: bool = False, **kwargs: Any) -> CifarVgg:
    """VGG-16: 14.7M parameters."""
    return _create("cifar_vgg16", pretrained, depth=16, **kwargs)


@register_model
def cifar_vgg19(pretrained: bool = False, **kwargs: Any) -> CifarVgg:
    """VGG-19: 20.0M parameters."""
    return _create("cifar_vgg19", pretrained, depth=19, **kwargs)

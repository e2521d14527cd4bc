"""What the small networks of the CIFAR papers share: timm's interface around a feature map that is averaged.

Shapes: N images, C channels, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


class PooledNetwork(nn.Module):
    """A network whose feature map is averaged over its pixels and classified by one linear layer, `fc`.

    A subclass sets `self.fc = self.make_head()` at the end of its own layers and defines `forward_features`.

    Args:
        num_classes: outputs; 0 leaves the pooled features.
        in_chans: channels of the input.
        num_features: channels of the feature map.
        drop_rate: dropout before the classifier.
        global_pool: 'avg', or '' for none.
    """

    def __init__(self, num_classes: int, in_chans: int, num_features: int, drop_rate: float, global_pool: str) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = num_features
        self.drop_rate = drop_rate
        self.global_pool = global_pool

    def forward_features(self, x_NCHW: Tensor) -> Tensor:
        """Images to the last feature map."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature map to logits [N, num_classes], or to the pooled features with `pre_logits`."""
        x = x.mean((2, 3)) if self.global_pool else x
        x = F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x
        return x if pre_logits else self.fc(x)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_NCHW))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head for `num_classes` in place."""
        device = next(self.parameters()).device
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        self.fc = self.make_head().to(device)

    def make_head(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """He et al.'s normal initialisation of a convolution; other layers keep PyTorch's."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def cifar_cfg(first_conv: str) -> dict[str, Any]:
    """timm's configuration of a network for CIFAR.

    Args:
        first_conv: module path of the first convolution.
    """
    return {
        "input_size": (3, 32, 32),
        "num_classes": 10,
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "pool_size": (8, 8),
        "first_conv": first_conv,
        "classifier": "fc",
        "license": "apache-2.0",
    }

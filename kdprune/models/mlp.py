"""Fully connected networks of the papers, registered in timm (importing this file is enough).

Of Hinton et al. 2015 (§3), `mlp_1200` is the teacher (784-1200-1200-10 on MNIST) and `mlp_800` the student; `mlp_64` is
for trying things out. `lenet_300_100` is that of LeCun et al. 1998 and of the lottery-ticket papers. The number of
inputs is fixed by `in_chans` and `img_size`.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


class Mlp(nn.Module):
    """Two hidden ReLU layers on the flattened image, with timm's interface.

    Args:
        width: units in each hidden layer.
        second: units in the second hidden layer, if they are others.
        num_classes: outputs; 0 leaves the features.
        in_chans: channels of the input.
        img_size: height and width of the input in pixels; one number for a square.
        drop_rate: dropout on both hidden layers.
    """

    def __init__(
        self,
        width: int = 800,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 28,
        drop_rate: float = 0.0,
        global_pool: str | None = None,  # timm hands it to every model; there is nothing to pool here
        second: int | None = None,
    ) -> None:
        super().__init__()
        last = width if second is None else second
        height, breadth = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.img_size = (height, breadth)
        self.num_features = self.head_hidden_size = last
        self.drop_rate = drop_rate
        self.feature_info = [
            {"num_chs": units, "reduction": 0, "module": f"act{layer}"} for layer, units in ((1, width), (2, last))
        ]
        self.fc1 = nn.Linear(in_chans * height * breadth, width)
        self.act1 = nn.ReLU()
        self.fc2 = nn.Linear(width, last)
        self.act2 = nn.ReLU()
        self.fc = self._head()

    def forward_features(self, x_NCHW: Tensor) -> Tensor:
        """Images [N, in_chans, H, W] to the second hidden layer [N, num_features]."""
        x = self._drop(self.act1(self.fc1(x_NCHW.flatten(1))))
        return self._drop(self.act2(self.fc2(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits [N, num_classes]; with `pre_logits` they come back as they are."""
        return x if pre_logits else self.fc(x)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_NCHW))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head for `num_classes` in place."""
        self.num_classes = num_classes
        self.fc = self._head().to(self.fc1.weight.device)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x

    def _head(self) -> nn.Module:
        return nn.Linear(self.num_features, self.num_classes) if self.num_classes else nn.Identity()


def _cfg() -> dict[str, Any]:
    return {
        "input_size": (1, 28, 28),
        "fixed_input_size": True,  # timm then takes `img_size`
        "num_classes": 10,
        "mean": (0.1307,),
        "std": (0.3081,),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": None,
        "classifier": "fc",
        "license": "apache-2.0",
    }


default_cfgs = generate_default_cfgs({name: _cfg() for name in ("mlp_64", "mlp_800", "mlp_1200", "lenet_300_100")})


def _create(variant: str, pretrained: bool, **kwargs: Any) -> Mlp:
    return build_model_with_cfg(Mlp, variant, pretrained, **kwargs)


@register_model
def mlp_64(pretrained: bool = False, **kwargs: Any) -> Mlp:
    """784-64-64-10: 55 thousand parameters."""
    return _create("mlp_64", pretrained, width=64, **kwargs)


@register_model
def mlp_800(pretrained: bool = False, **kwargs: Any) -> Mlp:
    """784-800-800-10, Hinton et al.'s small net: 1.3M parameters."""
    return _create("mlp_800", pretrained, width=800, **kwargs)


@register_model
def mlp_1200(pretrained: bool = False, **kwargs: Any) -> Mlp:
    """784-1200-1200-10, Hinton et al.'s large net: 2.4M parameters."""
    return _create("mlp_1200", pretrained, width=1200, **kwargs)


@register_model
def lenet_300_100(pretrained: bool = False, **kwargs: Any) -> Mlp:
    """784-300-100-10, LeNet-300-100: 266 thousand parameters."""
    return _create("lenet_300_100", pretrained, width=300, second=100, **kwargs)

"""The outputs of inner layers, named by module path."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdprune.messages import unknown


class Features:
    """Forward hooks on some layers of a model; after a forward pass, `taken()` gives what they put out.

    Raises:
        ValueError: a path that the model does not have, with near ones.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str], whose: str) -> None:
        modules = dict(model.named_modules())
        self._outputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self.paths = tuple(dict.fromkeys(paths))
        for path in self.paths:
            if path not in modules or not path:
                raise ValueError(unknown(f"layer of the {whose}", path, [name for name in modules if name][:200]))
            self._handles.append(modules[path].register_forward_hook(self._hook(path, model)))

    def taken(self) -> dict[str, Tensor]:
        """The outputs of the last forward pass, by path; they are handed over, not kept."""
        outputs, self._outputs = self._outputs, {}
        return outputs

    def close(self) -> None:
        """Take the hooks off: the model may serve others."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, path: str, model: nn.Module) -> Any:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"layer {path!r} puts out {type(output).__name__}, not one tensor: choose another layer"
                )
            self._outputs[path] = channels_first(output, module, model)

        return keep


def channels_first(output: Tensor, module: nn.Module, model: nn.Module) -> Tensor:
    """What a layer puts out as N×C×H×W, where timm's model says that it is another form of that; otherwise as it is.

    Families such as Swin work on N×H×W×C (`output_fmt`); the patch tokens N×L×C of a ViT are a square grid in reading
    order, behind class and register tokens (`num_prefix_tokens`), which are left out.
    """
    if output.ndim == 4 and getattr(model, "output_fmt", None) == "NHWC" and not isinstance(module, nn.Conv2d):
        return output.permute(0, 3, 1, 2)
    prefix = getattr(model, "num_prefix_tokens", None)
    if output.ndim == 3 and prefix is not None:
        side = math.isqrt(output.shape[1] - prefix)
        if side * side == output.shape[1] - prefix:
            return output[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    return output


def last_stages(student: nn.Module, teacher: nn.Module, count: int = 3) -> list[tuple[str, str]]:
    """Up to `count` pairs of module paths, the last stages of both by timm's `feature_info`, paired from the end.

    Raises:
        ValueError: a model that does not say what its stages are.
    """
    stages = [_stages(student, "student"), _stages(teacher, "teacher")]
    count = min(count, *map(len, stages))
    return list(zip(stages[0][-count:], stages[1][-count:], strict=True))


def _stages(model: nn.Module, whose: str) -> list[str]:
    info = getattr(model, "feature_info", None)
    modules = dict(model.named_modules())
    names = [stage["module"] for stage in info or [] if stage.get("module") in modules]
    if not names:
        raise ValueError(
            f"the {whose} ({type(model).__name__}) does not say what its stages are: name them with --distill.layers"
        )
    return names

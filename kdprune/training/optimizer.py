"""timm's optimizers, with arguments by timm's names, and its rule for the learning rate of other batches."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from torch import nn
from torch.optim import Optimizer

from kdprune.calls import Call, parse_call
from kdprune.config import TrainConfig
from kdprune.messages import about, shown, unknown

OPTION = "--train.opt"
FUSED = ("sgd", "momentum", "adam", "adamw")
# What has a setting of its own, and what is no plain value.
_NOT_WRITTEN = (
    "self", "params", "model_or_params", "opt", "lr", "weight_decay", "momentum", "foreach", "param_group_fn", "kwargs",
)  # fmt: skip


def learning_rate(config: TrainConfig) -> float:
    """The peak learning rate: `lr`, or by timm's rule `lr_base` times (batch_size / lr_base_size), or its square root.

    The batch is that of all processes and accumulation steps together.
    """
    if config.lr_base is None:
        return config.lr
    ratio = config.batch_size / config.lr_base_size
    name = parse_call(config.opt).name
    scale = config.lr_base_scale or ("sqrt" if "ada" in name or "lamb" in name else "linear")
    return config.lr_base * (math.sqrt(ratio) if scale == "sqrt" else ratio)


def check_optimizer(config: TrainConfig, option: str = OPTION) -> None:
    """Refuse an optimizer that timm does not know, is not installed, or does not take what it is given.

    Args:
        option: that the message begins with.

    Raises:
        ValueError: in these cases.
    """
    with about(option):
        try:
            call = _read(config.opt)
            _check_layer_decay(call.kwargs.get("layer_decay"))
            of_class = {name: value for name, value in call.kwargs.items() if name not in _of_timm()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come again where it is made for the model
                _make(config, call.name, of_class, nn.Linear(2, 2))
        except ValueError:
            raise
        except Exception as error:  # a value of another type; a package or a device that is not there
            reason = str(error) or type(error).__name__
            raise ValueError(f"{shown(config.opt)} given, which cannot be made: {reason}") from error


def make_optimizer(config: TrainConfig, model: nn.Module, extra: list[nn.Parameter]) -> Optimizer:
    """timm's optimizer for a model and the parameters of its losses; no weight decay on biases and norms."""
    call = _read(config.opt)
    optimizer = _make(config, call.name, call.kwargs, model)
    if extra:
        for decays in (True, False):
            group = [parameter for parameter in extra if (parameter.ndim > 1) == decays]
            optimizer.add_param_group({"params": group, "weight_decay": config.weight_decay if decays else 0.0})
    return optimizer


def _make(config: TrainConfig, name: str, arguments: dict[str, Any], model: nn.Module) -> Optimizer:
    kwargs: dict[str, Any] = {"fused": True} if name in FUSED else {}
    # Nesterov's step is undefined without momentum, and plain SGD is what is meant then.
    opt = "momentum" if name == "sgd" and config.momentum == 0 else name
    kwargs |= {"lr": learning_rate(config), "weight_decay": config.weight_decay, "momentum": config.momentum}
    return create_optimizer_v2(model, opt=opt, **{**kwargs, **arguments})


def _read(text: str) -> Call:
    """An optimizer as written, with arguments that it takes.

    Raises:
        ValueError: an unknown optimizer or argument, with the nearest one.
    """
    call = parse_call(text)
    known = [str(optimizer) for optimizer in list_optimizers()]
    if call.name not in known:
        raise ValueError(unknown("optimizer", call.name, known))
    if call.args:
        raise ValueError(f"{shown(text)} given, allowed is NAME or NAME(ARGUMENT=VALUE, …)")
    if call.kwargs:
        of_class = inspect.signature(get_optimizer_class(call.name, bind_defaults=False)).parameters
        takes = [name for name in (*of_class, *_of_timm()) if name not in _NOT_WRITTEN]
        for name in call.kwargs:
            if name in ("lr", "weight_decay", "momentum"):
                raise ValueError(f"{name}={call.kwargs[name]} given, which is --train.{name}")
            if name not in takes:
                raise ValueError(unknown(f"argument of {call.name}", name, takes))
    return call


def _check_layer_decay(decay: Any) -> None:
    if decay is not None and (isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay <= 1):
        raise ValueError(f"layer_decay={decay!r} given, allowed is (0, 1]")


def _of_timm() -> list[str]:
    """Arguments that timm takes for every optimizer."""
    return [name for name in inspect.signature(create_optimizer_v2).parameters if name not in _NOT_WRITTEN]

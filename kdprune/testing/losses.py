"""The contract of a distillation loss as a list of checks, after scikit-learn's `check_estimator`.

Each `check_*` function gets a `Build` and fails with an `AssertionError`. Nothing here needs pytest.

Shapes: N samples, C classes.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode  # private, but all there is to catch a wait without a GPU
from torch.nn import functional as F

from kdprune import registry
from kdprune.losses.common.base import DistillLoss, LossInput
from kdprune.testing.loss_batch import CLASSES, SAMPLES, example_batch, mapped, tensors_of

TEMPERATURE = 3.0
LAYERS = (("shallow", "stem"), ("deep", "body"))


class Build(Protocol):
    """Constructs the loss under test, afresh, and builds it on the features of `batch`."""

    def __call__(self, batch: LossInput, seed: int = 0) -> DistillLoss: ...


def check_loss(loss: str | Callable[..., DistillLoss], /, **params: Any) -> None:
    """Run every check of the contract on a distillation loss.

    Args:
        loss: the name of a registered loss, or its class, or a function that constructs it.
        params: arguments of its constructor. `temperature` and `layers` are filled in as in a run.

    Raises:
        AssertionError: checks failed; the message names the loss and each check with its reason.
        ValueError: no loss is registered under this name.
    """
    plugin = registry.get("losses", loss) if isinstance(loss, str) else loss
    name = loss if isinstance(loss, str) else loss.__name__
    failures: dict[str, Exception] = {}
    for check in CHECKS:
        try:
            with torch.random.fork_rng(devices=[]):
                check(functools.partial(_build, plugin, params))
        except Exception as error:  # a broken loss raises anything, and the author wants to see all that is wrong
            failures[check.__name__] = error
    if failures:
        lines = [f"\n  {check}: {_reason(error)}" for check, error in failures.items()]
        message = f"loss {name!r} fails {len(failures)} of {len(CHECKS)} checks:{''.join(lines)}"
        raise AssertionError(message) from next(iter(failures.values()))


def check_construction(build: Build) -> None:
    """A loss takes ordinary data without a warning, and names layers if it needs features."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = build(example_batch())
        loss.check(CLASSES)
    assert loss.needs_features == bool(loss.layers), (
        f"needs_features is {loss.needs_features}, but layers are {loss.layers}"
    )


def check_scalar(build: Build) -> None:
    """The loss is a finite float32 scalar, whatever the precision of the models, and under autocast."""
    batch = example_batch()
    plain = _value(build(batch), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_same(_value(build(batch), batch), plain, "under autocast to bfloat16 and without")
    half = mapped(batch, lambda x: x.bfloat16() if x.is_floating_point() else x)
    _value(build(half), half)


def check_confident_models(build: Build) -> None:
    """Value and gradient are finite where student and teacher are certain, and disagree."""
    batch = example_batch()
    favourite_NC = 500 * F.one_hot(torch.arange(SAMPLES) % CLASSES, CLASSES)
    student_NC = (batch.student_logits.detach() + favourite_NC.roll(1, 1)).requires_grad_()
    batch = replace(batch, student_logits=student_NC, teacher_logits=batch.teacher_logits + favourite_NC)
    _value(build(batch), batch).backward()
    _assert_finite_gradients(batch)


def check_gradients(build: Build) -> None:
    """The loss trains everything of the student that it reads and its own parameters, but not the teacher."""
    batch = example_batch()
    loss = build(batch)
    teacher = {name: x for name, x in tensors_of(batch).items() if name.startswith("teacher")}
    for tensor in teacher.values():
        tensor.requires_grad_()
    _value(loss, batch).backward()
    _assert_finite_gradients(batch)

    layers = {f"features of {layer!r}": batch.student_features[layer] for layer, _ in loss.layers}
    for name, tensor in (layers or {"logits": batch.student_logits}).items():
        assert tensor.grad is not None, f"the student's {name} get no gradient"
        assert tensor.grad.any(), f"the student's {name} get a gradient of zeros"
    for name, tensor in teacher.items():
        assert tensor.grad is None, f"{name} gets a gradient: detach it"
    for name, parameter in loss.named_parameters():
        assert parameter.dtype == torch.float32, f"parameter {name} is {parameter.dtype}, not float32"
        # DDP waits for the gradient of every parameter
        assert parameter.grad is not None, f"parameter {name} gets no gradient"
        assert parameter.grad.isfinite().all(), f"parameter {name} gets a gradient that is not finite"


def check_batch_of_one(build: Build) -> None:
    """Value and gradient of a single sample are finite."""
    batch = example_batch(samples=1)
    _value(build(batch), batch).backward()
    _assert_finite_gradients(batch)


def check_labels(build: Build) -> None:
    """Missing and mixed labels are used or refused as the attributes say; one-hot labels count as class ids."""
    batch, mixed = example_batch(), example_batch(mixed=True)
    assert batch.labels is not None
    loss, unlabelled = build(batch), replace(batch, labels=None)
    if loss.needs_labels:
        _assert_refused(lambda: loss(unlabelled), "missing labels (needs_labels)")
    else:
        _value(loss, unlabelled)
    if not loss.accepts_mixed_labels:
        _assert_refused(lambda: loss(mixed), "mixed labels (accepts_mixed_labels)")
        return
    _value(build(mixed), mixed)
    one_hot = replace(batch, labels=F.one_hot(batch.labels, CLASSES).float())
    _assert_same(_value(build(batch), one_hot), _value(build(batch), batch), "with one-hot labels and with class ids")


def check_per_sample(build: Build) -> None:
    """`per_sample` gives each sample's own loss, the mean is the loss, and weights act on it.

    A relational loss refuses weights instead.
    """
    batch = example_batch()
    ones_N, ramp_N = torch.ones(SAMPLES), torch.arange(SAMPLES) / SAMPLES
    loss = build(batch)
    if loss.relational:
        _assert_refused(lambda: loss(replace(batch, weights=ones_N)), "weights of samples (relational)")
        return
    assert type(loss).per_sample is not DistillLoss.per_sample, (
        "there is no per_sample: write it, or set relational = True if a single sample has no loss"
    )
    loss_N = loss.per_sample(batch)
    assert loss_N.shape == (SAMPLES,), f"per_sample gives shape {tuple(loss_N.shape)} for {SAMPLES} samples"
    assert loss_N.dtype == torch.float32, f"per_sample gives {loss_N.dtype}, not float32"
    assert loss_N.unique().numel() > 1, f"per_sample gives {loss_N[0].item():.6g} for each of {SAMPLES} random samples"
    swap = torch.tensor([1, 0, *range(2, SAMPLES)])
    swapped_N = build(batch).per_sample(mapped(batch, lambda x: x[swap]))
    assert torch.allclose(swapped_N, loss_N[swap], rtol=1e-5, atol=1e-6), (
        "per_sample does not follow its samples: with two of them swapped, other values change than theirs"
    )
    plain = _value(build(batch), batch)
    _assert_same(plain, loss_N.mean(), "and the mean of per_sample")
    _assert_same(_value(build(batch), replace(batch, weights=ones_N)), plain, "with weights of 1 and without weights")
    weighted = _value(build(batch), replace(batch, weights=ramp_N))
    _assert_same(weighted, (ramp_N * loss_N).mean(), "with weights and the weighted mean of per_sample")


def check_determinism(build: Build) -> None:
    """The same seed and batch give the same value and gradients, to the bit, and the batch is left as it was."""
    first, second, untouched = example_batch(), example_batch(), example_batch()
    values = [_value(build(batch), batch) for batch in (first, second)]
    assert torch.equal(*values), f"the same batch gives {values[0].item()} and {values[1].item()}"
    for value in values:
        value.backward()
    tensors = tensors_of(second), tensors_of(untouched)
    for name, tensor in tensors_of(first).items():
        assert torch.equal(tensor, tensors[1][name]), f"the loss changes {name} in place"
        gradients = [x.grad for x in (tensor, tensors[0][name]) if x.grad is not None]
        assert len(gradients) != 2 or torch.equal(*gradients), f"the same batch gives two gradients of {name}"


def check_resume(build: Build) -> None:
    """`state_dict` holds all state: a loss that loads it continues as the saved one does."""
    batch = example_batch()
    saved, loaded = build(batch, seed=1), build(batch, seed=2)
    for seed in (1, 2):
        saved(example_batch(seed=seed))
    loaded.load_state_dict(saved.state_dict())
    values = [_value(loss, batch).item() for loss in (saved, loaded)]
    assert values[0] == values[1], (
        f"after loading its state_dict the loss is {values[1]} instead of {values[0]}: keep state in buffers"
    )


def check_device(build: Build) -> None:
    """The loss never makes the host wait for the device, and its tensors are on the device of the batch.

    Fake tensors have a device, which need not be present, but no values: `.item()`, a branch on a tensor and a boolean
    index raise an error. Autograd does ask for the device itself, so gradients are those of the CPU's fake tensors.
    """
    for mixed in (False, True) if build(example_batch()).accepts_mixed_labels else (False,):
        try:
            with FakeTensorMode():
                batch = example_batch(mixed=mixed)
                build(batch)(batch).backward()
                batch = mapped(batch, lambda x: x.detach().to("cuda"))
                with torch.no_grad():
                    device = build(batch)(batch).device.type
        except RuntimeError as error:
            if "CUDA driver" in str(error):  # some versions of torch look for one even here
                return
            raise AssertionError(
                "the loss makes the host wait for the device (`.item()`, a branch on a tensor, a boolean index), "
                f"or creates a tensor on another device than the batch's: {_reason(error)}"
            ) from error
        assert device == "cuda", f"the loss of a batch on cuda is on {device}"


CHECKS: tuple[Callable[[Build], None], ...] = (
    check_construction,
    check_scalar,
    check_confident_models,
    check_gradients,
    check_batch_of_one,
    check_labels,
    check_per_sample,
    check_determinism,
    check_resume,
    check_device,
)


def _build(plugin: Callable[..., DistillLoss], params: dict[str, Any], batch: LossInput, seed: int = 0) -> DistillLoss:
    torch.default_generator.manual_seed(seed)
    of_the_run = {"temperature": TEMPERATURE, "layers": LAYERS}
    accepted = inspect.signature(plugin).parameters
    loss = plugin(**{name: value for name, value in of_the_run.items() if name in accepted} | params)
    assert isinstance(loss, DistillLoss), f"{type(loss).__name__} is no DistillLoss"
    loss.build(batch.student_features, batch.teacher_features)
    return loss


def _value(loss: DistillLoss, batch: LossInput) -> Tensor:
    value: Tensor = loss(batch)
    assert value.shape == (), f"the loss has shape {tuple(value.shape)}, it must be a scalar"
    assert value.dtype == torch.float32, f"the loss is {value.dtype}, not float32"
    assert value.isfinite(), f"the loss is {value.item()}"
    return value


def _assert_same(value: Tensor, other: Tensor, when: str) -> None:
    # float32's rounding of sums in another order
    equal = torch.allclose(value, other, rtol=1e-5, atol=1e-6)
    assert equal, f"the loss {when} differ: {value.item():.7g}, {other.item():.7g}"


def _assert_finite_gradients(batch: LossInput) -> None:
    for name, tensor in tensors_of(batch).items():
        assert tensor.grad is None or tensor.grad.isfinite().all(), f"the gradient of {name} is not finite"


def _assert_refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(f"{what} must be refused with a ValueError, not with {_reason(error)}") from error
    raise AssertionError(f"{what} must be refused with a ValueError")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"

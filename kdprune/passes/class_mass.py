"""Class biases set by class mass, for a student whose transfer set lacked a class (Hinton et al. 2015, §3).

Hinton et al. raised the bias of the class that was left out until the *test* error was least. Here the test set has no
part in it: the offsets are those with which the mean predicted probability of a class over training images equals the
class's frequency among the training labels.

Shapes: N samples, C classes, S classes whose offset is sought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from kdprune.data.dataset import Data
from kdprune.data.place import Place
from kdprune.models.spec import InputSpec
from kdprune.passes.predict import predict

IMAGES = 100_000  # at most; of a class that is 1 in 10 (1 in 1,000) they hold its share to within 1% (10%) of itself
STEP = 8.0  # largest change of an offset in a Newton step: far from the solution the curvature is nearly 0


def class_mass_offsets(
    logits_NC: Tensor,
    target_mass_C: Tensor,
    classes: Sequence[int] | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 500,
) -> Tensor:
    """Offsets b with mean_n softmax(z_n + b)_c = target mass of c for the chosen classes, and 0 for the others.

    They are where the convex F(b) = mean_n logsumexp(z_n + b) - Σ_c target_c·b_c is least: its gradient is mass less
    target, its Hessian mean_n(diag(p_n) - p_n p_nᵀ). Newton's method, with steps halved until F falls.

    Args:
        logits_NC: z, over the images whose mean is taken; finite.
        target_mass_C: mean probabilities to reach; those of the chosen classes are above 0, and together below 1, or 1
            if all classes are chosen.
        classes: whose offsets are sought (default: all; their offsets then add up to 0).
        tolerance: largest difference of mass and target.
        max_steps: after so many it is given up.

    Returns:
        float64 C, on the logits' device.

    Raises:
        ValueError: logits that are not finite; a target outside its range.
        ArithmeticError: no convergence.
    """
    z_NC, device, count = logits_NC.double().log_softmax(1), logits_NC.device, logits_NC.shape[1]
    chosen = torch.tensor(sorted(set(range(count) if classes is None else classes)), device=device)
    target_C = target_mass_C.double().to(device)
    everything = len(chosen) == count
    _check(z_NC, target_C[chosen], everything)
    if everything:  # one may stay where it is, for its mass follows from the others'
        chosen, target_C = chosen[:-1], target_C / target_C.sum()
    target_S = target_C[chosen]
    eye_SS = torch.eye(len(chosen), dtype=torch.float64, device=device)

    def objective(offsets_C: Tensor) -> float:
        return float((z_NC + offsets_C).logsumexp(1).mean() - target_S @ offsets_C[chosen])

    offsets_C = torch.zeros(count, dtype=torch.float64, device=device)
    value = objective(offsets_C)
    for _ in range(max_steps):
        p_NS = (z_NC + offsets_C).softmax(1)[:, chosen]
        mass_S = p_NS.mean(0)
        gap_S = mass_S - target_S
        if not len(gap_S) or gap_S.abs().max() <= tolerance:
            return offsets_C - offsets_C.mean() if everything else offsets_C
        hessian_SS = mass_S.diag() - p_NS.T @ p_NS / len(p_NS)
        # One-hot predictions have no curvature.
        ridge = 1e-12 + 1e-6 * gap_S.abs().max()
        step_S = torch.linalg.solve(hessian_SS + ridge * eye_SS, -gap_S)
        step_S *= (STEP / step_S.abs().max()).clamp(max=1)
        for _ in range(40):
            trial_C = offsets_C.index_add(0, chosen, step_S)
            trial = objective(trial_C)
            if trial <= value + 1e-4 * float(gap_S @ step_S) + 1e-14 * (1 + abs(value)):
                break
            step_S = step_S / 2
        offsets_C, value = trial_C, trial
    raise ArithmeticError(f"the class masses are still off by {gap_S.abs().max():.2g} after {max_steps} Newton steps")


def _check(log_p_NC: Tensor, target_S: Tensor, everything: bool) -> None:
    if not log_p_NC.isfinite().all():
        raise ValueError("the logits are not finite, so that no class has a mass")
    total = float(target_S.sum())
    if not (target_S > 0).all() or (abs(total - 1) > 1e-6 if everything else total >= 1):
        raise ValueError(
            f"target masses {[round(t, 6) for t in target_S.tolist()]} given, allowed are numbers above 0 that add up "
            f"to {'1' if everything else 'less than 1'}"
        )


def train_logits(
    logits_of: Callable[[Tensor], Tensor], data: Data, spec: InputSpec, accelerator: Accelerator
) -> Tensor:
    """A model's logits of the training images of all classes, without augmentation: float32 N×C.

    All images, or `IMAGES` of them that are spread evenly. No label is looked at.
    """
    ids, place = data.train.spread(IMAGES), Place.of(accelerator, data.workers)
    return predict(lambda batch: logits_of(batch.images).float(), data.train, ids, spec, place)


def class_frequencies(data: Data) -> Tensor:
    """How often each class occurs among the labels of the whole training set, float64 C.

    Raises:
        ValueError: the training set has no labels.
    """
    labels = data.train.labels[data.train.labels >= 0]
    if not len(labels):
        raise ValueError("--class_mass: the training set has no labels, so the frequency of its classes is not known")
    return torch.from_numpy(np.bincount(labels, minlength=data.num_classes) / len(labels))

"""The rate of each step, against closed forms; and the length of an epoch by which warm-up is counted."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from kdprune.config import TrainConfig
from kdprune.training.optimizer import make_optimizer
from kdprune.training.schedule import Budget, make_scheduler, one_cycle

STEPS, EPOCH = 80, 20  # four epochs


def rates(**settings) -> list[float]:
    """The learning rate of every step."""
    config = TrainConfig(lr=0.05, **settings)
    optimizer = make_optimizer(config, nn.Linear(2, 2), [])
    scheduler = make_scheduler(config, optimizer, Budget(STEPS, 20 * 64, 64, EPOCH))
    found = []
    for step in range(STEPS):
        scheduler.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({"sched": "none"}, lambda t: 0.05),
        ({"sched": "cosine"}, lambda t: 0.025 * (1 + math.cos(math.pi * t))),
        ({"sched": "cosine", "min_lr": 0.01}, lambda t: 0.01 + 0.02 * (1 + math.cos(math.pi * t))),
        ({"sched": "poly", "decay_rate": 0.5}, lambda t: 0.05 * (1 - t) ** 0.5),
    ],
)
def test_the_rate_follows_its_schedule(settings, rate):
    assert rates(**settings, warmup_epochs=0) == pytest.approx([rate(s / STEPS) for s in range(STEPS)], rel=1e-6)


def test_the_rate_falls_at_its_milestones():
    """timm's scheduler falls one step early."""
    found = rates(sched="multistep", decay_milestones=[1, 3], decay_rate=0.2, warmup_epochs=0)
    assert found == pytest.approx([0.05 * 0.2 ** ((s + 1 >= 20) + (s + 1 >= 60)) for s in range(STEPS)], rel=1e-6)


@pytest.mark.parametrize("sched", ["none", "multistep", "cosine", "poly"])
def test_warm_up_grows_evenly_to_the_rate_from_where_the_schedule_begins(sched):
    found = rates(sched=sched, decay_milestones=[3], warmup_epochs=2)
    warm = 2 * EPOCH
    assert found[:warm] == pytest.approx([0.0005 + (0.05 - 0.0005) * s / warm for s in range(warm)], rel=1e-6)
    assert found[warm] == pytest.approx(0.05)
    if sched in ("cosine", "poly"):
        assert all(later < earlier for earlier, later in zip(found[warm:], found[warm + 1 :], strict=False))
        assert found[-1] < 0.002 if sched == "cosine" else found[-1] < 0.05
    if sched == "none":
        assert found[warm:] == pytest.approx([0.05] * warm)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_nesterovs_unless_there_is_no_momentum(momentum):
    """Nesterov's step is undefined without momentum, and torch refuses it."""
    settings = TrainConfig(momentum=momentum)
    (group,) = make_optimizer(settings, nn.Linear(2, 2, bias=False), []).param_groups
    assert group["nesterov"] == (momentum > 0)


def by_torch(total: int, rise: float, peak: float, last: float) -> list[float]:
    """The rates of torch's OneCycleLR."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=total, pct_start=rise / total, cycle_momentum=False,
        final_div_factor=peak / 25 / last if last else math.inf,
    )  # fmt: skip
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@example(total=3, part=0.75, peak=1.0, last=0.0)
@given(
    total=st.integers(3, 300),
    part=st.floats(0.05, 0.9),
    peak=st.floats(1e-4, 10),
    last=st.sampled_from([0.0, 1e-5]),
)
def test_one_cycle_is_torchs(total, part, peak, last):
    rise = max(1.5, part * total)  # torch divides by 0 where the peak is the first step
    expected = by_torch(total, rise, peak, last)
    found = [one_cycle(step, total, rise, peak, last) for step in range(total)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("warmup", "rise"), [(0, 0.3 * STEPS), (2, 2 * EPOCH)])
def test_one_cycle_rises_over_the_warm_up_or_three_tenths(warmup, rise):
    found = rates(sched="onecycle", warmup_epochs=warmup, min_lr=0.001)
    assert found == pytest.approx(by_torch(STEPS, rise, 0.05, 0.001), rel=1e-9)


@given(total=st.integers(1, 5), rise=st.floats(0, 10), last=st.floats(0, 0.05))
def test_one_cycle_of_a_few_steps_stays_between_its_ends(total, rise, last):
    found = [one_cycle(step, total, rise, 0.05, last) for step in range(total)]
    assert all(min(last, 0.05 / 25) - 1e-12 <= rate <= 0.05 + 1e-12 for rate in found)


@pytest.mark.parametrize("sched", ["cosine", "poly", "onecycle", "none"])
def test_the_rate_is_a_function_of_the_step(sched):
    """So a resumed run needs no state of its scheduler, and an order may move it at its own pace."""
    config = TrainConfig(lr=0.05, sched=sched, warmup_epochs=1)
    optimizer = make_optimizer(config, nn.Linear(2, 2), [])
    scheduler = make_scheduler(config, optimizer, Budget(STEPS, 20 * 64, 64, EPOCH))
    expected = rates(sched=sched, warmup_epochs=1)
    for step in (79, 3, 40, 0):
        scheduler.step_update(step)
        assert optimizer.param_groups[0]["lr"] == expected[step]

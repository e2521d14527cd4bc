"""The rate of each step, against closed forms; and the length of an epoch by which warm-up is counted."""

import math

import pytest
from torch import nn

from kdprune.config import TrainConfig
from kdprune.training.schedule import Budget, make_optimizer, make_scheduler

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

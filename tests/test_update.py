"""The backward pass, the optimizer's step and the seeds of a step, against what Accelerate and torch do."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from kdprune.training.update import Update, seed_generators


def trained(plain: bool) -> dict[str, torch.Tensor]:
    """Weights after three steps, through the short way or through Accelerate."""
    torch.manual_seed(0)
    accelerator, model = Accelerator(cpu=True), nn.Linear(4, 3)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    update = Update(accelerator, optimizer)
    assert update._plain
    update._plain = plain
    for _ in range(3):
        for _ in range(2):
            update.backward(prepared(torch.randn(5, 4)).square().mean())
        update.step()
        assert all(parameter.grad is None for parameter in model.parameters())
    return model.state_dict()


def test_the_short_way_gives_the_same_weights():
    short, long = trained(True), trained(False)
    assert all(torch.equal(short[name], long[name]) for name in long)


@pytest.mark.parametrize("seed", [0, 5, -(2**63), 2**63 - 1])
def test_draws_are_those_of_torchs_own_seed(seed):
    torch.manual_seed(seed)
    expected = torch.rand(4)
    seed_generators(seed, torch.device("cpu"))
    assert torch.equal(torch.rand(4), expected)

"""The contract of a pruner. Shapes: N samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdprune.calls import Call
from kdprune.models.prunable import prunable
from kdprune.pruners.common.keep import kept_count
from kdprune.pruners.common.network import Network, Parts
from kdprune.pruners.common.prune import prune
from kdprune.pruners.common.pruner import Bound, bound, bound_to

_CLASSES, _SHAPE = 3, (2, 6, 6)
_SPARSITIES = (0.0, 0.3, 0.9, 0.999)
_MOST_ROUNDS = 3  # the contract does not depend on them


def check_pruner(pruner: str | Callable[..., Any]) -> None:
    """Check that a pruner keeps what every pruner promises, and what it declares of itself.

    Of small networks, with and without BatchNorm, it returns a floating-point score for each prunable weight, none of
    them NaN; the same ones in the same call; and close ones where the samples come in other parts. It changes neither
    weights nor buffers nor the state of a random generator, looks at no samples unless it declares that it needs them,
    and any sparsity leaves exactly as many weights as it says, in the whole network or layer by layer.

    Args:
        pruner: its name, with arguments if it takes some (`snip(per_class=2)`), or the decorated function itself.

    Raises:
        AssertionError: it breaks its contract; the message says how, and for which network.
        ValueError: no pruner of this name, or wrong arguments of it.
    """
    by = bound(pruner, "") if isinstance(pruner, str) else bound_to(pruner, Call(getattr(pruner, "__name__", "pruner")))
    for seed, (name, make) in enumerate(_NETWORKS.items()):
        torch_state = torch.get_rng_state()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = make()
            images = torch.randn(4 * _CLASSES, *_SHAPE)
        _expect(torch.equal(torch_state, torch.get_rng_state()), "the check changes the random generator", name)
        _Check(by, name, model, images, seed).run()


class _Check:
    def __init__(self, by: Bound, name: str, model: nn.Module, images: Tensor, seed: int) -> None:
        self.by, self.name, self.model, self.images, self.seed = by, name, model, images, seed

    def run(self) -> None:
        network = self.network()
        before = {key: value.clone() for key, value in network._model.state_dict().items()}
        state = torch.get_rng_state()
        scores = self.scores(network)
        _expect(torch.equal(state, torch.get_rng_state()), "it changes the state of torch's generator", self.name)
        after = network._model.state_dict()
        changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
        _expect(not changed, f"it changes {', '.join(changed)}", self.name)
        again = self.scores(network)
        same = all(torch.equal(score, again[key]) for key, score in scores.items())
        _expect(same, "the same call gives other scores", self.name)
        if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in self.model.modules()):
            parts = self.scores(self.network(pieces=3))
            close = all(torch.allclose(score.double(), parts[key].double(), 1e-8) for key, score in scores.items())
            _expect(close, "samples in other parts give other scores", self.name)
        self.check_counts()

    def check_counts(self) -> None:
        by = self.by._replace(rounds=min(self.by.rounds, _MOST_ROUNDS))
        for sparsity in _SPARSITIES:
            for scope in ("global", "layer"):
                network = self.network()
                kept = prune(network, by, sparsity, scope=scope, seed=self.seed)
                total = sum(one.numel() for one in kept.values())
                count = sum(int(one.sum()) for one in kept.values())
                broken = f"sparsity {sparsity} keeps {count} of {total} weights"
                _expect(count == kept_count(total, sparsity), broken, self.name)

    def network(self, pieces: int = 1) -> Network:
        names = prunable(self.model).names
        return Network(self.model, names, _SHAPE, self.samples(pieces) if self.by.says.labels else None, self.seed)

    def samples(self, pieces: int) -> Callable[[int], Parts]:
        def parts(per_class: int) -> Parts:
            count = min(per_class * _CLASSES, len(self.images))
            labels_N = torch.arange(count) % _CLASSES
            cut = -(-count // pieces)
            return list(zip(self.images[:count].split(cut), labels_N.split(cut), strict=True))

        return parts

    def scores(self, network: Network) -> dict[str, Tensor]:
        try:
            scores = self.by.function(network)
        except Exception as error:
            raise AssertionError(f"it raises {type(error).__name__}: {error} ({self.name})") from error
        weights = network.weights
        _expect(
            set(scores) == set(weights), "it does not score the prunable tensors, all of them and no others", self.name
        )
        for key, weight in weights.items():
            score = scores[key]
            _expect(score.shape == weight.shape, f"scores of {key} are not in the shape of the weights", self.name)
            _expect(score.is_floating_point(), f"scores of {key} are no floating-point numbers", self.name)
            _expect(not bool(score.isnan().any()), f"scores of {key} are NaN", self.name)
        return dict(scores)


def _expect(kept: bool, broken: str, network: str) -> None:
    # Raised by hand: python -O leaves `assert` out.
    if not kept:
        raise AssertionError(f"{broken} ({network})")


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(20, _CLASSES),
    )  # fmt: skip


def _connected() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, _CLASSES))


_NETWORKS: dict[str, Callable[[], nn.Module]] = {"convolutions": _convolutional, "linear layers": _connected}

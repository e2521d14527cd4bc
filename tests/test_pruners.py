"""Pruners: the contract of all of them, and each against a slow, literal restatement of its formula.

Shapes: N samples, I inputs, U and V hidden units, C classes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from helpers import install
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdprune import registry
from kdprune.models.prunable import prunable
from kdprune.pruners.common.keep import densities, keep_highest, kept_count, layer_counts
from kdprune.pruners.common.network import Network
from kdprune.pruners.common.prune import prune
from kdprune.pruners.common.pruner import Declared, bound, pruner
from kdprune.pruners.common.samples import PART, balanced_parts
from kdprune.testing import check_pruner

NAMES = registry.names("pruners")
SHAPE = (1, 2, 3)


class Three(nn.Module):
    """Three linear layers with smooth activations, whose biases matter."""

    def __init__(self, bias: bool = True, act: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Linear(i, o, bias) for i, o in ((6, 5), (5, 4), (4, 3)))
        self.act = act()

    def forward(self, x):
        return self.c(self.act(self.b(self.act(self.a(x.flatten(1))))))


def images(count: int = 9) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def samples(pieces: int = 1, count: int = 9):
    cut = -(-count // pieces)
    return lambda per_class: list(zip(images(count).split(cut), (torch.arange(count) % 3).split(cut), strict=True))


def network(model: nn.Module | None = None, pieces: int = 1, seed: int = 0) -> Network:
    model = Three() if model is None else model
    return Network(model, prunable(model).names, SHAPE, samples(pieces), seed)


def scores(text: str, of: Network) -> dict[str, torch.Tensor]:
    return dict(bound(text).function(of))


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_pruner_keeps_its_contract(name):
    check_pruner(name)


def test_a_pruner_says_what_it_is():
    for name in NAMES:
        says = registry.get("pruners", name).declared
        assert says.cost
        assert says.paper or name == "random"
        assert (says.rounds == 100) == (name in ("iterative_snip", "synflow"))
        assert says.labels == (name in ("snip", "iterative_snip", "grasp", "grasp_abs"))


def test_arguments_are_checked():
    assert bound("snip(per_class=3, rounds=5)").rounds == 5
    with pytest.raises(ValueError, match=r"--student\.pruner: .*did you mean 'per_class'"):
        bound("snip(per_clas=3)")
    with pytest.raises(ValueError, match=r"--student\.pruner: unknown pruner 'snipp'; did you mean 'snip'"):
        bound("snipp")
    with pytest.raises(ValueError, match="rounds=0 given, allowed is a whole number from 1"):
        bound("synflow(rounds=0)")


def declared(function, labels: bool = False):
    def named(network):
        return function(network)

    named.declared = Declared(labels, 1, "", "nothing")
    return named


def half(network):
    return dict(list(network.weights.items())[:-1])


def changing(network):
    network.keep({name: weight > 0 for name, weight in network.weights.items()})
    return network.weights


def drawing(network):
    return {name: torch.rand_like(weight) for name, weight in network.weights.items()}


@pytest.mark.parametrize(
    ("dishonest", "broken"),
    [
        (half, "does not score the prunable tensors"),
        (changing, "it changes"),
        (drawing, "it changes the state of torch's generator"),
        (lambda network: {name: weight.sum() for name, weight in network.weights.items()}, "not in the shape"),
        (lambda network: {name: weight > 0 for name, weight in network.weights.items()}, "no floating-point numbers"),
        (lambda network: {name: weight / 0 * 0 for name, weight in network.weights.items()}, "are NaN"),
        (lambda network: network.gradients(2), "it raises ValueError: there are no samples"),
    ],
)
def test_what_breaks_the_contract_fails(dishonest, broken):
    with pytest.raises(AssertionError, match=broken):
        check_pruner(declared(dishonest))


def test_a_pruner_of_another_package(monkeypatch, tmp_path):
    module = (
        "from kdprune.pruners.common.pruner import pruner\n"
        "@pruner('largest', labels=False, paper='', cost='nothing')\n"
        "def largest(network):\n    return network.weights\n"
    )
    install(monkeypatch, tmp_path, "acme_pruners", module, {"pruners": "largest = acme_pruners:largest"})
    check_pruner("largest")


# --- the formulas -----------------------------------------------------------------------------------------------------


def forward(w: dict[str, np.ndarray], x_NI: np.ndarray) -> np.ndarray:
    h_NU = np.tanh(x_NI @ w["a.weight"].T + w["a.bias"])
    h_NV = np.tanh(h_NU @ w["b.weight"].T + w["b.bias"])
    return h_NV @ w["c.weight"].T + w["c.bias"]


def backward(
    w: dict[str, np.ndarray], x_NI: np.ndarray, labels_N: np.ndarray, temperature: float
) -> dict[str, np.ndarray]:
    """∂L/∂w of the mean cross-entropy at a temperature, by the chain rule, sample by sample."""
    total = {name: np.zeros_like(w[name]) for name in ("a.weight", "b.weight", "c.weight")}
    for x_I, label in zip(x_NI, labels_N, strict=True):
        h_U = np.tanh(w["a.weight"] @ x_I + w["a.bias"])
        h_V = np.tanh(w["b.weight"] @ h_U + w["b.bias"])
        z_C = (w["c.weight"] @ h_V + w["c.bias"]) / temperature
        p_C = np.exp(z_C - z_C.max())
        d_C = p_C / p_C.sum()
        d_C[label] -= 1
        d_C = d_C / temperature / len(x_NI)
        d_V = (w["c.weight"].T @ d_C) * (1 - h_V**2)
        d_U = (w["b.weight"].T @ d_V) * (1 - h_U**2)
        total["c.weight"] += np.outer(d_C, h_V)
        total["b.weight"] += np.outer(d_V, h_U)
        total["a.weight"] += np.outer(d_U, x_I)
    return total


def literal(temperature: float = 1.0):
    """Weights of the network as arrays, their names, and their gradient."""
    w = {name: value.detach().double().numpy() for name, value in Three().named_parameters()}
    x_NI, labels_N = images().double().numpy().reshape(9, -1), np.arange(9) % 3
    return w, lambda at: backward(at, x_NI, labels_N, temperature)


def by_hand(name: str) -> dict[str, np.ndarray]:
    """The score of each weight, restated."""
    w, gradient = literal(200.0 if "grasp" in name else 1.0)
    g = gradient(w)
    if name == "magnitude":
        return {layer: np.abs(w[layer]) for layer in g}
    if name in ("snip", "iterative_snip"):
        return {layer: np.abs(w[layer] * g[layer]) for layer in g}
    # H·g by central differences of the gradient along g.
    step = 1e-4 / max(np.abs(one).max() for one in g.values())
    above, below = (gradient({**w, **{layer: w[layer] + sign * step * g[layer] for layer in g}}) for sign in (1, -1))
    product = {layer: w[layer] * (above[layer] - below[layer]) / (2 * step) for layer in g}
    return product if name == "grasp" else {layer: np.abs(one) for layer, one in product.items()}


@pytest.mark.parametrize("name", ["magnitude", "snip", "iterative_snip", "grasp", "grasp_abs"])
def test_scores_are_those_of_the_formula(name):
    found, expected = scores(name, network()), by_hand(name)
    assert list(found) == list(expected)
    for layer, score in expected.items():
        np.testing.assert_allclose(found[layer].numpy(), score, rtol=1e-5, atol=1e-6 * np.abs(score).max())


def test_synflow_is_the_sum_of_all_paths():
    """Of a network without biases: each path contributes the product of its |w|, and a weight's score is the sum over
    the paths through it (Tanaka et al. 2020, eq. 2)."""
    model = Three(bias=False, act=nn.ReLU)
    a, b, c = (weight.detach().double().abs().numpy() for weight in model.parameters())
    expected = {name: np.zeros_like(weight) for name, weight in (("a.weight", a), ("b.weight", b), ("c.weight", c))}
    for i in range(6):
        for u in range(5):
            for v in range(4):
                for k in range(3):
                    path = a[u, i] * b[v, u] * c[k, v]
                    expected["a.weight"][u, i] += path
                    expected["b.weight"][v, u] += path
                    expected["c.weight"][k, v] += path
    found = scores("synflow", network(model))
    for name, score in expected.items():
        np.testing.assert_allclose(found[name].numpy(), score, rtol=1e-12)


def test_synflow_conserves_the_flow():
    """Every layer's scores have the same sum, whatever is pruned already (theorem 2 there)."""
    of = network(Three(bias=False, act=nn.ReLU))
    for _ in range(3):
        found = scores("synflow", of)
        sums = [score.sum().item() for score in found.values()]
        np.testing.assert_allclose(sums, sums[0], rtol=1e-12)
        of.keep(keep_highest(found, kept_count(sum(s.numel() for s in found.values()), 0.3), 0))


def test_synflow_needs_its_float64():
    """In float32 the flow of a deep network leaves the numbers that there are."""
    deep = nn.Sequential(nn.Flatten(), *(nn.Linear(6, 6, bias=False) for _ in range(200)))
    with torch.no_grad():
        for weight in deep.parameters():
            weight.fill_(1.0)
    found = scores("synflow", network(deep))
    assert all(score.isfinite().all() for score in found.values())
    assert found["1.weight"].max() > torch.finfo(torch.float32).max


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_scores_do_not_depend_on_the_parts_that_samples_come_in(name):
    whole, parts = scores(name, network()), scores(name, network(pieces=4))
    for layer, score in whole.items():
        torch.testing.assert_close(parts[layer], score, rtol=1e-10, atol=1e-14)


def test_a_score_is_taken_in_training_mode_and_leaves_the_statistics():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
    of = network(model)
    x, labels = images().double(), torch.arange(9) % 3
    copy = nn.Sequential(*model).double().train()
    loss = F.cross_entropy(copy(x), labels)
    loss.backward()
    expected = copy[0].weight.grad
    copy[1].reset_running_stats()
    torch.testing.assert_close(of.gradients(3)["0.weight"], expected)
    assert torch.equal(of._model[1].running_mean, torch.zeros(2, dtype=torch.float64))


def test_erk_densities():
    """In proportion to (n_in + n_out + kernel) / size; what would be above 1 is 1, and the others share the rest."""
    model = timm.create_model("cifar_resnet8", in_chans=1)
    names = prunable(model).names
    of = Network(model, names, (1, 8, 8))
    kept = prune(of, bound("random_erk"), 0.8)
    shares = {name: sum(weight.shape) / weight.numel() for name, weight in of.weights.items()}
    sizes = {name: weight.numel() for name, weight in of.weights.items()}
    budget = kept_count(sum(sizes.values()), 0.8)
    dense: set[str] = set()
    while True:  # the search for ε that the papers' code does
        rest = budget - sum(sizes[name] for name in dense)
        epsilon = rest / sum(shares[name] * sizes[name] for name in names if name not in dense)
        over = {name for name in names if name not in dense and epsilon * shares[name] > 1}
        if not over:
            break
        dense |= over
    assert dense
    for name in names:
        assert abs(int(kept[name].sum()) - sizes[name] * (1 if name in dense else epsilon * shares[name])) <= 1
    sparser = prune(Network(model, names, (1, 8, 8)), bound("random_erk"), 0.95)
    assert all((kept[name] | ~sparser[name]).all() for name in names)


def test_chance_is_a_function_of_the_seed_and_the_tensor():
    first, again, other = (scores("random", network(seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["a.weight"], other["a.weight"])
    assert not torch.equal(first["a.weight"].flatten()[:12], first["c.weight"].flatten())


# --- from scores to weights -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=8), min_size=1, max_size=4),
    share=st.floats(0, 1), seed=st.integers(0, 3),
)  # fmt: skip
def test_the_highest_scores_are_kept_in_any_number(values, share, seed):
    found = {f"t{i}": torch.tensor(one, dtype=torch.float32) for i, one in enumerate(values)}
    total = sum(map(len, values))
    count = round(share * total)
    kept = keep_highest(found, count, seed)
    inside = [v for name, score in found.items() for v in score[kept[name]].tolist()]
    outside = [v for name, score in found.items() for v in score[~kept[name]].tolist()]
    assert len(inside) == count
    assert not inside or not outside or min(inside) >= max(outside)
    fewer = keep_highest(found, count // 2, seed)
    assert all((kept[name] | ~fewer[name]).all() for name in kept)


def test_equal_scores_are_ordered_by_the_seed_and_by_no_end():
    found = {"t": torch.zeros(1000)}
    kept = [keep_highest(found, 300, seed)["t"].nonzero()[:, 0].double() for seed in range(12)]
    assert len({tuple(one.tolist()) for one in kept}) == 12
    assert abs(torch.cat(kept).mean().item() - 499.5) < 5 * 1000 / math.sqrt(12 * 12 * 300)


@pytest.mark.parametrize("sparsity", [0, 0.1, 1 / 3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_density_is_exact(sparsity, scope):
    of = Network(Three(), prunable(Three()).names, SHAPE)
    kept = prune(of, bound("random(rounds=3)"), sparsity, scope=scope)
    assert sum(int(one.sum()) for one in kept.values()) == 62 - round(62 * sparsity)
    if scope == "layer":
        assert all(abs(int(one.sum()) - (1 - sparsity) * one.numel()) <= 1 for one in kept.values())
    for name, weight in of.weights.items():
        assert (weight[~kept[name]] == 0).all()


def test_inverted_and_kept_are_everything():
    kept, opposite = (
        prune(network(), bound("snip"), sparsity, inverted=inverted)
        for sparsity, inverted in ((0.7, False), (1 - 0.7, True))
    )
    assert all((kept[name] ^ opposite[name]).all() for name in kept)


def test_rounds_prune_the_same_share_each():
    steps = densities(0.9, 4)
    np.testing.assert_allclose(np.array(steps[1:]) / steps[:-1], 0.1**0.25)
    assert math.isclose(steps[-1], 0.1)


def test_no_round_brings_a_weight_back():
    seen = []

    @pruner("of_a_test", labels=False, paper="", cost="nothing")
    def erratic(of: Network):
        seen.append({name: weight != 0 for name, weight in of.weights.items()})
        return {name: -weight.abs() * (-1) ** len(seen) for name, weight in of.weights.items()}

    try:
        for scope in ("global", "layer"):
            seen.clear()
            kept = prune(network(), bound("of_a_test(rounds=6)"), 0.9, scope=scope)
            for before, after in zip(seen, [*seen[1:], kept], strict=True):
                assert all((before[name] | ~after[name]).all() for name in kept)
    finally:
        del registry._registered["pruners"]["of_a_test"]


def test_what_is_pruned_before_the_first_round_stays_so():
    for scope in ("global", "layer"):
        before = prune(network(), bound("magnitude"), 0.6, scope=scope)
        of = network()
        of.keep(before)
        kept = prune(of, bound("snip(rounds=7)"), 0.8, scope=scope, alive=before)
        assert all((before[name] | ~kept[name]).all() for name in kept)
        assert sum(int(one.sum()) for one in kept.values()) == kept_count(62, 0.8)
        again = prune(of, bound("snip(rounds=7)"), 0.8, scope=scope, alive=kept)
        assert all(torch.equal(again[name], kept[name]) for name in kept)


def test_layers_share_out_what_is_kept():
    assert layer_counts({"a": 40, "b": 20}, 0.5, 0) == {"a": 20, "b": 10}
    sizes = {"a": 6, "b": 6, "c": 2}  # where largest remainders give c less of more (the Alabama paradox)
    counts = [layer_counts(sizes, 1 - kept / 14, 0) for kept in range(15)]
    assert [sum(one.values()) for one in counts] == list(range(15))
    assert all(after[name] >= before[name] for before, after in itertools.pairwise(counts) for name in sizes)


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, float("nan")])
def test_no_other_sparsity(sparsity):
    with pytest.raises(ValueError, match=r"allowed is \[0, 1\)"):
        prune(network(), bound("magnitude"), sparsity)


# --- which weights, which samples -------------------------------------------------------------------------------------


def test_prunable_weights_are_those_of_convolutions_and_linear_layers():
    model = timm.create_model("cifar_resnet8x4")
    names = prunable(model).names
    assert names[0] == "conv1.weight"
    assert names[-1] == "fc.weight"
    assert "layer2.0.downsample.0.weight" in names
    assert not [name for name in names if "bn" in name or "bias" in name]
    assert prunable(model, ["first", "last"]) == (names[1:-1], (names[0], names[-1]))


def test_weights_of_which_a_zero_is_none_are_left_out():
    """timm's standardised convolutions subtract the mean of the weights, so that no zero of them is one."""
    model = timm.create_model("resnetv2_50x1_bit", num_classes=3)
    assert prunable(model).names == ("head.fc.weight",)


def test_nothing_to_prune():
    with pytest.raises(ValueError, match="no convolution or linear layer"):
        prunable(nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.raises(ValueError, match="unknown layer to leave whole 'frist'; did you mean 'first'"):
        prunable(Three(), ["frist"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 5))
def test_samples_are_class_balanced(labels, per_class, seed):
    labels_N = np.array(labels)
    chosen = np.concatenate(balanced_parts(labels_N, np.arange(len(labels)), per_class, seed))
    assert len(set(chosen.tolist())) == len(chosen)
    have, took = np.bincount(labels_N, minlength=5), np.bincount(labels_N[chosen], minlength=5)
    assert (took == np.minimum(have, per_class)).all()


def test_samples_are_a_function_of_the_seed_and_go_in_parts_of_all_classes():
    labels_N = np.arange(3000) % 10
    first, again, other = (balanced_parts(labels_N, np.arange(3000), 60, seed) for seed in (0, 0, 1))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert first[0].tolist() != other[0].tolist()
    assert [len(part) for part in first] == [200, 200, 200]
    assert max(map(len, first)) <= PART
    assert all((np.bincount(labels_N[part], minlength=10) == 20).all() for part in first)
    without = balanced_parts(labels_N, np.setdiff1d(np.arange(3000), first[0][:1]), 60, 0)
    assert len(np.intersect1d(np.concatenate(first), np.concatenate(without))) == 599


def test_samples_without_labels_are_refused():
    with pytest.raises(ValueError, match="without a label"):
        balanced_parts(np.array([0, -1]), np.arange(2), 1, 0)

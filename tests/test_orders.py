"""Which samples the epochs of dynamic data pruning hold: each method against a literal restatement."""

from __future__ import annotations

import io
import math
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kdprune.data.counter import bits, key, permutation, uniform
from kdprune.data.stream import Adaptive, Stream
from kdprune.orders.common.plan import Plan
from kdprune.orders.curriculum import PACINGS, Curriculum, share
from kdprune.orders.infobatch import InfoBatch, pruned
from kdprune.orders.rs2 import RS2


def loss_of(ids: torch.Tensor, step: int) -> torch.Tensor:
    """A loss in [0, 1) for each sample of a step, as if it was trained."""
    return uniform(bits(key("loss", step), ids), 1)[:, 0]


@st.composite
def plans(draw, most_steps: int = 25):
    ids = np.array(sorted(draw(st.sets(st.integers(0, 500), min_size=1, max_size=40))), dtype=np.int64)
    batch_size = 2 * draw(st.integers(1, 8))
    return Plan(ids, batch_size, draw(st.integers(1, most_steps)), len(ids), draw(st.integers(0, 3)))


few = settings(max_examples=50)
ratios, shares = st.sampled_from([0.0, 0.25, 0.5, 0.9]), st.sampled_from([0.0, 0.5, 0.875, 1.0])

# --- InfoBatch --------------------------------------------------------------------------------------------------------


def literal_infobatch(plan: Plan, ratio: float, anneal: float, loss=loss_of):
    """Qin et al.'s rule, sample by sample: (ids, epochs, weights) of each step."""
    ids, size, kept = plan.ids.tolist(), plan.batch_size, len(plan.ids)
    budget = plan.steps * size
    epochs = math.ceil(budget / kept)
    stream: list[tuple[int, int, float]] = []
    latest: dict[int, float] = {}
    begins: list[int] = []
    steps = []
    total = math.inf
    while len(steps) < total:
        while len(stream) < (len(steps) + 1) * size and len(steps) < total:
            epoch = len(begins)
            mean = np.mean(list(latest.values())) if latest else None
            draws = uniform(bits(key(plan.seed, "infobatch", epoch), torch.tensor(ids)), 1)[:, 0].tolist()
            weight = {}
            for i, u in zip(ids, draws, strict=True):
                weight[i] = 1.0
                if epoch < anneal * epochs and i in latest and latest[i] < mean:
                    weight[i] = 0.0 if u < ratio else 1 / (1 - ratio)
            begins.append(len(stream))
            order = permutation(key(plan.seed, "order", epoch), torch.tensor([i for i in ids if weight[i]]))
            stream += [(i, epoch, weight[i]) for i in order.tolist()]
            if epoch == epochs - 1:
                in_last = (len(stream) - begins[-1]) * (budget - (epochs - 1) * kept) // kept
                total = max((begins[-1] + in_last) // size, begins[-1] // size + 1)
        if len(steps) == total:
            break
        batch = stream[len(steps) * size : (len(steps) + 1) * size]
        losses = loss(torch.tensor([i for i, _, _ in batch]), len(steps)).tolist()
        latest |= {i: one for (i, _, _), one in zip(batch, losses, strict=True)}
        steps.append(tuple(map(list, zip(*batch, strict=True))))
    return steps


def followed(order: InfoBatch, begin: int = 0, parts: int = 1, loss=loss_of):
    """(ids, epochs, weights) of each step from `begin` on, as a training in `parts` parts sees them."""
    steps, step = [], begin
    while step < order.steps:
        assert step < order.decided <= order.steps
        pieces = [order.batch(step, part, parts) for part in range(parts)]
        ids, epochs = (torch.cat(column) for column in zip(*pieces, strict=True))
        steps.append((ids.tolist(), epochs.tolist(), order.weights(ids, epochs).tolist()))
        order.observe(step, 0, parts, loss(ids, step).chunk(parts))
        step += 1
    return steps


@few
@given(plans(), ratios, shares)
def test_infobatch_is_the_rule_of_its_paper(plan, ratio, anneal):
    seen, expected = followed(InfoBatch(plan, ratio, anneal)), literal_infobatch(plan, ratio, anneal)
    assert [(ids, epochs) for ids, epochs, _ in seen] == [(ids, epochs) for ids, epochs, _ in expected]
    for (_, _, weights), (_, _, others) in zip(seen, expected, strict=True):
        assert weights == pytest.approx(others)


@few
@given(plans(), ratios)
def test_no_epoch_of_infobatch_repeats_a_sample_and_the_first_and_last_ones_hold_all(plan, ratio):
    order = InfoBatch(plan, ratio, 0.5)
    seen = followed(order)
    ids, epochs, weights = (np.concatenate(column) for column in zip(*seen, strict=True))
    for epoch in range(epochs[-1] + 1):
        in_epoch = ids[epochs == epoch]
        assert len(set(in_epoch)) == len(in_epoch)
        if epoch == 0 or epoch >= 0.5 * order.epochs:
            assert (weights[epochs == epoch] == 1).all()
            whole = order.ends[epoch] - order.begin(epoch)
            assert whole == len(plan.ids)
    assert order.epochs - 1 in epochs


@few
@given(plans())
def test_infobatch_that_prunes_nothing_is_the_stream(plan):
    order, stream = InfoBatch(plan, 0.0), Stream(plan.ids, plan.batch_size, plan.seed)
    assert isinstance(order, Adaptive)
    assert not isinstance(stream, Adaptive)
    seen = followed(order)
    assert order.steps == plan.steps == len(seen)
    for step, (ids, epochs, weights) in enumerate(seen):
        assert [ids, epochs] == [column.tolist() for column in stream.batch(step)]
        assert set(weights) == {1.0}
        assert order.clock(step) == pytest.approx(step)


@settings(max_examples=20)
@given(plans(most_steps=12), ratios)
def test_infobatch_goes_on_from_every_step_as_if_it_had_not_stopped(plan, ratio):
    whole = followed(InfoBatch(plan, ratio))
    for stop in range(len(whole) + 1):
        order = InfoBatch(plan, ratio)
        for step in range(stop):
            order.state_dict()  # a checkpoint on the way changes nothing
            order.observe(step, 0, 1, [loss_of(order.batch(step)[0], step)])
        file = io.BytesIO()
        torch.save(order.state_dict(), file)
        file.seek(0)
        other = InfoBatch(plan, ratio)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert followed(other, stop) == whole[stop:]
        assert other.steps == len(whole)


@settings(max_examples=20)
@given(plans(most_steps=12), ratios)
def test_two_processes_decide_as_one(plan, ratio):
    """Each hears the losses of its own half, and both what they add up to."""
    meeting, sums = threading.Barrier(2), [None, None]

    def process(rank: int, results: list) -> None:
        def gather(x: torch.Tensor) -> torch.Tensor:
            sums[rank] = x
            meeting.wait(10)
            total = sums[0] + sums[1]
            meeting.wait(10)
            return total

        order = InfoBatch(Plan(plan.ids, plan.batch_size, plan.steps, plan.size, plan.seed, gather=gather), ratio)
        step = 0
        while step < order.steps:
            ids, _ = order.batch(step, rank, 2)
            results.append(ids.tolist())
            order.observe(step, rank, 2, [loss_of(ids, step)])
            step += 1

    halves: tuple[list, list] = ([], [])
    threads = [threading.Thread(target=process, args=(rank, halves[rank])) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [a + b for a, b in zip(*halves, strict=True)] == [ids for ids, _, _ in followed(InfoBatch(plan, ratio))]


@few
@given(plans(), ratios)
def test_what_infobatch_says_of_steps_and_epochs(plan, ratio):
    order = InfoBatch(plan, ratio)
    most = order.steps
    seen = followed(order)
    assert len(seen) == order.steps <= most <= plan.steps
    clock = [order.clock(step) for step in range(order.steps)]
    assert clock == sorted(clock)
    assert clock[0] == 0
    assert clock[-1] < plan.steps
    last = [epochs[-1] for _, epochs, _ in seen]
    for step in range(order.steps):
        epoch = order.epoch_of(step)
        assert order.epoch_end(epoch) > step
        assert epoch == 0 or order.epoch_end(epoch - 1) <= step
        assert epoch <= last[step]


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_expected_weighted_gradient_is_the_gradient_of_all_samples(ratio):
    random = np.random.default_rng(0)
    x, y = torch.tensor(random.normal(size=(60, 5))), torch.tensor(random.integers(0, 3, 60))
    w = torch.tensor(random.normal(size=(5, 3)), requires_grad=True)
    loss_K = F.cross_entropy(x @ w, y, reduction="none")
    (full,) = torch.autograd.grad(loss_K.sum(), w, retain_graph=True)
    draws = (torch.arange(100) + 0.5) / 100  # all equally likely
    shifts = torch.arange(60)  # each sample its own draw
    weights = torch.stack([pruned(loss_K.detach(), draws[(shifts * 7 + u) % 100], ratio) for u in range(100)]).double()
    torch.testing.assert_close(weights.mean(0), torch.ones(60).double(), rtol=1e-6, atol=0)
    grads = [torch.autograd.grad((weight_K * loss_K).sum(), w, retain_graph=True)[0] for weight_K in weights]
    torch.testing.assert_close(torch.stack(grads).mean(0), full, rtol=1e-6, atol=1e-9)
    assert (weights == 0).any()
    without_rescaling = torch.stack(
        [torch.autograd.grad(((weight_K > 0) * loss_K).sum(), w, retain_graph=True)[0] for weight_K in weights]
    ).mean(0)
    assert (without_rescaling - full).norm() > 0.02 * full.norm()


def test_a_sample_without_a_loss_counts_for_no_mean_and_is_kept():
    loss = torch.tensor([torch.nan, 1.0, 3.0, torch.nan, 2.0])
    assert pruned(loss, torch.zeros(5), 0.5).tolist() == [1, 0, 1, 1, 1]
    assert pruned(loss, torch.ones(5), 0.5).tolist() == [1, 2, 1, 1, 1]
    assert pruned(torch.full((3,), torch.nan), torch.zeros(3), 0.5).tolist() == [1, 1, 1]
    assert pruned(torch.full((7,), 0.1), torch.zeros(7), 0.5).tolist() == [1] * 7  # none is below


# --- RS2 --------------------------------------------------------------------------------------------------------------


@given(plans(), st.data())
def test_rs2_takes_the_samples_of_a_training_on_all_of_them_in_shorter_epochs(plan, data):
    size = data.draw(st.integers(1, len(plan.ids)))
    plan = Plan(plan.ids, plan.batch_size, plan.steps, size, plan.seed)
    order, stream = RS2(plan), Stream(plan.ids, plan.batch_size, plan.seed)
    seen, passes = (torch.cat(c) for c in zip(*map(order.batch, range(plan.steps)), strict=True))
    assert torch.equal(seen, torch.cat([stream.batch(step)[0] for step in range(plan.steps)]))
    samples = plan.steps * plan.batch_size
    assert order.epochs == math.ceil(samples / size)
    assert order.views == int(passes[-1]) + 1
    for some in seen.split(len(plan.ids)):  # no repetition until all are used
        assert len(set(some.tolist())) == len(some)
    pairs = list(zip(seen.tolist(), passes.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)  # each sample in a new view each time
    for epoch in range(order.epochs):
        end = order.epoch_end(epoch)
        assert (end - 1) * plan.batch_size < (epoch + 1) * size <= end * plan.batch_size
    for step in range(plan.steps):
        assert order.epoch_of(step) == next(e for e in range(samples + 1) if order.epoch_end(e) > step)


# --- curricula --------------------------------------------------------------------------------------------------------


def literal_pacing(name: str, t: float, total: float, a: float, b: float, n: float) -> float:
    """Wu et al. 2021: the number of samples after t of `total` steps."""
    if t >= a * total:
        return n
    return {
        "log": lambda: n * b + n * (1 - b) * (1 + 0.1 * np.log(t / (a * total) + np.exp(-10))),
        "exp": lambda: n * b + n * (1 - b) / (np.exp(10) - 1) * (np.exp(10 * t / (a * total)) - 1),
        "step": lambda: n * b + n * (1 - b) * np.floor(t / (a * total)),
        "root": lambda: n * b + n * (1 - b) / (a * total) ** 0.5 * t**0.5,
        "linear": lambda: n * b + n * (1 - b) / (a * total) * t,
        "quadratic": lambda: n * b + n * (1 - b) / (a * total) ** 2 * t**2,
    }[name]()


@given(st.sampled_from(sorted(PACINGS)), st.floats(0, 1), st.floats(0.05, 1), st.floats(0.01, 1))
def test_pacing_functions_are_those_of_wu(name, progress, a, b):
    expected = literal_pacing(name, progress * 700, 700, a, b, 900) / 900
    assert share(progress, name, b, a) == pytest.approx(min(1, expected), abs=1e-9)


@given(
    plans(), st.sampled_from(["easy", "hard", "random"]), st.sampled_from(sorted(PACINGS)), st.sampled_from([0.1, 0.4])
)
def test_an_epoch_of_a_curriculum_is_its_first_samples_by_difficulty(plan, which, pacing, start):
    scores = np.round(np.random.default_rng(plan.seed).normal(size=501), 1)  # with ties
    plan = Plan(plan.ids, plan.batch_size, plan.steps, plan.size, plan.seed, scores=scores)
    order = Curriculum(plan, which, pacing, start, 0.7)
    seen, epochs = (torch.cat(c) for c in zip(*map(order.batch, range(plan.steps)), strict=True))
    kept, samples, position, earlier = len(plan.ids), plan.steps * plan.batch_size, 0, set()
    for epoch in range(order.epochs):
        part = literal_pacing(pacing, position, samples, 0.7, start, kept)
        count = min(kept, max(round(share(position / samples, pacing, start, 0.7) * kept), min(plan.batch_size, kept)))
        assert abs(count - min(kept, max(part, min(plan.batch_size, kept)))) <= 1
        ids = seen[epochs == epoch].tolist()
        assert len(set(ids)) == len(ids)
        members = set(order.members(epoch).tolist())
        assert set(ids) <= members
        assert len(members) == count
        assert earlier <= members  # none leaves
        if position + count <= samples:
            assert set(ids) == members
        rest = set(plan.ids.tolist()) - members
        if which == "easy" and rest:
            assert scores[list(members)].max() <= scores[list(rest)].min()
        if which == "hard" and rest:
            assert scores[list(members)].min() >= scores[list(rest)].max()
        position, earlier = position + count, members
    assert position >= samples
    assert order.epochs == int(epochs[-1]) + 1
    for step in range(plan.steps):
        epoch = order.epoch_of(step)
        assert order.epoch_end(epoch) > step
        assert epoch == 0 or order.epoch_end(epoch - 1) <= step


def test_ties_of_a_curriculum_are_broken_by_the_seed_and_not_by_the_place():
    firsts = []
    for seed in range(2):
        plan = Plan(np.arange(1000), 10, 100, 1000, seed, scores=np.zeros(1000))
        firsts.append(set(Curriculum(plan, start=0.2).members(0).tolist()))
        assert 60 < len(firsts[-1] & set(range(500))) < 140
    assert firsts[0] != firsts[1]


def test_infinite_scores_are_the_easiest_or_the_hardest_and_nan_is_refused():
    scores = np.array([0.0, np.inf, 1.0, -np.inf])
    plan = Plan(np.arange(4), 1, 40, 4, 0, scores=scores)
    assert Curriculum(plan, "easy", "step", 0.25).members(0).tolist() == [3]
    assert Curriculum(plan, "hard", "step", 0.25).members(0).tolist() == [1]
    with pytest.raises(ValueError, match=r"2 samples have NaN.*1, 3"):
        Curriculum(Plan(np.arange(4), 1, 4, 4, 0, scores=np.array([0, np.nan, 1, np.nan])))
    Curriculum(Plan(np.array([0, 2]), 1, 4, 2, 0, scores=np.array([0, np.nan, 1, np.nan])))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda plan: InfoBatch(plan, ratio=1.0), r"ratio.*1\.0 given.*\[0, 1\)"),
        (lambda plan: InfoBatch(plan, anneal="0.5"), r"anneal.*'0\.5' given"),
        (lambda plan: Curriculum(plan, "esy"), r"'esy'.*'easy'"),
        (lambda plan: Curriculum(plan, "random", "linar"), r"'linar'.*'linear'"),
        (lambda plan: Curriculum(plan, "random", start=0), r"start.*0 given.*\(0, 1\]"),
        (lambda plan: Curriculum(plan, "random", end=1.5), r"end.*1\.5 given"),
        (lambda plan: Curriculum(plan), r"there are no scores.*random"),
    ],
)
def test_values_that_are_not_allowed_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make(Plan(np.arange(10), 2, 5, 10, 0))

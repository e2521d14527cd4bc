"""Every loss against a literal float64 restatement of its formula; sums of losses.

The contract that all losses share is in test_check_loss.py.

Shapes: N samples, C classes, D features.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdprune import registry
from kdprune.losses.common.base import DistillLoss, LossInput, label_parts
from kdprune.losses.common.features import as_vector
from kdprune.losses.common.sum import build_loss
from kdprune.losses.dist import dist
from kdprune.losses.dkd import dkd
from kdprune.losses.kd import kd
from kdprune.losses.logit_std import standardise
from kdprune.losses.review import hierarchical_context
from kdprune.losses.rkd import relations
from kdprune.testing.loss_batch import example_batch

NAMES = registry.names("losses")
LAYERS = [("shallow", "stem"), ("deep", "body")]
PAIRS_OF = {"attention_transfer": LAYERS[:1]}
T = 3.0


def make(name, **params):
    """A loss by name, on the layers that `batch_of` records."""
    return build_loss({"name": name, "params": params}, T, PAIRS_OF.get(name, LAYERS))


def batch_of(n=6, seed=0):
    """`example_batch` with vectors as its deep features."""
    batch = example_batch(n, seed)
    generator = torch.Generator().manual_seed(seed)
    batch.student_features["deep"] = torch.randn(n, 3, generator=generator).requires_grad_()
    batch.teacher_features["body"] = torch.randn(n, 7, generator=generator)
    return batch


def mix(target_N, num_classes, share):
    """Mixup of each label with the one before it."""
    one_hot_NC = nn.functional.one_hot(target_N, num_classes).double()
    return share * one_hot_NC + (1 - share) * one_hot_NC.roll(1, 0)


# --- logits: the formulas, one sample at a time, in float64 and without any trick -----------------------------------


def softmax(z):
    e = torch.exp(z - z.max())  # the one trick: exp(500)² overflows even here
    return e / e.sum()


def kl(p, q):
    return (p * (torch.log(p) - torch.log(q))).sum()


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt() + 1e-8)


def one_kd(s, t, y):
    return T**2 * kl(softmax(t / T), softmax(s / T))


def one_soft_ce(s, t, y):
    return -(T**2) * (softmax(t / T) * torch.log(softmax(s / T))).sum()


def one_hard(s, t, y):
    return -torch.log(softmax(s))[t.argmax()]


def one_mse(s, t, y):
    return ((s - t) ** 2).sum() / len(s)


def one_dkd(s, t, y):
    others = [i for i in range(len(s)) if i != y]

    def binary(z):
        p = softmax(z / T)
        return torch.stack([p[y], p[others].sum()])

    return T**2 * (1 * kl(binary(t), binary(s)) + 8 * kl(softmax(t[others] / T), softmax(s[others] / T)))


def one_nkd(s, t, y):
    others = [i for i in range(len(s)) if i != y]
    target = -softmax(t)[y] * torch.log(softmax(s)[y])
    return target - 1.5 * T**2 * (softmax(t[others] / T) * torch.log(softmax(s[others] / T))).sum()


def standard(z):
    return (z - z.mean()) / (((z - z.mean()) ** 2).sum().div(len(z) - 1).sqrt() + 1e-7)


def whole_dist(s_NC, t_NC, target):
    s_NC = torch.stack([softmax(s / T) for s in s_NC])
    t_NC = torch.stack([softmax(t / T) for t in t_NC])
    row = torch.stack([pearson(s, t) for s, t in zip(s_NC, t_NC, strict=True)]).mean()
    if len(s_NC) == 1:
        return T**2 * (1 - row)
    column = torch.stack([pearson(s_NC[:, c], t_NC[:, c]) for c in range(s_NC.shape[1])]).mean()
    return T**2 * ((1 - row) + (1 - column))


def mean_of(one):
    """A batch loss from the loss of a sample with one label; a mixed label is the sum over its classes."""

    def whole(s_NC, t_NC, target):
        total = 0.0
        for s, t, y in zip(s_NC, t_NC, target, strict=True):
            labels = [(y.item(), 1.0)] if y.ndim == 0 else [(c, p) for c, p in enumerate(y.tolist()) if p > 0]
            total = total + sum(p * one(s, t, c) for c, p in labels)
        return total / len(s_NC)

    return whole


def standardised(one):
    return lambda s, t, y: one(standard(s), standard(t), y)


ORACLES = {
    "kd": mean_of(one_kd),
    "soft_ce": mean_of(one_soft_ce),
    "hard": mean_of(one_hard),
    "mse_logits": mean_of(one_mse),
    "dkd": mean_of(one_dkd),
    "nkd": mean_of(one_nkd),
    "dist": whole_dist,
    "logit_std": mean_of(standardised(one_kd)),
    "logit_std(loss='dkd')": mean_of(standardised(one_dkd)),
}


def reads_labels(name):
    return "dkd" in name or name == "nkd"


def logits(n, num_classes, confidently_wrong):
    """Student and teacher logits and labels; a confidently wrong student's logits are 500 apart."""
    generator = torch.Generator().manual_seed(n * num_classes)
    student = 2 * torch.randn(n, num_classes, generator=generator)
    teacher = 2 * torch.randn(n, num_classes, generator=generator)
    target = torch.randint(num_classes, (n,), generator=generator)
    teacher[torch.arange(n), target] += 4
    if confidently_wrong:
        student[torch.arange(n), (target + 1) % num_classes] += 500
    return student, teacher, target


# Every pair of these values occurs: samples, classes, whether the student is confidently wrong, type of the logits.
CASES = [
    (1, 2, False, torch.float32),
    (7, 2, True, torch.bfloat16),
    (1, 1000, True, torch.float32),
    (7, 1000, False, torch.bfloat16),
    (7, 1000, True, torch.float32),
]


@pytest.mark.parametrize(
    ("name", "mixed"), [(name, mixed) for name in ORACLES for mixed in (False, True) if not mixed or reads_labels(name)]
)
def test_logits_losses_are_their_formulas(name, mixed):
    for n, num_classes, confidently_wrong, dtype in CASES:
        if "logit_std" in name:
            num_classes = max(num_classes, 3)  # two standardised logits are always ±0.7
        student, teacher, labels = logits(n, num_classes, confidently_wrong)
        if mixed:
            labels = mix(labels, num_classes, 0.7)
        student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
        exact, exact_teacher = student.detach().double().requires_grad_(), teacher.double()

        loss, batch = build_loss(name, T), LossInput(student, teacher, labels)
        assert_equal_with_gradients(loss(batch), ORACLES[name](exact, exact_teacher, labels), student, exact)
        if not loss.relational:
            weights = torch.arange(n) / n
            rows = zip(exact.split(1), exact_teacher.split(1), labels.split(1), strict=True)
            expected = (weights * torch.stack([ORACLES[name](*row) for row in rows])).mean()
            assert_equal_with_gradients(loss(replace(batch, weights=weights)), expected, student, exact)


def assert_equal_with_gradients(loss, expected, student, exact):
    """The loss of `student` is `expected`, and so is its gradient, where `exact` are the same logits in float64."""
    (gradient,), (expected_gradient,) = torch.autograd.grad(loss, student), torch.autograd.grad(expected, exact)
    assert loss.dtype == torch.float32
    scale = T**2  # a loss near 0 may be off by float32's rounding of its terms, which are about as large as this
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6 * scale)
    rounding = 1e-5 if student.dtype == torch.float32 else 2**-8  # a gradient has its logits' type
    error, size = (gradient.double() - expected_gradient).norm(), expected_gradient.norm()
    assert error <= rounding * size + 1e-6 * scale / len(student)
    assert gradient.isfinite().all()


def test_t_squared_keeps_the_gradient_of_kd_in_closed_form():
    for temperature in (0.5, 1.0, 20.0):
        batch = batch_of()
        build_loss("kd", temperature)(batch).backward()
        q, p = (z.detach().div(temperature).softmax(1) for z in (batch.student_logits, batch.teacher_logits))
        torch.testing.assert_close(batch.student_logits.grad, temperature * (q - p) / len(q))


finite = st.floats(-30, 30, width=32)
matrices = (
    st.integers(2, 6)
    .flatmap(lambda c: st.lists(st.lists(finite, min_size=c, max_size=c), min_size=1, max_size=4))
    .map(lambda rows: torch.tensor(rows, dtype=torch.float64))
)


@settings(max_examples=50, deadline=None)
@given(matrices, st.floats(0.5, 20), st.floats(-50, 50))
def test_kd_decouples_and_ignores_a_constant(student_NC, temperature, constant):
    """Zhao et al. 2022, eq. 6: KD = TCKD + (1 − p_y)·NCKD; and softmax knows logits up to a constant only."""
    teacher_NC = student_NC.flip(1)
    target_N = torch.zeros(len(student_NC), dtype=torch.int64)
    whole = kd(student_NC, teacher_NC, temperature)
    assert whole >= -1e-9
    torch.testing.assert_close(
        kd(student_NC + constant, teacher_NC - constant, temperature), whole, atol=1e-7, rtol=1e-7
    )
    parts = 0.0
    for s, t in zip(student_NC, teacher_NC, strict=True):
        others = 1 - (t / temperature).softmax(0)[0]
        parts += dkd(s[None], t[None], target_N[:1], temperature, 1.0, others)
    torch.testing.assert_close(parts / len(student_NC), whole, atol=1e-7, rtol=1e-7)


def test_label_parts_of_a_mixed_label_are_its_likeliest_classes():
    classes_NK, shares_NK = label_parts(torch.tensor([[0.0, 0.25, 0.75]]))
    assert classes_NK.tolist() == [[2, 1]]
    assert shares_NK.tolist() == [[0.75, 0.25]]


def test_standardise_has_mean_0_std_1_and_leaves_equal_logits():
    z_NC = standardise(torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]], requires_grad=True))
    torch.testing.assert_close(z_NC[0].mean() + 1, torch.tensor(1.0))
    torch.testing.assert_close(z_NC[0].std(), torch.tensor(1.0))
    assert z_NC[1].tolist() == [0, 0, 0]


# --- features ---------------------------------------------------------------------------------------------------


def pool(x_CHW, size):
    """Average pooling of a map whose height and width are multiples of `size`."""
    step = x_CHW.shape[1] // size
    rows = [
        torch.stack([x_CHW[:, i : i + step, j : j + step].mean((1, 2)) for j in range(0, step * size, step)], dim=1)
        for i in range(0, step * size, step)
    ]
    return torch.stack(rows, dim=1)


def maps(x):
    return x if x.ndim == 4 else x[:, :, None, None]


def whole_fitnet(pairs, loss):
    total = 0.0
    for (s, t), projector in zip(pairs, loss.losses[0].projectors, strict=True):
        weight, bias = projector.weight[:, :, 0, 0].double(), projector.bias.double()
        squares = [
            ((torch.einsum("oc,chw->ohw", weight, pool(a, b.shape[1])) + bias[:, None, None] - b) ** 2).mean()
            for a, b in zip(maps(s), maps(t), strict=True)
        ]
        total = total + sum(squares) / len(squares)
    return total


def whole_attention(pairs, loss):
    total = 0.0
    for s, t in pairs:
        for a, b in zip(maps(s), maps(t), strict=True):
            a, b = ((pool(x, maps(t).shape[2]) ** 2).mean(0).flatten() for x in (a, b))
            total = total + ((a / a.norm() - b / b.norm()) ** 2).mean() / len(s)
    return total


def whole_similarity(pairs, loss):
    def similarity(x):
        rows = [torch.stack([(a * b).sum() for b in x]) for a in x]
        return torch.stack([row / row.norm() for row in rows])

    return sum(((similarity(s) - similarity(t)) ** 2).sum() / len(s) ** 2 for s, t in pairs)


def huber(a, b):
    return 0.5 * (a - b) ** 2 if (a - b).abs() < 1 else (a - b).abs() - 0.5


def whole_rkd(pairs, loss):
    total = 0.0
    for s, t in pairs:
        n, s, t = len(s), s.flatten(1), t.flatten(1)
        two = list(itertools.permutations(range(n), 2))

        def distance(x, i, j, two=two):
            return (x[i] - x[j]).norm() / (sum((x[a] - x[b]).norm() for a, b in two) / len(two))

        def cosine(x, i, j, k):
            a, b = x[i] - x[j], x[k] - x[j]
            return (a * b).sum() / a.norm() / b.norm()

        total = total + 25 * sum(huber(distance(s, *ij), distance(t, *ij)) for ij in two) / n**2
        three = itertools.permutations(range(n), 3)
        total = total + 50 * sum(huber(cosine(s, *ijk), cosine(t, *ijk)) for ijk in three) / n**3
    return total


def whole_crd(pairs, loss, ids=(), queue=()):
    """Against the batch and the queue, but not against what the queue holds of the same sample."""
    (s, t), crd = pairs[-1], loss.losses[0]  # of several pairs the last
    student, teacher = (
        lambda x, head=head: head.weight.double() @ x + head.bias.double()
        for head in (crd.student_head, crd.teacher_head)
    )
    total = 0.0
    for i, a in enumerate(s):
        others = [x for sample, x in queue if sample != ids[i]]
        keys = [teacher(x) for x in [*t, *others]]
        exponents = [torch.exp((student(a) * b).sum() / student(a).norm() / b.norm() / 0.07) for b in keys]
        total = total - torch.log(exponents[i] / sum(exponents)) / len(s)
    return total


def whole_review(pairs, loss):
    """Levels of size 1 and 8, deepest first; batch normalisation by hand."""

    def conv_norm(block, x):
        x = nn.functional.conv2d(x, block[0].weight.double(), padding=block[0].padding)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (var + 1e-5).sqrt()

    def context(s, t):
        weights = [(1.0, s.shape[2])] + [(2.0**-k, size) for k, size in ((1, 2), (2, 1)) if size < s.shape[2]]
        terms = [
            w * sum(((pool(a, size) - pool(b, size)) ** 2).mean() for a, b in zip(s, t, strict=True)) / len(s)
            for w, size in weights
        ]
        return sum(terms) / sum(w for w, _ in weights)

    (s0, t0), (s1, t1) = pairs
    shallow, deep = loss.losses[0].fusions
    deep_mixed = conv_norm(deep.enter, maps(s1))
    total = context(conv_norm(deep.leave, deep_mixed), maps(t1))
    own, other = conv_norm(shallow.enter, s0), deep_mixed.expand(-1, -1, 8, 8)
    attend = shallow.attend[0]
    weights = nn.functional.conv2d(torch.cat([own, other], 1), attend.weight.double(), attend.bias.double()).sigmoid()
    mixed = (weights[:, :1] * own + weights[:, 1:] * other)[:, :, ::2, ::2]
    return total + context(conv_norm(shallow.leave, mixed), t0)


FEATURE_ORACLES = {
    "fitnet": whole_fitnet,
    "attention_transfer": whole_attention,
    "similarity_preserving": whole_similarity,
    "rkd": whole_rkd,
    "crd": whole_crd,
    "review": whole_review,
}


@pytest.mark.parametrize("name", FEATURE_ORACLES)
def test_feature_losses_are_their_formulas(name):
    for n, dtype, rounding in ((6, torch.float32, 1e-4), (7, torch.bfloat16, 2**-7)):
        batch = batch_of(n)
        features = {k: v.detach().to(dtype).requires_grad_() for k, v in batch.student_features.items()}
        teacher = {k: v.to(dtype) for k, v in batch.teacher_features.items()}
        torch.manual_seed(0)
        loss = make(name)
        loss.build(features, teacher)
        value = loss(replace(batch, student_features=features, teacher_features=teacher))
        value.backward()

        exact = {k: v.detach().double().requires_grad_() for k, v in features.items()}
        expected = FEATURE_ORACLES[name]([(exact[s], teacher[t].double()) for s, t in loss.layers], loss)
        expected.backward()
        torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=1e-7)
        for student_layer, _ in loss.layers:
            gradient, expected_gradient = features[student_layer].grad.double(), exact[student_layer].grad
            assert (gradient - expected_gradient).norm() <= rounding * expected_gradient.norm() + 1e-6


def test_crd_with_a_full_queue_is_its_formula_and_trains_its_heads():
    first, batch = batch_of(8, seed=1), batch_of(6)
    assert set(first.sample_ids.tolist()) & set(batch.sample_ids.tolist())
    loss = make("crd")
    loss.build(batch.student_features, batch.teacher_features)
    loss(first)
    heads = dict(loss.named_parameters())
    got = dict(zip(heads, torch.autograd.grad(loss(batch), list(heads.values())), strict=True))
    queue = list(zip(first.sample_ids.tolist(), first.teacher_features["body"].double(), strict=True))
    pair = (batch.student_features["deep"].detach().double(), batch.teacher_features["body"].double())
    expected = whole_crd([pair], loss, batch.sample_ids.tolist(), queue)
    for name, want in zip(heads, torch.autograd.grad(expected, list(heads.values())), strict=True):
        torch.testing.assert_close(got[name], want, rtol=1e-4, atol=1e-6)


def test_hierarchical_context_skips_sizes_that_are_not_smaller():
    s, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    expected = ((s - t) ** 2).mean()
    for weight, size in ((0.5, 2), (0.25, 1)):
        a, b = (torch.stack([pool(x, size) for x in maps]) for maps in (s, t))
        expected = expected + weight * ((a - b) ** 2).mean()
    torch.testing.assert_close(hierarchical_context(s, t), expected / 1.75)


def test_relations_of_repeated_points_are_finite():
    x_ND = torch.randn(5, 4)
    x_ND[1] = x_ND[0]
    x_ND.requires_grad_()
    distance_NN, cosine_NNN = relations(x_ND)
    assert distance_NN[0, 1] == 0
    (distance_NN.square().sum() + cosine_NNN.square().sum()).backward()
    assert x_ND.grad.isfinite().all()


def test_the_queue_of_crd_is_bounded_and_never_holds_a_sample_against_itself():
    loss = make("crd", negatives=10)
    loss.build(batch_of().student_features, batch_of().teacher_features)
    crd = loss.losses[0]
    for step in range(4):
        batch = batch_of(n=4, seed=step)
        loss(batch)
        assert crd.queue.shape == (10, 7)
        assert crd.queue_ids[:4].tolist() == batch.sample_ids.tolist()
        torch.testing.assert_close(crd.queue[:4], batch.teacher_features["body"])
    assert (crd.queue_ids >= 0).all()
    loss.eval()
    before = crd.queue_ids.clone()
    crd.queue_ids[:] = batch.sample_ids[0]  # every negative from the queue is sample 0
    alone = replace(
        batch,
        sample_ids=batch.sample_ids[:1],
        student_features={"deep": batch.student_features["deep"][:1]},
        teacher_features={"body": batch.teacher_features["body"][:1]},
    )
    assert loss(alone) == 0
    assert not torch.equal(before, crd.queue_ids)
    with pytest.raises(ValueError, match="sample_ids"):
        loss(replace(batch, sample_ids=None))


def test_layers_and_feature_shapes_that_fit_no_loss_are_refused():
    assert as_vector(torch.ones(2, 3, 4, 4)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"larger than 1×1, which \('deep', 'body'\)"):
        build_loss("attention_transfer", T, LAYERS).build(batch_of().student_features, batch_of().teacher_features)
    with pytest.raises(ValueError, match=r"\(2, 9, 8\)"):
        as_vector(torch.ones(2, 9, 8))
    with pytest.raises(ValueError, match=r"layer 'deep' \(recorded: shallow\)"):
        make("fitnet").build({"shallow": torch.ones(2, 3)}, {"stem": torch.ones(2, 3), "body": torch.ones(2, 3)})
    for layers in (["layer3"], [("a", "b", "c")], [(1, 2)]):
        with pytest.raises(ValueError, match="layers are pairs"):
            build_loss({"name": "fitnet", "params": {"layers": layers}}, T)
    for name in FEATURE_ORACLES:
        with pytest.raises(ValueError, match="needs layers"):
            build_loss(name, T).check(5)


# --- what some losses share -----------------------------------------------------------------------------------------


def test_a_student_that_equals_its_teacher_has_nothing_to_learn():
    for name in ("kd", "dkd", "dist", "logit_std", "mse_logits"):
        batch = batch_of()
        value = make(name)(replace(batch, teacher_logits=batch.student_logits.detach()))
        value.backward()
        assert value.abs() < 1e-5, name
        assert batch.student_logits.grad.norm() < 1e-4, name


def test_features_that_equal_the_teachers_have_nothing_to_learn():
    for name in ("fitnet", "attention_transfer", "similarity_preserving", "rkd"):
        x = {"a": torch.randn(5, 4, 3, 3, requires_grad=True)}
        loss = build_loss(name, T, [("a", "a")])
        loss.build(x, x)
        value = loss(replace(batch_of(5), student_features=x, teacher_features=x))
        value.backward()
        assert value.abs() < 1e-5, name
        assert x["a"].grad.norm() < 1e-4, name


def test_temperature_must_be_above_0():
    names = [name for name in NAMES if "temperature" in vars(registry.get("losses", name)())]
    assert {"kd", "dkd", "dist"} <= set(names)
    for name in names:
        for temperature in (0, -1.0, math.inf, math.nan, True, "4"):
            with pytest.raises(ValueError, match=f"temperature must be .*{temperature}"):
                build_loss({"name": name, "params": {"temperature": temperature}}, T)
        with pytest.raises(ValueError, match=r"temperature must be .*-2"):
            build_loss(name, -2)


def test_too_few_classes_are_refused_before_the_first_step():
    for name, least in {"kd": 2, "soft_ce": 2, "hard": 2, "dkd": 2, "dist": 2, "nkd": 3, "logit_std": 3}.items():
        with pytest.raises(ValueError, match=f"at least {least} classes, the data has {least - 1}"):
            make(name).check(least - 1)
    with pytest.warns(UserWarning, match="beta has no effect"):
        make("dkd").check(2)
    with pytest.warns(UserWarning, match="only gamma teaches"):
        make("dist").check(2)
    with pytest.raises(ValueError, match="at least 3"):
        build_loss("logit_std(loss='nkd') + kd", T).check(2)


# --- sums -----------------------------------------------------------------------------------------------------------


class NoMix(DistillLoss):
    """A third party's loss."""

    accepts_mixed_labels = False

    def __init__(self, size, **rest):
        super().__init__()
        self.size = size

    def compute(self, batch):
        return self.size * batch.student_logits.mean()


@pytest.fixture
def no_mix(monkeypatch):
    monkeypatch.setitem(registry._registered["losses"], "no_mix", NoMix)


def test_a_sum_is_the_weighted_sum_of_its_terms(no_mix):
    batch = batch_of()
    loss = build_loss("0.5*kd + 2*nkd(temperature=1) + 0*fitnet + no_mix(size=2, more=1)", T, LAYERS)
    loss.check(5)
    loss.build(batch.student_features, batch.teacher_features)
    terms = [build_loss(text, T)(batch) for text in ("kd", "nkd(temperature=1)", "no_mix(size=2)")]
    torch.testing.assert_close(loss(batch), 0.5 * terms[0] + 2 * terms[1] + terms[2])
    assert loss.needs_labels
    assert loss.needs_features
    assert not loss.accepts_mixed_labels
    assert loss.layers == tuple(LAYERS)
    assert len(list(loss.parameters())) == 4
    for weights in (None, torch.ones(6)):
        with pytest.raises(ValueError, match=r"NoMix.*mixup"):
            loss(replace(batch, labels=mix(batch.labels, 5, 0.7), weights=weights))


def test_a_sum_weights_samples_if_each_of_its_terms_can(no_mix):
    batch = replace(batch_of(), weights=torch.arange(6) / 6)
    kd_value, other = (build_loss(text, T)(batch) for text in ("kd", "logit_std(loss='dkd + nkd')"))
    value = build_loss("0.5*kd + 2*logit_std(loss='dkd + nkd')", T)(batch)
    torch.testing.assert_close(value, 0.5 * kd_value + 2 * other)
    cannot = {"kd + rkd": "RKD", "logit_std(loss='kd + dist')": "DIST", "no_mix(size=1)": "NoMix"}
    for expression, name in cannot.items():
        loss = build_loss(expression, T, LAYERS)
        assert loss.relational == (name != "NoMix")
        with pytest.raises(ValueError, match=f"^{name} "):
            loss(batch)
    with pytest.raises(ValueError, match=r"6 samples.*\(6, 1\)"):
        build_loss("kd", T)(replace(batch, weights=torch.ones(6, 1)))


def test_the_runs_temperature_yields_to_a_terms_own():
    batch = batch_of()
    own = build_loss("kd(temperature=2)", 7.0)(batch)
    torch.testing.assert_close(own, build_loss("kd", 2.0)(batch))
    torch.testing.assert_close(build_loss("logit_std(temperature=2)", 7.0)(batch), build_loss("logit_std", 2.0)(batch))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("dkd(alhpa=1)", "unknown parameter of loss dkd 'alhpa'; did you mean 'alpha'.*allowed: alpha, beta, temp"),
        ("mse_logits(temperature=4)", "unknown parameter of loss mse_logits 'temperature'"),
        ("no_mix", "loss no_mix needs size"),
        ("kd(temperature='warm')", "temperature must be"),
        ("dkd(alpha=-1)", "alpha must be a finite number, not below 0, got -1"),
        ("logit_std(loss='dkd(gamma=2)')", "unknown parameter of loss dkd 'gamma'"),
        ("logit_std(loss='fitnet')", "logit_std is for losses of logits"),
    ],
)
def test_parameters_are_refused_when_the_loss_is_built(no_mix, expression, message):
    with pytest.raises(ValueError, match=message):
        build_loss(expression, T)


# --- steps for one process or for each of two (test_processes.py) --------------------------------------------------


def dist_step(part, wrap=lambda model: model):
    """The gradient of `dist`, whose correlations over a class need all samples, and its loss."""
    student_NC, teacher_NC, _ = logits(8, 5, False)
    torch.manual_seed(0)
    model = wrap(nn.Linear(5, 5))
    loss = dist(model(student_NC[part]), teacher_NC[part], T, 1.0, 2.0)
    loss.backward()
    return [p.grad for p in model.parameters()], loss.detach()


def crd_steps(part, wrap=lambda model: model):
    """Two batches through crd, so that the second meets the first in the queue: its parameters' gradients, its loss."""
    torch.manual_seed(0)
    crd = make("crd")
    first = batch_of(8, seed=1)
    crd.build(first.student_features, first.teacher_features)
    model = wrap(crd)
    for whole in (first, batch_of(8, seed=2)):
        student, teacher = (
            {k: v[part] for k, v in f.items()} for f in (whole.student_features, whole.teacher_features)
        )
        model.zero_grad()
        loss = model(
            LossInput(whole.student_logits[part], whole.teacher_logits[part], sample_ids=whole.sample_ids[part],
                      student_features=student, teacher_features=teacher)
        )  # fmt: skip
        loss.backward()
    return [p.grad for p in model.parameters()], loss.detach()

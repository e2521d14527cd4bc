"""The scripts of `examples/theory`: closed forms beside literal restatements, what they claim, a figure."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
from helpers import REPO, script
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm

FOLDER = "examples/theory"
SCRIPTS = sorted((REPO / FOLDER).glob("*.py"))


def module(name: str) -> dict:
    return runpy.run_path(str(REPO / FOLDER / f"{name}.py"))


@pytest.fixture(scope="module")
def ridge() -> dict:
    return module("teacher_bias")


@pytest.fixture(scope="module")
def perceptron() -> dict:
    return module("perceptron_pruning")


@pytest.fixture(scope="module")
def trees() -> dict:
    return module("tree_distillation")


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("teacher_bias", ["--draws", 50], "f_t = 1"),
        ("perceptron_pruning", ["--dimensions", 15, "--students", 2], "hard"),
        ("tree_distillation", ["--trees", 1, "--depth", 2], "1 of 1 exact"),
    ],
)
def test_a_script_draws_its_figure(tmp_path, name, words, said):
    figure = tmp_path / "figure.png"
    status, out, complaints = script(f"{FOLDER}/{name}.py", ["--output", figure, *words])
    assert status == 0, complaints
    assert said in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert figure.stat().st_size > 5000


def test_scripts_are_short_and_spoken_of():
    page = (REPO / "docs" / "theory.md").read_text()
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 150
        assert f"{FOLDER}/{path.name}" in page
        assert f"theory_{path.stem}.png" in page


# --- linear regression ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", [None, 0.0, 0.6, 1.0])
@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_the_student_is_the_minimum_of_its_loss(ridge, fraction, teacher):
    problem, alpha = ridge["make_problem"](30, 5), 0.7
    y_N = np.random.default_rng(3).standard_normal(30)
    kept = round(fraction * 30)

    def fitted(x, targets_and_weights):
        def loss(theta):
            parts = (weight * ((x @ theta - target) ** 2).sum() for target, weight in targets_and_weights)
            return sum(parts) + problem.ridge * (theta**2).sum()

        return minimize(loss, np.zeros(5), tol=1e-12).x

    targets = [(y_N[:kept], 1.0)]
    if teacher is not None:
        seen = max(kept, round(teacher * 30))
        taught = problem.x_ND[:kept] @ fitted(problem.x_ND[:seen], [(y_N[:seen], 1.0)])
        targets = [(y_N[:kept], 1 - alpha), (taught, alpha)]
    expected = fitted(problem.x_ND[:kept], targets)
    np.testing.assert_allclose(problem.operator(fraction, teacher, alpha) @ y_N, expected, atol=1e-5)


@given(st.floats(0.1, 1), st.sampled_from([None, 0.0, 0.5, 1.0]), st.floats(0, 1))
def test_the_closed_form_of_the_bias_is_what_the_student_misses_without_noise(fraction, teacher, alpha):
    problem = module("teacher_bias")["make_problem"](40, 6)
    missed = problem.theta_D - problem.operator(fraction, teacher, alpha) @ problem.x_ND @ problem.theta_D
    np.testing.assert_allclose(problem.bias(fraction, teacher, alpha), missed, atol=1e-9)


def test_simulation_comes_to_the_closed_form(ridge):
    problem = ridge["make_problem"](60, 8)
    bias, variance = ridge["simulated"](problem, 0.4, 1.0, 0.8, 20_000)
    assert bias == pytest.approx((problem.bias(0.4, 1.0, 0.8) ** 2).sum(), rel=0.02)
    assert variance == pytest.approx(problem.variance(0.4, 1.0, 0.8), rel=0.02)


def test_a_teacher_of_more_data_lowers_the_bias(ridge):
    for seed in range(5):
        problem = ridge["make_problem"](seed=seed)
        for fraction in (0.1, 0.3, 0.6):
            biases = [(problem.bias(fraction, f_t, 0.8) ** 2).sum() for f_t in (fraction, 0.7, 1.0)]
            assert biases == sorted(biases, reverse=True)
            assert (problem.bias(fraction, None, 0.8) ** 2).sum() < biases[-1]  # what distillation pays
            assert problem.variance(fraction, 1.0, 0.8) < problem.variance(fraction, None, 0.8)  # and what for


# --- perceptron -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["hard", "easy", "random"])
def test_the_quadrature_is_of_the_pruned_margins(perceptron, keep):
    z, p = perceptron["margins"](keep, 0.3)
    drawn = np.sort(np.abs(np.random.default_rng(0).standard_normal(200_000)))
    kept = {"hard": drawn[:60_000], "easy": drawn[-60_000:], "random": drawn}[keep]
    assert p.sum() == pytest.approx(1)
    assert (z @ p, z**2 @ p) == pytest.approx((kept.mean(), (kept**2).mean()), rel=0.01)


def test_the_margin_solves_its_equation(perceptron):
    """E over h by drawing, where the script has it in closed form."""
    z, p = perceptron["margins"]("easy", 0.4)
    angle, alpha = 0.5, 1.7
    (kappa,) = perceptron["margin_at"](np.array([angle]), z, p, alpha)
    h = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    excess = [(np.maximum(kappa - np.cos(angle) * one - np.sin(angle) * h, 0) ** 2).mean() for one in z]
    assert alpha * (p @ np.array(excess)) == pytest.approx(np.sin(angle) ** 2, rel=1e-3)


def test_the_student_has_the_largest_margin(perceptron):
    x_PN = np.random.default_rng(0).standard_normal((12, 4))
    x_PN *= np.sign(x_PN[:, :1])
    found = perceptron["max_margin"](x_PN)
    assert (x_PN @ found).min() == pytest.approx(1)
    constraint = {"type": "ineq", "fun": lambda w: x_PN @ w - 1}
    expected = minimize(lambda w: w @ w, found + 0.3, constraints=constraint, tol=1e-12).x
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("keep", ["hard", "easy", "random"])
@pytest.mark.parametrize("samples", [2, 12])
def test_simulated_students_err_as_often_as_the_theory_says(perceptron, keep, samples):
    drawn = [perceptron["simulate"](samples, 0.4, keep, 80, seed) for seed in range(12)]
    error = 5 * np.std(drawn, ddof=1) / 12**0.5 + 0.01  # of N = 80 dimensions, and of the mean
    assert np.mean(drawn) == pytest.approx(perceptron["theory"](samples, 0.4, keep), abs=error)


def test_hard_samples_are_kept_when_data_is_abundant_and_easy_ones_when_it_is_scarce(perceptron):
    theory = perceptron["theory"]
    for fraction in (0.2, 0.4):
        assert theory(2, fraction, "easy") < theory(2, fraction, "random") < theory(2, fraction, "hard")
        assert theory(25, fraction, "hard") < theory(25, fraction, "easy")
    assert theory(4, 1.0, "hard") == pytest.approx(theory(4, 1.0, "easy"), rel=1e-3)  # nothing is pruned
    assert theory(100, 1.0, "random") == pytest.approx(theory(200, 1.0, "random") * 2, rel=0.05)  # a power law, 1/α


# --- trees ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 9), st.integers(1, 4), st.integers(0, 10_000))
def test_a_planted_network_is_its_tree_and_comes_back(bits, depth, seed):
    trees = module("tree_distillation")
    random = np.random.default_rng(seed)
    tree = trees["random_tree"](bits, depth, random)
    network = trees["planted"](tree, bits, random)
    every = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
    expected = [literal(tree, x) for x in every.tolist()]
    assert network(every)[1].tolist() == expected == trees["predict"](tree, every).tolist()
    found, probes = trees["distil"](network, bits, depth, 1500, seed)
    assert trees["predict"](found, every).tolist() == expected
    assert 2 * bits <= probes


def literal(tree, x: list[int]) -> int:
    while not isinstance(tree, int):
        tree = tree[1 + x[tree[0]]]
    return tree


def test_the_number_of_probes_is_that_of_prolonged_clauses(trees):
    """Of a tree that asks for bit 0, then 1 or 2: 2·5 single literals; then, of each that passed, all others."""
    tree = (0, (1, 0, 1), (2, 1, 0))
    network = trees["planted"](tree, 5, np.random.default_rng(0))
    found, probes = trees["distil"](network, 5, 2, 400)
    assert found == tree
    assert probes == 2 * 5 + 2 * 2 * 4


def test_too_few_queries_are_refused(trees):
    network = trees["planted"]((0, 0, 1), 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="7 weights"):
        trees["distil"](network, 3, 1, 7)


def test_figures_of_the_page_are_there():
    assert all((REPO / "docs" / f"theory_{path.stem}.png").is_file() for path in SCRIPTS)

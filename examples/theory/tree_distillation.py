"""A network that holds a decision tree is distilled into it by linear probes, exactly, with few of them.

Boix-Adserà 2024 (arXiv 2403.09053, section on decision trees): let every node of the tree be the AND of the literals on
the way to it. If a hidden layer φ represents each of these linearly (the linear representation hypothesis), then the
tree is found level by level: an AND of k literals is a candidate only if it prolongs one of k − 1 literals that passed,
and it passes if a linear probe of φ gives it on all queried inputs. Without φ, all 2^k·C(d, k) ANDs would have to be
looked at.

The networks are planted, so that the answer is known: a layer of ReLUs with one unit a node (the sum of its literals
less k − 1) and as many units of random weights, behind it a random rotation, so that no unit of φ stands for anything
by itself, and a linear output. The distiller has queries: an input goes in, φ and the output come out.

Shapes: Q queries, D bits of an input, H hidden units.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from kdprune.pipeline.drawing import INK, new_figure, save, style

Clause = frozenset[tuple[int, int]]  # literals: a bit, and the value that it has
Tree = Any  # a leaf's class, 0 or 1; or (bit, the tree where it is 0, the tree where it is 1)
Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def holds(clause: Clause, x_QD: np.ndarray) -> np.ndarray:  # bool Q
    return np.all([np.ones(len(x_QD), bool), *(x_QD[:, bit] == value for bit, value in clause)], axis=0)


def predict(tree: Tree, x_QD: np.ndarray) -> np.ndarray:
    """The classes that a tree gives, Q."""
    if isinstance(tree, int):
        return np.full(len(x_QD), tree)
    bit, zero, one = tree
    return np.where(x_QD[:, bit] == 1, predict(one, x_QD), predict(zero, x_QD))


def random_tree(bits: int, depth: int, random: np.random.Generator, used: tuple[int, ...] = ()) -> Tree:
    """A full tree that asks for no bit twice on a way, and whose sister leaves differ."""
    bit = int(random.choice([b for b in range(bits) if b not in used]))
    if depth == 1:
        return bit, *((0, 1) if random.integers(2) else (1, 0))
    return bit, *(random_tree(bits, depth - 1, random, (*used, bit)) for _ in range(2))


def nodes(tree: Tree, way: Clause = frozenset()) -> dict[Clause, int | None]:
    """The AND of each node, with the class of a leaf; the root's is the empty one."""
    if isinstance(tree, int):
        return {way: tree}
    return {way: None, **nodes(tree[1], way | {(tree[0], 0)}), **nodes(tree[2], way | {(tree[0], 1)})}


def planted(tree: Tree, bits: int, random: np.random.Generator) -> Network:
    """A network of two layers that computes a tree, as described above."""
    ands = nodes(tree)
    first_DH, bias_H = random.standard_normal((bits, 2 * len(ands))), random.standard_normal(2 * len(ands))
    for unit, clause in enumerate(ands):
        first_DH[:, unit], bias_H[unit] = 0, 1 - len(clause) + sum(1 - value for _, value in clause)
        first_DH[[bit for bit, _ in clause], unit] = [2 * value - 1 for _, value in clause]  # x, or 1 − x with the bias
    rotation_HH, _ = np.linalg.qr(random.standard_normal((len(bias_H), len(bias_H))))
    counts_H = np.array([*(c == 1 for c in ands.values()), *[0] * len(ands)], dtype=float)

    def network(x_QD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi_QH = np.maximum(x_QD @ first_DH + bias_H, 0) @ rotation_HH
        return phi_QH, (phi_QH @ (rotation_HH.T @ counts_H) > 0.5).astype(int)

    return network


def distil(network: Network, bits: int, depth: int, queries: int, seed: int = 0) -> tuple[Tree | None, int]:
    """The smallest tree that the passing clauses make, None where they make none; and the number of probes.

    Raises:
        ValueError: no more queries than a probe has weights, so that it gives everything.
    """
    x_QD = np.random.default_rng(seed).integers(0, 2, (queries, bits))
    phi_QH, output_Q = network(x_QD)
    if queries <= phi_QH.shape[1] + 1:
        raise ValueError(f"{queries} queries given, and a probe has {phi_QH.shape[1] + 1} weights")
    basis, sizes, _ = np.linalg.svd(np.column_stack([phi_QH, np.ones(queries)]), full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes[0]]

    def passes(clause: Clause) -> bool:
        y = holds(clause, x_QD).astype(float)  # one that no input satisfies is not seen to pass
        return bool(y.any() and np.abs(y - basis @ (basis.T @ y)).max() < 1e-6)

    level: set[Clause] = {frozenset()}
    passed, probes = set(level), 0
    for _ in range(depth):
        longer = {c | {(b, value)} for c in level for b in range(bits) if b not in dict(c) for value in (0, 1)}
        level, probes = {clause for clause in longer if passes(clause)}, probes + len(longer)
        passed |= level

    def grow(clause: Clause) -> Tree | None:
        below = output_Q[holds(clause, x_QD)]
        if below.min() == below.max():
            return int(below[0])
        asked = [b for b in range(bits) if b not in dict(clause) and {clause | {(b, v)} for v in (0, 1)} <= passed]
        trees = [(b, grow(clause | {(b, 0)}), grow(clause | {(b, 1)})) for b in asked]
        return min((tree for tree in trees if None not in tree), key=lambda tree: len(nodes(tree)), default=None)

    return grow(frozenset()), probes


def recovered(bits: int, depth: int, queries: int, seed: int) -> tuple[bool, int]:
    """Whether a planted tree comes back, as a function of all inputs or of 4,096 of them; and the probes."""
    tree = random_tree(bits, depth, random := np.random.default_rng(seed))
    found, probes = distil(planted(tree, bits, random), bits, depth, queries, seed)
    inputs = np.arange(2**bits)[:, None] >> np.arange(bits) & 1 if bits <= 12 else random.integers(0, 2, (4096, bits))
    return found is not None and bool((predict(found, inputs) == predict(tree, inputs)).all()), probes


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("tree_distillation.png"))
    parser.add_argument("--trees", type=int, default=10, help="for each point")
    parser.add_argument("--depth", type=int, default=4)
    given = parser.parse_args(words)
    figure, weights = new_figure(10, 4), 2 * (2 ** (given.depth + 1) - 1) + 1  # of a probe
    left, right = figure.subplots(1, 2)
    for bits in (sizes := [6, 8, 12, 16, 24, 32, 48]):
        found = [recovered(bits, given.depth, 10 * weights, seed) for seed in range(given.trees)]
        everything, probes = sum(2**k * comb(bits, k) for k in range(1, given.depth + 1)), [n for _, n in found]
        print(f"{bits} bits, {10 * weights} queries: {sum(exact for exact, _ in found)} of {given.trees} exact, "
              f"{np.mean(probes):.0f} probes, {everything:,} ANDs in all")  # fmt: skip
        left.plot(bits, everything, "s", color="#c8443a", label="all ANDs" if bits == 6 else None)
        left.plot([bits] * len(probes), probes, "o", color="#2a78d6", label="linear probes" if bits == 6 else None)
    queries = [round(weights * times) + 1 for times in (1.02, 1.1, 1.25, 1.5, 2, 3, 5)]
    for bits, color in ((8, "#8ab4e4"), (16, "#123a6b")):
        exact = [[recovered(bits, given.depth, count, seed)[0] for seed in range(given.trees)] for count in queries]
        right.plot(queries, 100 * np.mean(exact, axis=1), "o-", color=color, label=f"{bits} bits", clip_on=False)
    style(left, "bits of an input", f"looked at for a tree of depth {given.depth}")
    left.set(xscale="log", yscale="log")
    left.set_xticks(sizes, sizes)
    left.minorticks_off()
    style(right, f"queries of the network ({weights} weights of a probe)", "trees recovered exactly, %")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    print(save(figure, given.output))


if __name__ == "__main__":
    main()

"""The geometry of embeddings beside scikit-learn, or beside the naive algorithm, at the same size.

    python benchmarks/geometry.py                          # 20,000 × 128, 100 clusters: under a minute on two cores
    python benchmarks/geometry.py --n 100000 --d 384 --clusters 1000 --rounds 1

Features are clusters with noise, float32. Each side runs in turns in one process, the best of --rounds counts. Prints a
line of JSON for each of --what:

    kmeans      beside scikit-learn's KMeans with the same iterations, and MiniBatchKMeans; and the inertias
    kcenter     beside one product with a vector and one minimum a centre, over all rows
    dedup       SemDeDup's scores in its clusters, beside all similarities of a cluster at once
    d2          neighbours in clusters, messages and choice, beside exact neighbours and a choice by argmax

    seconds       ours
    ratio         of the other's seconds to ours: above 1, ours is faster
    extra_mib     the most memory that ours adds to what the features take
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from kdprune.geometry.d2 import d2_select, spread
from kdprune.geometry.dedup import semdedup
from kdprune.geometry.kcenter import kcenter
from kdprune.geometry.kmeans import KMeans, kmeans
from kdprune.geometry.neighbours import neighbours, neighbours_in_clusters
from kdprune.runs.accelerator import device_name

K = 10  # neighbours


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    x_ND = _features(options.n, options.d, options.groups).to(device)
    result = {
        "benchmark": "geometry", "hardware": device_name(device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "n": options.n, "d": options.d,
    }  # fmt: skip
    for what in options.what:
        measured = {"kmeans": _kmeans, "kcenter": _kcenter, "dedup": _dedup, "d2": _d2}[what](x_ND, options)
        print(json.dumps({**result, "what": what, **measured}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--groups", type=int, default=200, help="of which the features are made")
    parser.add_argument("--keep", type=float, default=0.01, help="share that kcenter keeps")
    parser.add_argument("--iterations", type=int, default=10, help="of k-means, on all rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--what", nargs="+", default=["kmeans", "kcenter", "dedup", "d2"])
    parser.add_argument("--alone", action="store_true", help="without the other side, for sizes that it cannot do")
    return parser.parse_args()


def _features(n: int, d: int, groups: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    centers_GD = torch.randn(groups, d, generator=g)
    return centers_GD[torch.randint(groups, (n,), generator=g)].add_(torch.randn(n, d, generator=g))


def _kmeans(x_ND: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    k, steps = options.clusters, options.iterations
    host = x_ND.cpu().numpy()
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: kmeans(x_ND, k, iterations=steps, tolerance=-1.0, points_per_centroid=None),
        "defaults": lambda: kmeans(x_ND, k),
        "sklearn": lambda: SklearnKMeans(k, n_init=1, max_iter=steps, tol=0.0, random_state=0).fit(host),
        "sklearn_minibatch": lambda: MiniBatchKMeans(k, n_init=1, batch_size=4096, random_state=0).fit(host),
    }
    if options.alone:
        sides = {name: side for name, side in sides.items() if not name.startswith("sklearn")}
    measured, found = _interleaved(sides, options.rounds, x_ND.device)
    inertia = {name: float(f.inertia if isinstance(f, KMeans) else f.inertia_) for name, f in found.items()}
    return {"clusters": k, "iterations": steps, **measured, "inertia": inertia}


def _kcenter(x_ND: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    count = max(1, round(options.keep * len(x_ND)))
    sides = {"ours": lambda: kcenter(x_ND, count), "naive": lambda: _naive_kcenter(x_ND, count)}
    measured, found = _interleaved(sides, options.rounds, x_ND.device, options.alone)
    if "naive" in found:
        measured["equal"] = float((found["ours"].chosen == found["naive"]).float().mean())
    return {"count": count, **measured}


def _naive_kcenter(x_ND: Tensor, count: int) -> Tensor:
    x_ND = x_ND - x_ND.mean(0)
    squares_N = torch.linalg.vecdot(x_ND, x_ND)
    least_N = torch.full_like(squares_N, torch.inf)
    i, chosen = squares_N.argmax(), []
    for _ in range(count):
        chosen.append(i)
        least_N = torch.minimum(least_N, torch.addmv(squares_N + squares_N[i], x_ND, x_ND[i], alpha=-2))
        i = least_N.argmax()
    return torch.stack(chosen)


def _dedup(x_ND: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    found = kmeans(x_ND, options.clusters, spherical=True)
    sides = {
        "ours": lambda: semdedup(x_ND, found.cluster_N, found.distance_N),
        "naive": lambda: _naive_dedup(x_ND, found),
    }
    measured, scores = _interleaved(sides, options.rounds, x_ND.device, options.alone)
    if "naive" in scores:
        measured["largest_difference"] = float((scores["ours"] - scores["naive"]).abs().max())
    return {"clusters": options.clusters, "largest_cluster": int(found.sizes_K.max()), **measured}


def _naive_dedup(x_ND: Tensor, found: KMeans) -> Tensor:
    score_N = x_ND.new_full((len(x_ND),), -1.0)
    for cluster in range(len(found.sizes_K)):
        members = (found.cluster_N == cluster).nonzero().flatten()
        members = members[found.distance_N[members].argsort(descending=True)]
        x_MD = torch.nn.functional.normalize(x_ND[members], dim=1)
        earlier = torch.ones(len(members), len(members), dtype=torch.bool, device=x_ND.device).tril(-1)
        if len(members):
            score_N[members] = torch.where(earlier, x_MD @ x_MD.T, -1.0).amax(1)
    return score_N


def _d2(x_ND: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    clusters = kmeans(x_ND, options.clusters)
    score_N = torch.rand(len(x_ND), generator=torch.Generator().manual_seed(1)).to(x_ND.device)
    count = len(x_ND) // 2

    def ours() -> Tensor:
        graph = neighbours_in_clusters(x_ND, K, clusters.cluster_N, clusters.centroids_KD, probes=4)
        return d2_select(
            spread(score_N, graph.index_NK, graph.squared_NK), graph.index_NK, graph.squared_NK, count, gamma=0.01
        )

    def naive() -> Tensor:
        graph = neighbours(x_ND, K)
        value_N, chosen = spread(score_N, graph.index_NK, graph.squared_NK), []
        weight_NK = torch.exp(-0.01 * graph.squared_NK.double())
        for _ in range(count):
            i = value_N.argmax()
            chosen.append(i)
            value_N[graph.index_NK[i]] -= weight_NK[i] * value_N[i]
            value_N[i] = -torch.inf
        return torch.stack(chosen)

    measured, _ = _interleaved({"ours": ours, "naive": naive}, options.rounds, x_ND.device, options.alone)
    return {"clusters": options.clusters, "probes": 4, "count": count, **measured}


def _interleaved(
    sides: dict[str, Callable[[], Any]], rounds: int, device: torch.device, alone: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Best seconds of each side, in turns, the memory that ours took, and what the sides gave."""
    sides = {"ours": sides["ours"]} if alone else sides
    seconds, found, peak = dict.fromkeys(sides, float("inf")), {}, 0.0
    for _ in range(rounds):
        for name, side in sides.items():
            with _Peak(device) as memory:
                started = time.perf_counter()
                found[name] = side()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds[name] = min(seconds[name], time.perf_counter() - started)
            peak = max(peak, memory.mib) if name == "ours" else peak
    ratio = {name: round(s / seconds["ours"], 2) for name, s in seconds.items() if name != "ours"}
    rounded = {name: round(s, 2) for name, s in seconds.items()}
    return {"seconds": rounded, "ratio": ratio, "extra_mib": round(peak)}, found


class _Peak:
    """The most memory in use beyond that at the beginning: on a CPU looked at every 10 ms."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.mib, self.done = device, 0.0, threading.Event()

    def __enter__(self) -> _Peak:
        self.before = self._now()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        if self.device.type == "cuda":
            self.mib = (torch.cuda.max_memory_allocated() - self.before) / 2**20

    def _watch(self) -> None:
        while not self.done.wait(0.01):
            self.mib = max(self.mib, (self._now() - self.before) / 2**20)

    def _now(self) -> int:
        return torch.cuda.memory_allocated() if self.device.type == "cuda" else psutil.Process().memory_info().rss


if __name__ == "__main__":
    main()

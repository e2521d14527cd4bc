"""Seconds and memory of selecting from very many scores: a file of scores to a subset file, each in a fresh process.

    python benchmarks/selecting.py                                              # 100 million scores, 1000 classes
    python benchmarks/selecting.py --samples 10_000_000 --selectors ccs "window(start=0.2)"

Prints one line of JSON: for each selector, plain and balanced, the seconds from the first byte read to the last one
written (imports are told apart), processor seconds, which others on the machine disturb less, and the largest resident
memory of its process (to reach: 60 s and 4 GiB).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SELECTORS = ["random", "hardest", "window(skip_hardest=500)", "ccs", "moderate", "beta"]

# What a process of its own does: its peak memory is that of one selection, and not of making the scores.
CHILD = """
import json, resource, sys, time
begun, processor = time.perf_counter(), time.process_time()
from kdprune.data.scores import load_scores
from kdprune.selectors.common.samples import samples_of
from kdprune.selectors.common.select import select
file, selector, balanced, keep, output = sys.argv[1:]
imported = time.perf_counter()
samples = samples_of(load_scores(file))
loaded = time.perf_counter()
subset = select(samples, float(keep), selector, balanced=balanced == "1")
chosen = time.perf_counter()
subset.save(output)
saved = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({
    "selector": selector, "balanced": balanced == "1", "kept": len(subset.ids), "seconds": round(saved - imported, 1),
    "load": round(loaded - imported, 1), "choose": round(chosen - loaded, 1), "save": round(saved - chosen, 1),
    "imports": round(imported - begun, 1),
    "processor": round(time.process_time() - processor, 1), "peak_gib": round(peak, 2),
}))
"""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        # Only `beta` reads a second column, so only its file has one.
        files = {name: Path(folder, f"{'beta' if name == 'beta' else 'scores'}.parquet") for name in options.selectors}
        settings = {"samples": options.samples, "classes": options.classes, "distinct": options.distinct}
        given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        for file in set(files.values()):
            subprocess.run([sys.executable, __file__, "--make", str(file), *given], check=True)
        about = {
            "benchmark": "select", "samples": options.samples, "classes": options.classes, "keep": options.keep,
            "distinct": options.distinct or "all", "cores": os.cpu_count(), "machine": platform.machine(),
            "load": round(os.getloadavg()[0], 2), "rows": [],
        }  # fmt: skip
        rows: list[dict[str, Any]] = about["rows"]
        for selector in options.selectors:
            for balanced in options.balanced:
                arguments: list[Any] = [files[selector], selector, balanced, options.keep, Path(folder, "subset.json")]
                command = [sys.executable, "-c", CHILD, *map(str, arguments)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(rows[-1], file=sys.stderr, flush=True)
    about["worst"] = {name: max(row[name] for row in rows) for name in ("seconds", "peak_gib")}
    print(json.dumps(about))


def make(path: Path, samples: int, classes: int, distinct: int) -> None:
    """A file of scores as a record gives them: skewed, most of them low; a count has few distinct values."""
    from kdprune.data.scores import Scores

    numbers = np.random.default_rng(0)
    values = numbers.random(samples, dtype=np.float32) ** 3
    if distinct:
        values = np.floor(values * distinct)
    labels = numbers.integers(classes, size=samples)
    names = tuple(f"class {label}" for label in range(classes))
    extra = {"mean_probability": 1 - values / max(1, distinct)} if path.stem == "beta" else {}
    Scores(values, labels, "f" * 64, "made", "high", names, {}, extra).save(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=0, help="distinct scores, as counts have them; 0: all differ")
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--selectors", nargs="+", default=SELECTORS)
    parser.add_argument("--balanced", nargs="+", choices=["0", "1"], default=["0", "1"])
    parser.add_argument("--folder", help="where the files are written for the time")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.samples, options.classes, options.distinct)
        sys.exit(0)
    return options


if __name__ == "__main__":
    main()

"""What a run asks of a Ray cluster, and how many runs there is room for. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What a run asks the cluster for.

    Attributes:
        cpus, gpus: of all of its processes together; less than a GPU where several runs share one.
        processes: of a run.
    """

    cpus: int
    gpus: float
    processes: int = 1


def asked(
    nodes: list[dict[str, float]], cpus: int | None, gpus: int | None, processes: int, runs_per_gpu: int | None
) -> Asked:
    """What a run asks for.

    Args:
        nodes: what each has, by Ray's names.

    Raises:
        ValueError: no node has it.
    """
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU")}
    wanted_gpus = float(processes if most["GPU"] else 0) if gpus is None else float(gpus)
    wanted = Asked(cpus or processes, wanted_gpus / (runs_per_gpu or 1), processes)
    for option, number, name in (("cpus", wanted.cpus, "CPU"), ("gpus", wanted.gpus, "GPU")):
        if number > most[name]:
            raise ValueError(
                f"--{option}: {number:g} for a run, and no node of the cluster has more than {most[name]:g}"
            )
    if wanted.gpus > 1 and runs_per_gpu not in (None, 1):
        raise ValueError(f"--runs_per_gpu: {runs_per_gpu} given, allowed is 1 for runs of several GPUs")
    return wanted


def room(nodes: list[dict[str, float]], wanted: Asked) -> int:
    """How many runs the nodes have room for at once."""
    found = 0
    for node in nodes:
        by_cpus = int(node.get("CPU", 0.0) // wanted.cpus)
        found += min(by_cpus, int(node.get("GPU", 0.0) / wanted.gpus + 1e-6)) if wanted.gpus else by_cpus
    return max(1, found)

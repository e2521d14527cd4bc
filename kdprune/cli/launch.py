"""`accelerate launch --cpu --num_processes N` as its reader means it: N processes.

Accelerate starts several processes on a CPU only with an MPI host file; without one it starts a single process and says
nothing. That case is recognised here and handed to torchrun.
"""

from __future__ import annotations

import os
import sys

import psutil

_LAUNCHED = ("WORLD_SIZE", "RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def processes_missing() -> int:
    """How many processes `accelerate launch` was asked for and did not start; 0 if all is well.

    Raises:
        ValueError: several were asked for, in a way that cannot be seen from here; the message says what to type.
    """
    asked_for_several = "MASTER_PORT" in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if not asked_for_several or any(name in os.environ for name in _LAUNCHED):
        return 0
    count = _option(psutil.Process().parent(), ("--num_processes", "--num-processes"))
    if count is None or not count.isdigit():
        raise ValueError(
            "accelerate launch starts only one process on a CPU; for N processes type "
            "torchrun --nproc_per_node N train.py …"
        )
    return int(count) if int(count) > 1 else 0


def relaunch(processes: int, arguments: list[str]) -> None:
    """Become torchrun with that many processes of `kdprune ARGUMENTS`; does not return."""
    master = ["--master_addr", os.environ.get("MASTER_ADDR", "127.0.0.1"), "--master_port", os.environ["MASTER_PORT"]]
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), *master]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "kdprune", *arguments])


def _option(process: psutil.Process | None, names: tuple[str, ...]) -> str | None:
    """The value of an option in a process's command line, up to the script that it starts."""
    words = process.cmdline() if process is not None else []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, given, value = word.partition("=")
        if name in names:
            return value if given else following
    return None

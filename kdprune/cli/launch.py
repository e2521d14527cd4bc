"""`accelerate launch --cpu --num_processes N` as its reader means it: N processes.

Accelerate starts several processes on a CPU only with an MPI host file; without one it starts a single process and says
nothing. That case is recognised here and handed to torchrun.

A launcher that is ended does not always end what it has started: `accelerate launch` passes no signal on, and torchrun
puts its processes into sessions of their own, where a kill of its group does not reach them. So each process watches
its launchers, and asks itself to stop, with a checkpoint, when one is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil

LOOK_EVERY = 1.0  # seconds
_FIRST = "KDPRUNE_LAUNCHER"  # the process that started torchrun through `relaunch`
_LAUNCHERS = ("accelerate", "accelerate.commands.launch", "torchrun", "torch.distributed.run")
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
    os.environ[_FIRST] = str(os.getppid())
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "kdprune", *arguments])


def stop_with_launchers() -> None:
    """Ask this process to stop as soon as one of those that launched it is gone; without a launcher, do nothing."""
    try:
        launchers = _launchers()
    except psutil.NoSuchProcess:
        launchers = []
        os.kill(os.getpid(), signal.SIGTERM)
    if launchers:
        threading.Thread(target=_stop_with, args=(launchers,), daemon=True).start()


def _launchers() -> list[psutil.Process]:
    """Those that are there; raises NoSuchProcess if one is gone already."""
    found = [psutil.Process(int(os.environ[_FIRST]))] if os.environ.get(_FIRST, "").isdigit() else []
    parent = psutil.Process().parent()
    while parent is not None and _is_launcher(parent):
        found.append(parent)
        parent = parent.parent()
    return found


def _is_launcher(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name in _LAUNCHERS for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def _stop_with(launchers: list[psutil.Process]) -> None:
    while all(map(_is_alive, launchers)):
        time.sleep(LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_lost_a_process(error: BaseException) -> bool:
    """Whether an error is how this process noticed that another one of its group has ended."""
    return isinstance(error, RuntimeError) and "WORLD_SIZE" in os.environ and any(
        sign in str(error) for sign in ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    )  # fmt: skip


def _option(process: psutil.Process | None, names: tuple[str, ...]) -> str | None:
    """The value of an option in a process's command line, up to the script that it starts."""
    words = process.cmdline() if process is not None else []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, given, value = word.partition("=")
        if name in names:
            return value if given else following
    return None

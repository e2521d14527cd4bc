"""Faults by the hundred: make a state, do something to it, run the command again, compare with the undisturbed run.

    python tests/faults/campaign.py --cases 1000 --seed 0
    python tests/faults/campaign.py --seed 0 --only 17 18      # those cases again, with what they say

Each case must end in the bytes of the undisturbed run, or in a message. A case is a function of the seed and of its
number, but for the moments at which processes are killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from faults.damage import DAMAGES
from faults.states import SETTINGS, Command, Scene
from helpers import FRESH, kdprune, said_by

SAME, REFUSED, FAILED = "same bytes", "refused", "failed"
PATIENCE = 120.0  # seconds for a process
WRITES = ("replace", "fsync", "link", "pwrite", "unlink", "mkdir", "ftruncate")


@dataclass
class Outcome:
    """How a case ended.

    Attributes:
        what: of SAME, REFUSED and FAILED.
        why: what was said, or what is wrong.
    """

    what: str
    why: str = ""


Fault = Callable[[Scene, random.Random], Outcome]


def again(scene: Scene) -> Outcome:
    """Run the command in this process and judge how it ends."""
    try:
        status, _, said = said_by(scene.command.words)
    except BaseException:
        return Outcome(FAILED, traceback.format_exc())
    return judged(scene, status, said)


def judged(scene: Scene, status: int | None, said: str) -> Outcome:
    """Compare with the undisturbed run, or see that there is a message."""
    if "Traceback" in said or status not in (0, 1, 2, 130):
        return Outcome(FAILED, f"status {status}: {said}")
    if status:
        messages = [line for line in said.splitlines() if line.startswith(("error:", "SIG", "interrupted", "process "))]
        return Outcome(REFUSED, messages[-1]) if messages else Outcome(FAILED, f"status {status}, no message: {said}")
    try:
        found = scene.command.result()
    except (OSError, ValueError, KeyError) as error:
        return Outcome(FAILED, f"status 0, and {error}")
    different = [name for name in {**found, **scene.expected} if found.get(name) != scene.expected.get(name)]
    return Outcome(FAILED, f"other results: {different}\n{said}") if different else Outcome(SAME)


# --- faults -----------------------------------------------------------------------------------------------------------


def a_damaged_file(scene: Scene, draw: random.Random) -> Outcome:
    state = draw.choice([state for state in scene.kept if state != "other"])
    scene.put(state)
    files = sorted(path for path in scene.command.folder.rglob("*") if path.is_file() and path.name != ".lock")
    other = sorted(path for path in scene.kept["other"].rglob("*") if path.is_file() and path.name != ".lock")
    path, damage = draw.choice(files), draw.choice(list(DAMAGES))
    DAMAGES[damage](path, draw, other)
    outcome = again(scene)
    outcome.why = f"{state}: {path.relative_to(scene.command.folder)} {damage}: {outcome.why}"
    return outcome


def killed(scene: Scene, draw: random.Random) -> Outcome:
    """At random moments, again and again."""
    scene.clear()
    for _ in range(draw.randrange(1, 5)):
        process = begun(scene.command)
        process.join(draw.uniform(0, 1.2 * scene.seconds))
        hit(process, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        if (wrong := ended(scene, process)) is not None:
            return wrong
    return again(scene)


def killed_at_a_write(scene: Scene, draw: random.Random) -> Outcome:
    """Before or after one of the calls that change something on the disk."""
    scene.clear()
    where = []
    for _ in range(draw.randrange(1, 4)):
        name, count, after = draw.choice(WRITES), int(draw.expovariate(1 / 12)), draw.random() < 0.5
        where.append(f"{'after' if after else 'before'} {name} {count}")
        process = begun(scene.command, _die_at, name, count, after)
        if (wrong := ended(scene, process)) is not None:
            return Outcome(FAILED, f"{where}: {wrong.why}")
    outcome = again(scene)
    outcome.why = f"{', '.join(where)}: {outcome.why}"
    return outcome


def a_full_disk(scene: Scene, draw: random.Random) -> Outcome:
    """A file system that is too small; then there is space."""
    scene.clear()
    size = max(1, round(draw.random() * scene.bytes / 4096)) * 4
    if not mounted(scene.command.folder, size):
        return Outcome(REFUSED, "only root may mount a small disk")
    try:
        first = again(scene)
        while first.what == REFUSED and draw.random() < 0.3:  # not enough yet
            size = round(1.2 * size)
            mounted(scene.command.folder, size, "remount,")
            first = again(scene)
        if first.what == REFUSED and "are free" not in first.why:
            return Outcome(FAILED, f"of {size} KiB: {first.why}")
        left = [path.name for path in scene.command.folder.rglob("*.tmp")]
        if first.what == FAILED or left:
            return Outcome(FAILED, f"of {size} KiB: {first.why}, {left}")
        mounted(scene.command.folder, 2**20, "remount,")
        second = again(scene)
        return Outcome(second.what if second.what == SAME else FAILED, f"of {size} KiB: {first.why}; {second.why}")
    finally:
        subprocess.run(["umount", scene.command.folder], check=True)


def a_limit_of_file_size(scene: Scene, draw: random.Random) -> Outcome:
    scene.clear()
    limit = round(2 ** draw.uniform(8, 17))
    process = begun(scene.command, _limit_files, limit)
    if (wrong := ended(scene, process)) is not None:
        return Outcome(FAILED, f"{limit} bytes: {wrong.why}")
    if process.exitcode and "are free" not in scene.log.read_text():
        return Outcome(FAILED, f"{limit} bytes: {scene.log.read_text()}")
    return again(scene)


def two_at_once(scene: Scene, draw: random.Random) -> Outcome:
    """The same command twice, one of which may be killed."""
    scene.clear()
    first = begun(scene.command)
    time.sleep(draw.uniform(0, 0.5 * scene.seconds))
    second = begun(scene.command)
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, scene.seconds))
        hit(draw.choice([first, second]), signal.SIGKILL)
    for process in (first, second):
        if (wrong := ended(scene, process)) is not None:
            return wrong
    return again(scene)


def one_of_two_processes_killed(scene: Scene, draw: random.Random) -> Outcome:
    """They share one training; then one process goes on with it, or two do."""
    scene.clear()
    both = together(scene.command)
    end = time.monotonic() + PATIENCE
    # Who waits for a process that never came is ended by a launcher, and there is none here.
    while not (scene.log.exists() and scene.log.stat().st_size) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(draw.uniform(0, 2 * scene.seconds))
    hit(draw.choice(both), draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
    for process in both:
        if (wrong := ended(scene, process)) is not None:
            return wrong
    for process in (both := together(scene.command)):
        if (wrong := ended(scene, process)) is not None or process.exitcode:
            return wrong or Outcome(FAILED, scene.log.read_text())
    return (
        Outcome(SAME) if scene.command.result() == scene.of_two else Outcome(FAILED, "other results of two processes")
    )


FAULTS: dict[str, tuple[Fault, int]] = {  # with how often each is tried
    "a damaged file": (a_damaged_file, 12),
    "killed": (killed, 3),
    "killed at a write": (killed_at_a_write, 4),
    "a full disk": (a_full_disk, 4),
    "a limit of file size": (a_limit_of_file_size, 1),
    "two at once": (two_at_once, 1),
    "one of two processes killed": (one_of_two_processes_killed, 1),
}


# --- processes --------------------------------------------------------------------------------------------------------


def begun(command: Command, setup: Callable[..., None] | None = None, *arguments: Any) -> Any:
    """The command in a process of its own, after `setup(*arguments)` there."""
    process = FRESH.Process(
        target=_run, args=(command.words, command.folder.parent / "log", setup, arguments), daemon=True
    )
    process.start()
    return process


def _run(words: Sequence[str], log: Path, setup: Callable[..., None] | None, arguments: Sequence[Any]) -> None:
    if setup is not None:
        setup(*arguments)
    kdprune(words, log)


def hit(process: Any, number: signal.Signals) -> None:
    """Send a signal, if it is there still."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def ended(scene: Scene, process: Any) -> Outcome | None:
    """Wait for a process; what is wrong with how it ended, if anything is."""
    process.join(PATIENCE)
    said = scene.log.read_text() if scene.log.exists() else ""
    if process.exitcode is None:
        process.kill()
        return Outcome(FAILED, f"it does not end: {said}")
    if "Traceback" in said or process.exitcode not in (0, 1, 2, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
        return Outcome(FAILED, f"exit code {process.exitcode}: {said}")
    return None


def _die_at(name: str, count: int, after: bool) -> None:
    """Kill this process at the n-th call of a function of `os`."""
    original, calls = getattr(os, name), [0]

    def call(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] > count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **more)
        if calls[0] > count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, name, call)


def _limit_files(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def together(command: Command) -> list[Any]:
    """Two processes that share the training, without a launcher."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [begun(command, _be_one_of_two, rank, port) for rank in range(2)]


def _be_one_of_two(rank: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip


def mounted(folder: Path, kibibytes: int, how: str = "") -> bool:
    """Whether a disk in memory of this size is there now."""
    words = ["mount", "-t", "tmpfs", "-o", f"{how}size={kibibytes}k", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(words, capture_output=True).returncode == 0


# --- the campaign -----------------------------------------------------------------------------------------------------


class Campaign:
    """Cases by number.

    Args:
        folder: for everything; its file system should be fast.
        commands: names of `SETTINGS`.
        faults: names of `FAULTS`.
    """

    def __init__(self, folder: Path, commands: Sequence[str], faults: Sequence[str]) -> None:
        self.folder, self.commands, self.faults = folder, list(commands), list(faults)
        self.scenes: dict[str, Scene] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []

    def scene(self, name: str) -> Scene:
        if name not in self.scenes:
            scene = Scene(self.folder / name, name)
            if "a damaged file" not in self.faults or len(self.faults) > 1:
                self._time(scene)
            self.scenes[name] = scene
        return self.scenes[name]

    def _time(self, scene: Scene) -> None:
        """How long the command takes in a process of its own; and what comes out of two that share it."""
        scene.clear()
        began = time.monotonic()
        _undisturbed(scene, [begun(scene.command)])
        scene.seconds = time.monotonic() - began
        if "one of two processes killed" in self.faults:
            scene.clear()
            _undisturbed(scene, together(scene.command))
            scene.of_two = scene.command.result()

    def case(self, number: int, seed: int) -> tuple[str, str, Outcome]:
        """Fault, command and outcome of a case."""
        draw = random.Random(f"{seed} {number}")
        fault = draw.choices(self.faults, [FAULTS[name][1] for name in self.faults])[0]
        command = draw.choice(self.commands)
        scene = self.scene(command)
        scene.log.unlink(missing_ok=True)
        try:
            return fault, command, FAULTS[fault][0](scene, draw)
        except Exception:
            return fault, command, Outcome(FAILED, traceback.format_exc())

    def try_out(self, number: int, seed: int, verbose: bool = False) -> None:
        fault, command, outcome = self.case(number, seed)
        self.counts[fault, outcome.what] += 1
        if outcome.what == FAILED or verbose:
            line = f"case {number}, {command}, {fault}: {outcome.what}: {outcome.why}"
            print(line, flush=True)
            if outcome.what == FAILED:
                self.failures.append(line)

    def table(self) -> str:
        columns = ("tried", SAME, REFUSED, FAILED)
        lines = [f"{'':28}" + "".join(f"{column:>12}" for column in columns)]
        sums = Counter[str]()
        for fault in self.faults:
            counts = {what: self.counts[fault, what] for what in columns[1:]}
            sums.update(counts)
            lines.append(_row(fault, [sum(counts.values()), *counts.values()]))
        return "\n".join([*lines, _row("all", [sums.total(), *(sums[what] for what in columns[1:])])])


def _undisturbed(scene: Scene, processes: Sequence[Any]) -> None:
    """Wait for processes that nothing happens to. One that is still there would disturb what comes after it."""
    for process in processes:
        wrong = ended(scene, process)
        if wrong is not None or process.exitcode:
            raise RuntimeError(f"{scene.command.name}, undisturbed: {wrong.why if wrong else scene.log.read_text()}")


def _row(name: str, counts: Sequence[int]) -> str:
    return f"{name:28}" + "".join(f"{count:>12,}" for count in counts)


def run(arguments: argparse.Namespace) -> int:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    os.environ["KDPRUNE_CACHE"], os.environ["OMP_NUM_THREADS"] = str(folder / "cache"), "1"
    campaign = Campaign(folder, arguments.commands, arguments.faults)
    end = time.monotonic() + 60 * arguments.minutes
    try:
        for number in arguments.only or range(arguments.cases):
            if time.monotonic() > end:
                break
            campaign.try_out(number, arguments.seed, bool(arguments.only))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print(campaign.table())
    return 1 if campaign.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of cases")
    parser.add_argument("--commands", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=FAULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(_arguments()))

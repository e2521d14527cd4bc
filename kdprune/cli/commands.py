"""The command `kdprune`. Imports nothing heavy before it is known that there is something to do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from kdprune.checks import check
from kdprune.cli import actions, analyse_parsers, parsers
from kdprune.cli.config_file import check_words
from kdprune.cli.launch import has_lost_a_process, processes_missing, relaunch, stop_with_launchers
from kdprune.cli.streams import bars_for_people, end_quietly, nobody_reads
from kdprune.config import Config, dotted, to_dict
from kdprune.config.effect import typed_only
from kdprune.files import check_writable
from kdprune.training.interrupt import Interrupted

_HERE = Path(__file__).resolve().parents[1]
# Beside the package in a checkout, inside it in an installed wheel.
RECIPES = next((folder for folder in (_HERE.parent / "configs", _HERE / "configs") if folder.is_dir()), _HERE)
MAIN_FIRST = 3.0  # seconds; torchrun looks after its processes every tenth of a second
DEFAULT_RECIPE = RECIPES / "digits_random50.yaml"
_MISTAKES = (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError)  # of who typed
CONFIGURED = ("train", "lottery", "cache", "record", "analyse noise", "sweep", "plan")  # take all settings
LINES = ("analyse barrier", "analyse line", "analyse instability", "analyse prunable")
SEVERAL_PROCESSES = ("train", "lottery", "cache", "record", "analyse noise", "evaluate", *LINES)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; what a user got wrong is said in one message, without a traceback.

    Set KDPRUNE_DEBUG=1 for the traceback.

    Returns:
        exit status: 0 done, 2 wrong input, 1 the run failed, 130 interrupted (the state is on disk).
    """
    try:
        with bars_for_people():
            status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except (SystemExit, BrokenPipeError):  # rich ends the process itself
        if nobody_reads():
            return end_quietly()
        raise


def _run(arguments: list[str]) -> int:
    command, options = parse(arguments)
    try:
        if command in SEVERAL_PROCESSES and (processes := processes_missing()):
            relaunch(processes, arguments)
        if command in SEVERAL_PROCESSES:
            stop_with_launchers()
        with typed_only(options.typed):
            return COMMANDS[command][1](options)
    except KeyboardInterrupt:
        return _say("interrupted; what was finished is kept", 130)
    except Exception as error:
        if os.environ.get("KDPRUNE_DEBUG"):
            raise
        if isinstance(error, Interrupted):
            return _say(str(error), 130)
        if isinstance(error, BrokenPipeError) and nobody_reads():
            raise
        if isinstance(error, (ValueError, OSError)):
            return _say(f"error: {_with_option(error, options.given)}", 2 if isinstance(error, _MISTAKES) else 1)
        if isinstance(error, ArithmeticError):
            return _say(f"error: {error}", 1)
        if has_lost_a_process(error):
            return _say("error: another process of this run has ended; the same command goes on from a checkpoint", 1)
        raise


def _with_option(error: ValueError | OSError, given: dict[str, Any]) -> str:
    """What is wrong, and which option named the file that it is about."""
    from kdprune.cli.mistakes import of_system, with_option
    from kdprune.files import NoSpace

    if isinstance(error, NoSpace):  # no option is to blame
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return with_option(of_system(error), given)
    return with_option(str(error), {name: value for name, value in given.items() if name != "--output"})


def _say(text: str, status: int) -> int:
    """Print a message on the main process, and give the exit status.

    An error that all processes meet is printed once. One that another process meets alone would be lost, so that
    process prints it, too, but waits first: if the main process met the same, the launcher ends this one meanwhile.
    """
    if actions.is_main_process():
        print(text, file=sys.stderr)
    elif status in (1, 2):
        time.sleep(MAIN_FIRST)
        print(f"process {os.environ['RANK']}: {text}", file=sys.stderr, flush=True)
    return status


COMMANDS: dict[str, tuple[Callable[[], ArgumentParser], Callable[[Namespace], int], str]] = {
    "train": (parsers.train, actions.train, "train a student on a kept subset, with a teacher"),
    "sweep": (parsers.sweep, actions.sweep, "train a grid of runs, and what they share once"),
    "plan": (parsers.plan, actions.plan, "what to train for a budget, with the accuracy that is to be expected"),
    "lottery": (parsers.lottery, actions.lottery, "prune a student level by level, and train each level again"),
    "cache": (parsers.cache, actions.cache, "fill the cached targets of a run ahead of it"),
    "record": (parsers.record, actions.record, "record what scorers need: training dynamics, embeddings, gradients, …"),
    "score": (parsers.score, actions.score, "score every sample by what was recorded"),
    "evaluate": (parsers.evaluate, actions.evaluate, "accuracy and calibration of a run's student"),
    "predict": (parsers.predict, actions.predict, "classes and probabilities of image files, by a run's student"),
    "export": (
        parsers.export,
        actions.export,
        "a student as ONNX, exported program, or folder that timm reads",
    ),
    "shrink": (parsers.shrink, actions.shrink, "remove channels of a student: smaller and faster everywhere"),
    "select": (parsers.select, actions.select, "select subsets by a score file, and describe them"),
    "analyse noise": (
        analyse_parsers.noise,
        actions.analyse("noise"),
        "find wrong labels; test it on planted ones",
    ),
    "analyse ntk": (
        analyse_parsers.ntk,
        actions.analyse("ntk"),
        "speed of the kernel of easy and hard samples",
    ),
    "analyse barrier": (analyse_parsers.barrier, actions.analyse("barrier"), "error barrier of easy and hard samples"),
    "analyse line": (analyse_parsers.line, actions.landscape("line"), "error along the line between two runs"),
    "analyse instability": (
        analyse_parsers.instability,
        actions.landscape("instability"),
        "from which step on the order of samples no longer matters",
    ),
    "analyse prunable": (
        analyse_parsers.prunable,
        actions.landscape("prunable"),
        "how far a run can be pruned at once before a barrier rises",
    ),
    "analyse classes": (analyse_parsers.classes, actions.analyse("classes"), "what pruning does to each class"),
    "runs": (parsers.runs, actions.runs, "find, compare and repeat runs"),
    "report": (parsers.report, actions.report, "what sweeps and runs came to: one page with all figures, and tables"),
    "show": (parsers.show, actions.show, "what a run was made of, as a tree"),
    "verify": (parsers.verify, actions.verify, "check the files of runs, caches and decoded images"),
    "list": (parsers.list, actions.list_plugins, "losses, scorers, selectors and models by name"),
}


def parse(arguments: list[str]) -> tuple[str, Namespace]:
    """The command and its options; for those that take all settings with the checked settings as `config_object`.

    Ends the process, with a message, where the arguments cannot be read.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0)
    if arguments[0] == "--version":
        from kdprune import __version__

        print(__version__)
        sys.exit(0)
    command, rest = named(arguments)
    if command not in COMMANDS:
        if of_two := [name for name in COMMANDS if name.startswith(f"{command} ")]:
            lines = [f"  {name:19} {COMMANDS[name][2]}" for name in of_two]
            asked = bool({"-h", "--help"}.intersection(rest))
            print(*(f"usage: kdprune {command} WHAT …", "", *lines), sep="\n", file=sys.stdout if asked else sys.stderr)
            sys.exit(0 if asked else 2)
        from kdprune.messages import unknown

        sys.exit(_say(f"error: {unknown('command', command, COMMANDS)}", 2))
    parser = COMMANDS[command][0]()
    parser.prog = f"kdprune {command}"
    demonstration = command in CONFIGURED and not _names_data(rest)
    typed = frozenset(word.removeprefix("--").partition("=")[0] for word in rest if word.startswith("--"))
    if demonstration:
        if not DEFAULT_RECIPE.exists():
            sys.exit(_say("error: no data given; name a recipe with --config FILE, or --data.dataset; see --help", 2))
        rest = ["--config", str(DEFAULT_RECIPE), *rest]
    try:
        check_words(rest)
        options = parser.parse_args(rest)
        options.defaults = parser.get_defaults()
        options.typed = None if command == "train" and not demonstration else typed
        options.given = {
            action.option_strings[-1]: getattr(options, action.dest)
            for action in parser._actions
            if action.option_strings and hasattr(options, action.dest)
        }
        if command in CONFIGURED:
            options.config_object = _config(options)
            if getattr(options, "check", None) is None:  # a plan that is looked at says itself where its runs are
                check_writable(options.config_object.output, "--output")
            if command not in ("sweep", "plan"):  # whose recipe may be a whole one only with what the axes add
                check(options.config_object)
            options.given |= {f"--{name}": value for name, value in dotted(to_dict(options.config_object)).items()}
    except ArgumentError as error:
        from kdprune.cli.mistakes import explain

        options_known = [option for action in parser._actions for option in action.option_strings]
        sys.exit(_say(f"error: {explain(str(error), options_known, rest)}", 2))
    except ValueError as error:
        sys.exit(_say(f"error: {error}", 2))
    if demonstration:
        _say(f"neither --config nor --data.dataset is given: this is the demonstration, {DEFAULT_RECIPE.name}", 0)
    return command, options


def _names_data(options: list[str]) -> bool:
    """Whether options say what is to be trained on, ask for help, or look back; else they change the demonstration."""
    names = ("--config", "--data", "--data.dataset", "-h", "--help", "--check", "--history")
    return any(word.partition("=")[0] in names for word in options)


def named(arguments: list[str]) -> tuple[str, list[str]]:
    """The command, of one word or of two, and what follows it."""
    words = 2 if arguments[0] == "analyse" and len(arguments) > 1 and not arguments[1].startswith("-") else 1
    return " ".join(arguments[:words]), arguments[words:]


def _config(options: Namespace) -> Config:
    from kdprune.config import from_dict

    given: dict[str, Any] = options.as_dict()
    return from_dict({field.name: given[field.name] for field in fields(Config)})


def _help() -> str:
    lines = [f"  {name:19} {about}" for name, (_, _, about) in COMMANDS.items()]
    return "\n".join(
        ["usage: kdprune COMMAND …", "", "Train small models on a fraction of the data, with a teacher.", "",
         "commands:", *lines, "", "kdprune COMMAND --help shows the options of a command."]
    )  # fmt: skip

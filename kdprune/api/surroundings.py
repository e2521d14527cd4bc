"""Whoever calls kdprune from a program of their own finds the process as they left it."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

# Generators and Accelerate's states are the process's: calls from several threads come one after the other.
_ALONE = threading.RLock()


@contextlib.contextmanager
def restored_surroundings() -> Iterator[None]:
    """Put back afterwards, whatever happens inside, all that belongs to the process and not to a call.

    That is: states of the random generators, cuDNN's flags, the current CUDA device, the number of threads, environment
    variables, filters of warnings (libraries that are imported meanwhile add some), and Accelerate's states. Those are
    new and empty inside, so that an `Accelerator` of the caller decides nothing there, and goes on afterwards. A
    process group of torch.distributed that was begun inside stays: it cannot be begun twice in the life of a process.
    """
    with _ALONE, contextlib.ExitStack() as stack:
        for restored in (_environment, _accelerate, _random, _cuda, _threads, warnings.catch_warnings):
            stack.enter_context(restored())
        yield


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Give a list that fills with what kdprune warns of, which is then not printed where logging is not set up."""
    collector, log = _Collector(logging.WARNING), logging.getLogger("kdprune")
    log.addHandler(collector)
    try:
        yield collector.messages
    finally:
        log.removeHandler(collector)


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@contextlib.contextmanager
def _accelerate() -> Iterator[None]:
    # Accelerate's states are singletons that share a dictionary each; an Accelerator holds on to its own.
    kinds: list[Any] = [PartialState, AcceleratorState, GradientState]
    before = [kind.__dict__["_shared_state"] for kind in kinds]
    for kind in kinds:
        kind._shared_state = {}
    try:
        yield
    finally:
        for kind, state in zip(kinds, before, strict=True):
            kind._shared_state = state


@contextlib.contextmanager
def _random() -> Iterator[None]:
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    of_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)


@contextlib.contextmanager
def _cuda() -> Iterator[None]:
    flags = torch.backends.cudnn
    before = flags.deterministic, flags.benchmark
    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        flags.deterministic, flags.benchmark = before
        if device is not None:
            torch.cuda.set_device(device)


@contextlib.contextmanager
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)

"""Fixtures that several test files use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# On a machine that others use, time says nothing about a test.
settings.register_profile("kdprune", deadline=None)
settings.load_profile("kdprune")


LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too, as is done where CI is set")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out, unless they are asked for: by --slow, by -m, by CI, or by a test's own name."""
    named = any("::" in argument for argument in config.args)
    if config.getoption("--slow") or config.option.markexpr or os.environ.get("CI") or named:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    config.stash[LEFT_OUT] = len(slow)


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    count = config.stash.get(LEFT_OUT, 0)
    return f"{count} slow tests are left out; --slow runs them too" if count else ""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real parquet data beside the repository; tests that want it are skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that is no one else's and one thread, for this process and for those that it starts."""
    before = dict(os.environ)
    os.environ["KDPRUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["OMP_NUM_THREADS"] = "1"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """What a run in this process sets up for its whole life is undone after the test."""
    from helpers import restored_surroundings

    from kdprune import registry

    with restored_surroundings():
        yield
    registry._entry_points.cache_clear()  # a test may have installed a package


@pytest.fixture(scope="session")
def digits_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small ResNet that knows the digits, with snapshots of both of its epochs."""
    from helpers import train

    _, run = train(
        tmp_path_factory.mktemp("teacher"),
        {"student.model": "cifar_resnet8", "train.steps": None, "train.epochs": 2, "train.save_epochs": [1, 2]},
    )
    return run

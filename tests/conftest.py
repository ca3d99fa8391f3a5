"""What holds for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.prefect_homes import MADE

# a machine that does other things too is no fault of the code's
settings.register_profile("patient", deadline=None)

FIRST = ("flows", "test_recipes.py", "tasks/serving", "test_house.py", "tasks/test_kill.py")
"""The longest files: one that begins last keeps a worker when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix()
        return next((number for number, of in enumerate(FIRST) if name.startswith(of)), len(FIRST))

    items.sort(key=rank)


def pytest_configure(config: pytest.Config) -> None:
    """Load it last: hypothesis's own plugin loads one of its own."""
    settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def made_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the first of all workers that has a Prefect of its own leaves its tables for others."""
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    os.environ[MADE] = str((base.parent if is_worker else base) / "prefect.db")

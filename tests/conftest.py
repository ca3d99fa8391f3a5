"""What holds for every test."""

import pytest
from hypothesis import settings

# a machine that does other things too is no fault of the code's
settings.register_profile("patient", deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    """Load it last: hypothesis's own plugin loads one of its own."""
    settings.load_profile("patient")

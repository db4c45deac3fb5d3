"""What all simulations share: the library's warnings are not shown, there are thousands of them."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Show nothing of what a producer or consumer says of its failures."""
    caplog.set_level(logging.CRITICAL, "kinstream")

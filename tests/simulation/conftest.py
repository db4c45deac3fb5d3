"""Shared setup of the simulations. The library's warnings are hidden, because there are thousands of them."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hide the logs of failures of producers and consumers."""
    caplog.set_level(logging.CRITICAL, "kinstream")

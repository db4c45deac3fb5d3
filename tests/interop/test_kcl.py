"""Workers of the Kinesis Client Library for Java and kinstream replace each other, in an ordinary run too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.interop import scenarios
from tests.interop.application import Application


@pytest.mark.parametrize("kinds", [("java-2.7.2", "java-3.5.1")], ids=["2.7.2,3.5.1"])
async def test_a_worker_of_kinstream_replaces_one_of_the_kcl_and_the_reverse(
    new_application: Callable[[], Application], kinds: tuple[str, ...]
) -> None:
    async with asyncio.TaskGroup() as both:  # at the same time, since the workers mostly wait
        for kind in kinds:
            both.create_task(scenarios.relay(new_application(), (kind, "kinstream", kind)))

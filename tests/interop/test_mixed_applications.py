"""Workers of the real Kinesis Client Library, kcl-rs and kinstream share applications. `make interop` runs these tests."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tests.interop import scenarios
from tests.interop.application import Application

CONTROLS = [
    ("java-2.7.2", "java-2.7.2"),
    ("java-3.4.2", "java-3.4.2"),
    ("java-3.5.1", "java-3.5.1"),
    ("kcl-rs", "java-2.7.2"),
    ("kcl-rs", "kcl-rs"),
]
"""Workers of others alone. They show that a failure with kinstream is not one of the scenario or of the servers."""

MIXED = [
    pair
    for kind in ("java-2.7.2", "java-3.4.2", "java-3.5.1", "kcl-rs")
    for pair in ((kind, "kinstream"), ("kinstream", kind))
]
"""Each other implementation and kinstream. The first one starts the application."""

KCLPY = [("amazon_kclpy", "kinstream"), ("kinstream", "amazon_kclpy")]

SEVERAL_STREAMS = [
    ("java-2.7.2", "java-2.7.2"),
    ("java-3.5.1", "java-3.5.1"),
    *(pair for pair in MIXED if "kcl-rs" not in pair),
]

MIGRATIONS = [
    ("kcl-rs", "java-2.7.2"),
    ("java-2.7.2", "kinstream", "java-2.7.2"),
    ("java-3.4.2", "kinstream", "java-3.4.2"),
    ("java-3.5.1", "kinstream", "java-3.5.1"),
    ("kcl-rs", "kinstream"),
]


def each(cases: Iterable[tuple[str, ...]]) -> pytest.MarkDecorator:
    """Run a test for each combination of workers."""
    cases = list(cases)
    return pytest.mark.parametrize("kinds", cases, ids=["+".join(case) for case in cases])


@each([*CONTROLS, *MIXED])
async def test_a_second_worker_takes_its_share_of_the_leases(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.share(application, kinds)


@each([*CONTROLS, *MIXED])
async def test_a_worker_resumes_at_the_checkpoint_of_another_inside_an_aggregate(
    application: Application, kinds: tuple[str, ...]
) -> None:
    await scenarios.resume(application, kinds)


@each([*CONTROLS, *MIXED])
async def test_the_leases_of_a_worker_that_stops_are_taken_over(
    application: Application, kinds: tuple[str, ...]
) -> None:
    await scenarios.leave(application, kinds)


@each([*CONTROLS, *MIXED])
async def test_the_leases_of_a_killed_worker_are_taken_over(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.kill(application, kinds)


@each([*CONTROLS, *MIXED])
async def test_a_split_and_a_merge_are_finished(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.reshard(application, kinds)


@each([("java-3.5.1", "java-3.5.1"), *MIXED])
async def test_a_worker_that_was_suspended_overwrites_no_checkpoint(
    application: Application, kinds: tuple[str, ...]
) -> None:
    await scenarios.pause(application, kinds)


@each(SEVERAL_STREAMS)
async def test_workers_share_several_streams(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.several_streams(application, kinds)


@each(KCLPY)
async def test_a_worker_resumes_at_the_checkpoint_of_another_process_of_python(
    application: Application, kinds: tuple[str, ...]
) -> None:
    await scenarios.resume(application, kinds)


@each([("amazon_kclpy", "kinstream", "amazon_kclpy")])
async def test_the_only_worker_is_replaced_and_returns(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.relay(application, kinds)


@each(MIGRATIONS)
async def test_an_application_is_migrated_worker_by_worker(application: Application, kinds: tuple[str, ...]) -> None:
    await scenarios.migrate(application, kinds)

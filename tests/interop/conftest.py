"""Fixtures of the interop tests: applications whose workers are real KCLs, kcl-rs and kinstream, in the same lease tables.

An ordinary run has test_kcl_rs, which needs no Java, and test_kcl, for which Maven resolves the library while other tests run.
`make interop` sets KINSTREAM_INTEROP and runs test_mixed_applications too: "quick" has kinstream with the Java versions of QUICK,
and "all" has all versions and kinds. A test is skipped, with the reason, if one of its workers cannot run.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from itertools import count
from pathlib import Path

import pytest
from bench.ground import NotPossible
from tests.interop.application import Application
from tests.interop.services import Services, running_services
from tests.interop.worker_process import build, unavailable

HERE = Path(__file__).parent

QUICK = ("java-2.7.2", "java-3.5.1")
"""Java workers of `make interop` with KINSTREAM_INTEROP=quick."""

BUILD_LIMIT = 300
"""Maximum seconds for which a test waits for Maven."""

BUILDS: dict[str, Future[None]] = {}
"""Workers that are being built or were built."""


def _kinds(item: pytest.Item) -> tuple[str, ...]:
    """Return the kinds of workers that a test uses: its parameter `kinds`."""
    callspec = getattr(item, "callspec", None)
    return tuple(callspec.params.get("kinds", ())) if callspec else ()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests with workers that cannot run here."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        reasons = [reason for kind in _kinds(item) if (reason := unavailable(kind))]
        if reason := _not_selected(item) or "; ".join(dict.fromkeys(reasons)):
            item.add_marker(pytest.mark.skip(reason=reason))


def _not_selected(item: pytest.Item) -> str | None:
    """Return the reason why a test is not part of this run, or None."""
    extent, kinds = os.environ.get("KINSTREAM_INTEROP"), set(_kinds(item))
    if item.path.stem != "test_mixed_applications":
        return None
    if not extent:
        return "runs with `make interop`"
    if extent == "quick" and not ("kinstream" in kinds and kinds <= {"kinstream", *QUICK}):
        return "runs with KINSTREAM_INTEROP=all"
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the Java workers that are needed. `make interop` waits for them, an ordinary run begins with other tests."""
    if session.config.option.collectonly:
        return
    wanted = {
        kind
        for item in session.items
        if HERE in item.path.parents and item.get_closest_marker("skip") is None
        for kind in _kinds(item)
    }
    BUILDS.update({kind: Future() for kind in sorted(wanted)})
    builder = threading.Thread(target=_build, name="build of workers", daemon=True)
    builder.start()
    if os.environ.get("KINSTREAM_INTEROP"):
        builder.join()


def _build() -> None:
    for kind, built in BUILDS.items():
        try:
            build(kind)
        except Exception as error:
            built.set_exception(error)
        else:
            built.set_result(None)


async def _wait_for_builds(kinds: tuple[str, ...]) -> None:
    """Skip the test if its Java workers cannot be built here."""
    for built in [BUILDS[kind] for kind in kinds if kind in BUILDS]:
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(built)), BUILD_LIMIT)
        except TimeoutError:
            pytest.skip(f"Maven has not resolved the dependencies within {BUILD_LIMIT} seconds")
        except NotPossible as reason:
            pytest.skip(str(reason))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The servers, shared by all tests: each has its own stream and table."""
    try:
        with running_services(tmp_path_factory.mktemp("dynamodb") / "writes.jsonl") as servers:
            yield servers
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Unique names of applications."""
    return (f"application-{number:03}" for number in count(1))


@pytest.fixture
async def new_application(
    request: pytest.FixtureRequest, services: Services, names: Iterator[str], tmp_path: Path
) -> AsyncIterator[Callable[[], Application]]:
    """Return applications without a stream yet. Their workers end with the test."""
    await _wait_for_builds(_kinds(request.node))
    made: list[Application] = []

    def new() -> Application:
        made.append(Application(services, next(names), tmp_path))
        return made[-1]

    yield new
    for each in made:
        await asyncio.to_thread(each.close)


@pytest.fixture
def application(new_application: Callable[[], Application]) -> Application:
    """Return an application without a stream yet. Its workers end with the test."""
    return new_application()

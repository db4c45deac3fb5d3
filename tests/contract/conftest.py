"""Fixtures of the contract tests: a server and a client, boto3 or another.

Every test runs on our server, in memory and on disk. Tests that use only boto3 also run through aiobotocore. The tests of
`EVERYWHERE` also run on other servers. Their known deviations are listed in servers/deviations.txt.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import botocore.exceptions
import pytest
from bench.ground import NotPossible
from tests.contract.clients import aiobotocore_process
from tests.contract.clients.aiobotocore_process import AiobotocoreProcess
from tests.contract.clients.subscriber import Subscriber
from tests.contract.servers.deviations import deviations
from tests.contract.servers.processes import ONLY_COMPARED, RECIPES, install, running
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.clock import SystemClock
from kinstream.local import Server

OURS = ["memory", "disk"]
AIOBOTOCORE = "aiobotocore"
OTHERS = ["kinesis-local", "ministack", "moto"]
"""Other servers on which the cases run."""

OUR_CLIENTS = {"test_our_client", "test_our_consumer"}
"""Modules with cases of our own client and consumer, which run on all servers."""

EVERYWHERE = {
    "test_streams", "test_records", "test_iterators", "test_reshards", "test_shard_counts", "test_tags", "test_policies",
}  # fmt: skip
"""Modules with cases that also run on other servers. Changes of settings and consumers take too long there."""

STREAMED = {"test_subscriptions"}
"""Modules with streamed responses, which the aiobotocore client does not support."""

STREAMING = ["ministack"]
"""Other servers on which these run. moto and kinesalite do not support SubscribeToShard, and kinesis-local sends no initial
response, without which boto3 reads nothing."""

OUR_MEANS = {"server", "durable_server", "clock", "raw", "slow"}
"""Fixtures that only our server has: cases that use them, or `endpoint` itself, run on no other."""

PATIENCE = 8
"""Maximum seconds of a case on another server. Some never end, and the limit of pytest would end all tests."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a case its servers."""
    uses = set(metafunc.fixturenames)
    if "endpoint" not in uses:
        return
    module = metafunc.module.__name__.rpartition(".")[2]
    places = list(OURS)
    if module in OUR_CLIENTS:
        places += [name for name in RECIPES if name != "kinstream" and name not in ONLY_COMPARED]
    elif not uses & OUR_MEANS and "endpoint" not in inspect.signature(metafunc.function).parameters:
        places += [AIOBOTOCORE] if "kinesis" in uses and module not in STREAMED else []
        places += OTHERS if module in EVERYWHERE else STREAMING if module in STREAMED else []
    metafunc.parametrize("endpoint", places, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give cases on others' servers their time, and expect the failures that are known."""
    known = deviations()
    for item in items:
        place = _place(item)
        if place in RECIPES:
            deviation = known.of(place, item.path.stem, item.name.replace(place, "", 1))
            if deviation:
                item.add_marker(pytest.mark.xfail(reason=f"{place} {deviation.instead}", strict=deviation.always))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install the servers and clients that are needed before the first test's clock runs."""
    if session.config.option.collectonly:
        return
    for place in sorted({_place(item) for item in session.items}):
        try:
            if place == AIOBOTOCORE:
                aiobotocore_process.python()
            elif place in RECIPES:
                install(place)
        except NotPossible as reason:
            UNAVAILABLE[place] = str(reason)


UNAVAILABLE: dict[str, str] = {}
"""Servers that are not available here, with the reason. Their cases are skipped."""


def _place(item: pytest.Item) -> str:
    """Return the server on which an item runs, from the parameters of `endpoint`, or "" without one."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("endpoint", "")) if callspec else ""


class MovedClock(SystemClock):
    """The machine's time, moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset


@pytest.fixture(scope="session")
def clock() -> MovedClock:
    """The clock of our server."""
    return MovedClock()


@pytest.fixture(scope="session")
def server(clock: MovedClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server in memory, with streams that are ACTIVE at the next request. Cases exceed the quotas of a second."""
    with Server(clock=clock, transition=0, quotas=False) as server:
        yield server


@pytest.fixture(scope="session")
def durable_server(clock: MovedClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server, with its data on disk."""
    with Server(clock=clock, transition=0, quotas=False, data_dir=tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    """Each server that the cases run against."""
    place = request.param
    if place in UNAVAILABLE:
        pytest.skip(f"{place} cannot be had: {UNAVAILABLE[place]}")
    if place not in RECIPES:
        server = request.getfixturevalue("durable_server" if place == "disk" else "server")
        yield Endpoint(place, server.url, server.region, server.access_key_id, server.secret_access_key)
        return
    try:
        with running(place) as other:
            yield Endpoint(place, other.url)
    except NotPossible as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def kinesis(endpoint: Endpoint) -> Iterator[Any]:
    """A client of the server: boto3's, or aiobotocore's in its guise."""
    if endpoint.place != AIOBOTOCORE:
        yield endpoint.boto3()
        return
    client = AiobotocoreProcess(endpoint)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> None:
    """End a case that does not terminate."""
    if _place(request.node) in RECIPES:
        request.getfixturevalue("endpoint").until = time.monotonic() + PATIENCE


@pytest.fixture(scope="session")
def raw(endpoint: Endpoint) -> Raw:
    """A client that sends any given request."""
    return Raw(endpoint)


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """Unique stream names."""
    return (f"stream-{number:05}" for number in count())


@pytest.fixture(scope="session")
def slow() -> Iterator[Any]:
    """A boto3 client of a server on which streams are CREATING, UPDATING and DELETING for a while."""
    with Server(transition=0.5, quotas=False) as server:
        yield Endpoint("slow", server.url).boto3()


@pytest.fixture(scope="session")
def active() -> Callable[[Any, str], None]:
    """Waits until a stream is ACTIVE."""

    def wait(client: Any, name: str) -> None:
        while (status := _status(client, name)) != "ACTIVE":
            assert status in ("CREATING", "UPDATING")
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def gone() -> Callable[[Any, str], None]:
    """Waits until a stream is deleted."""

    def wait(client: Any, name: str) -> None:
        with pytest.raises(client.exceptions.ResourceNotFoundException):  # noqa: PT012, the last look raises
            while True:
                assert _status(client, name) == "DELETING"
                time.sleep(0.01)

    return wait


def _status(client: Any, name: str) -> str:
    return str(client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"])


@pytest.fixture
def stream(kinesis: Any, names: Iterator[str], active: Callable[[Any, str], None]) -> Callable[..., str]:
    """Makes a stream and returns its name."""

    def make(shards: int = 1, **options: Any) -> str:
        name = next(names)
        kinesis.create_stream(StreamName=name, ShardCount=shards, **options)
        active(kinesis, name)
        return name

    return make


@pytest.fixture
def drain(kinesis: Any) -> Callable[..., list[dict[str, Any]]]:
    """Reads a shard from an iterator on: until it is caught up, or to its end."""

    def read(name: str, shard_id: str = "shardId-000000000000", **position: Any) -> list[dict[str, Any]]:
        position = position or {"ShardIteratorType": "TRIM_HORIZON"}
        iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard_id, **position)["ShardIterator"]
        records: list[dict[str, Any]] = []
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            records += answer["Records"]
            if answer["MillisBehindLatest"] == 0:
                break
            iterator = answer.get("NextShardIterator")
        return records

    return read


@pytest.fixture
def subscribe() -> Iterator[Subscriber]:
    """Subscribes to shards. Open subscriptions end with the case."""
    subscriber = Subscriber()
    yield subscriber
    subscriber.close()


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Checks that a call is refused with a code and, on our server, with AWS's text: no other has those."""
    texts = _place(request.node) not in RECIPES

    def check(code: str, text: str, call: Callable[..., Any], **arguments: Any) -> None:
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call(**arguments)
        error = caught.value.response["Error"]
        assert error["Code"] == code, error
        assert not texts or text in error["Message"]

    return check

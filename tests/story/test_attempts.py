"""`attempts` counts every request that was sent with a record, those included that were signed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kinstream import Aggregation, Batching, Credentials, ProduceError, Record, blocking
from kinstream.local import Server

EXPIRED = ("ExpiredTokenException", "The security token included in the request is expired")
Act = Callable[[blocking.Producer], list[Any]]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(transition=0, quotas=False) as server:
        with blocking.Client(**options(server)) as client:
            client.call("CreateStream", {"StreamName": "events", "ShardCount": 1})
        yield server


def options(server: Server) -> dict[str, Any]:
    async def provider() -> Credentials:
        return Credentials(server.access_key_id, server.secret_access_key)

    return {"region": server.region, "endpoint_url": server.url, "credentials": provider}


def producing(server: Server, **given: Any) -> blocking.Producer:
    producer = blocking.Producer("events", batch=Batching(linger=0.01), **given, **options(server))
    producer.put(b"first", "key").result()
    return producer


WAYS: dict[str, tuple[str, Act]] = {
    "put_record": ("PutRecord", lambda p: [p.put_record(Record(b"x", "k"))]),
    "put_records": ("PutRecords", lambda p: list(p.put_records([Record(b"x", "k")] * 3).results)),
    "put": ("PutRecords", lambda p: [p.put(b"x", "k").result()]),
    "put_many": ("PutRecords", lambda p: p.put_many([(b"x", f"k{n}") for n in range(5)]).results()),
}


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
@pytest.mark.parametrize("way", WAYS)
def test_request_that_was_signed_again_counts(server: Server, way: str, aggregate: Aggregation | None) -> None:
    operation, act = WAYS[way]
    with producing(server, aggregate=aggregate) as producer:
        caught = server.next(operation).fail(*EXPIRED, status=400)
        results = act(producer)
        assert caught.count == 1
    assert {result.attempts for result in results} == {2}
    assert not any(result.maybe_duplicate for result in results)


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
def test_requests_before_and_after_a_retry_count(server: Server, aggregate: Aggregation | None) -> None:
    with producing(server, aggregate=aggregate) as producer:
        server.next("PutRecords").fail(*EXPIRED, status=400)
        server.next("PutRecords").fail("InternalFailure", "no", status=500)
        server.next("PutRecords").fail(*EXPIRED, status=400)
        result = producer.put(b"x", "k").result()
    assert (result.attempts, result.maybe_duplicate) == (4, True)


@pytest.mark.parametrize("aggregate", [None, Aggregation()])
def test_request_that_was_signed_again_counts_in_an_error(server: Server, aggregate: Aggregation | None) -> None:
    with producing(server, aggregate=aggregate) as producer:
        server.next("PutRecords").fail(*EXPIRED, status=400)
        server.next("PutRecords").fail("AccessDeniedException", "no", status=400)
        failed = producer.put_many([(b"x", "k"), (b"y", "k")]).results()
    for error in failed:
        assert isinstance(error, ProduceError)
        assert (error.attempts, error.maybe_written) == (2, False)

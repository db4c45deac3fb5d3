"""The testing kit: streams of a server without a client, and all records of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kinstream import Aggregation, ConfigError, LimitExceeded, NotFound, ResourceInUse, UsageError, blocking
from kinstream.local import Server
from kinstream.testing import ManualClock, assert_in_order, consume_all


def summary(client: blocking.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.call("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]
    return found


def test_created_stream_is_active_whatever_the_transition_and_the_clock() -> None:
    with Server(transition=3600, clock=ManualClock()) as server, blocking.Client(**server.client_options) as client:
        assert server.create_stream("orders", shards=3) == "orders"
        assert summary(client, "orders")["StreamStatus"] == "ACTIVE"
        assert summary(client, "orders")["OpenShardCount"] == 3
        with blocking.Producer("orders", client=client) as producer:
            producer.put_and_wait("one", "key")
        assert [record.data for record in consume_all("orders", **server.client_options)] == [b"one"]
        client.call("CreateStream", {"StreamName": "slow", "ShardCount": 1})
        assert summary(client, "slow")["StreamStatus"] == "CREATING"


def test_created_streams_count_toward_no_quota_and_are_not_intercepted() -> None:
    with Server(transition=3600) as server, blocking.Client(**server.client_options) as client:
        every = server.every().fail("InternalFailure")
        for number in range(20):
            server.create_stream(f"orders-{number}")
        for number in range(1, 20):
            server.delete_stream(f"orders-{number}")
        assert every.count == 0
        every.cancel()
        assert client.call("ListStreams", {})["StreamNames"] == ["orders-0"]


def test_deleted_stream_takes_its_records_and_consumers_along() -> None:
    with Server() as server, blocking.Client(**server.client_options) as client:
        for _ in range(2):
            server.create_stream("orders")
            assert consume_all("orders", **server.client_options) == []
            with blocking.Producer("orders", client=client) as producer:
                producer.put_and_wait("one", "key")
            arn = summary(client, "orders")["StreamARN"]
            client.call("RegisterStreamConsumer", {"StreamARN": arn, "ConsumerName": "billing"})
            server.delete_stream("orders")
            with pytest.raises(NotFound):
                summary(client, "orders")
        server.delete_stream("orders")


def test_created_and_deleted_streams_are_stored(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path) as server:
        server.create_stream("kept", 2)
        server.create_stream("deleted")
        server.delete_stream("deleted")
    with Server(data_dir=tmp_path) as server, blocking.Client(**server.client_options) as client:
        assert client.call("ListStreams", {})["StreamNames"] == ["kept"]
        assert summary(client, "kept")["StreamStatus"] == "ACTIVE"
        assert summary(client, "kept")["OpenShardCount"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a b",), "name='a b': must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-'"),
        (("",), "name='': must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-'"),
        ((None,), "name=None: must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-'"),
        (("orders", 0), "shards=0: must be a whole number from 1 to 20000"),
        (("orders", True), "shards=True: must be a whole number from 1 to 20000"),
        (("orders", "2"), "shards='2': must be a whole number from 1 to 20000"),
    ],
    ids=["blank", "empty", "None", "no shards", "bool", "text"],
)
def test_wrong_argument_is_named_before_the_server_is_used(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Server().create_stream(*arguments)
    assert caught.value.details == says


def test_refusals_are_the_errors_of_the_client() -> None:
    with pytest.raises(UsageError, match="the server is not running"):
        Server().create_stream("orders")
    with pytest.raises(UsageError, match="the server is not running"):
        Server().delete_stream("orders")
    with Server() as server:
        server.create_stream("orders")
        with pytest.raises(ResourceInUse, match="Stream orders under account 000000000000 already exists"):
            server.create_stream("orders")
        with pytest.raises(LimitExceeded):
            server.create_stream("more", 20_000)
    with pytest.raises(UsageError, match="the server is not running"):
        server.create_stream("late")


def test_all_records_are_returned_deaggregated_and_in_order_through_a_reshard() -> None:
    with Server(transition=0, quotas=False) as server, blocking.Client(**server.client_options) as client:
        server.create_stream("orders")
        with blocking.Producer("orders", client=client, order="key", aggregate=Aggregation()) as producer:
            for part in range(3):
                numbers = range(part * 100, part * 100 + 100)
                producer.put_many((str(n), f"key-{n % 7}") for n in numbers).raise_for_failures()
                if part < 2:
                    client.call(
                        "UpdateShardCount",
                        {"StreamName": "orders", "TargetShardCount": 2 - part, "ScalingType": "UNIFORM_SCALING"},
                    )
        records = consume_all("orders", **server.client_options)
    assert sorted(int(record.data) for record in records) == list(range(300))
    assert len({record.shard_id for record in records}) == 4
    assert_in_order(records, value=lambda record: int(record.data))

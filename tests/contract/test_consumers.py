"""Registered consumers: register, describe, list, deregister, and their effect on the stream."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Active = Callable[..., None]


def arn(name: str) -> str:
    return f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"


def register(kinesis: Any, name: str, consumer: str = "app", **options: Any) -> dict[str, Any]:
    answer = kinesis.register_stream_consumer(StreamARN=arn(name), ConsumerName=consumer, **options)
    return dict(answer["Consumer"])


def test_consumer_is_registered_and_described(kinesis: Any, stream: Make) -> None:
    name = stream()
    consumer = register(kinesis, name)
    created = consumer.pop("ConsumerCreationTimestamp")
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=1)
    second = int(created.timestamp())
    assert consumer == {
        "ConsumerName": "app",
        "ConsumerARN": f"{arn(name)}/consumer/app:{second}",
        "ConsumerStatus": "CREATING",
    }
    for way in (
        {"ConsumerARN": consumer["ConsumerARN"]},
        {"StreamARN": arn(name), "ConsumerName": "app"},
        {"StreamARN": arn(name), "ConsumerName": "app", "ConsumerARN": consumer["ConsumerARN"]},
    ):
        described = kinesis.describe_stream_consumer(**way)["ConsumerDescription"]
        assert described.pop("ConsumerCreationTimestamp") == created
        assert described == {**consumer, "ConsumerStatus": "ACTIVE", "StreamARN": arn(name)}


def test_consumer_is_creating_and_deleting_during_its_transitions(
    slow: Any, names: Iterator[str], active: Active
) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    active(slow, name)
    consumer = register(slow, name)["ConsumerARN"]

    def status() -> str:
        described = slow.describe_stream_consumer(ConsumerARN=consumer)["ConsumerDescription"]
        return str(described["ConsumerStatus"])

    def wait(before: str, after: str) -> None:
        while status() != after:
            assert status() in (before, after)
            time.sleep(0.01)

    assert status() == "CREATING"
    with pytest.raises(slow.exceptions.ResourceInUseException) as caught:
        slow.tag_resource(ResourceARN=consumer, Tags={"a": "b"})
    text = rf"Consumer app with creation timestamp \d+ under stream {name} and account 0+ is not in ACTIVE status\."
    assert re.fullmatch(text, caught.value.response["Error"]["Message"])
    wait("CREATING", "ACTIVE")
    slow.deregister_stream_consumer(ConsumerARN=consumer)
    assert status() == "DELETING"
    with pytest.raises(slow.exceptions.ResourceInUseException):
        register(slow, name)
    with pytest.raises(slow.exceptions.ResourceNotFoundException):
        wait("DELETING", "")


def test_name_of_a_deregistered_consumer_can_be_reused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    old = register(kinesis, name)["ConsumerARN"]
    kinesis.deregister_stream_consumer(StreamARN=arn(name), ConsumerName="app")
    second = old.rpartition(":")[2]
    text = f"Consumer app with creation timestamp {second} under stream: {name}, account 000000000000 not found."
    refused("ResourceNotFoundException", text, kinesis.describe_stream_consumer, ConsumerARN=old)
    refused("ResourceNotFoundException", text, kinesis.deregister_stream_consumer, ConsumerARN=old)
    text = f"Consumer app under stream: {name}, account 000000000000 not found."
    named = {"StreamARN": arn(name), "ConsumerName": "app"}
    refused("ResourceNotFoundException", text, kinesis.describe_stream_consumer, **named)
    new = register(kinesis, name)["ConsumerARN"]
    assert kinesis.describe_stream_consumer(ConsumerARN=new)["ConsumerDescription"]["ConsumerName"] == "app"


def test_arn_of_another_registration_is_not_found(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    consumer = register(kinesis, name)["ConsumerARN"]
    second = int(consumer.rpartition(":")[2])
    earlier = f"{arn(name)}/consumer/app:{second - 1}"
    refused("ResourceNotFoundException", "Consumer app", kinesis.describe_stream_consumer, ConsumerARN=earlier)


def test_consumers_are_listed_by_name_in_pages(kinesis: Any, stream: Make) -> None:
    name = stream()
    for number in (3, 1, 4, 0, 2):
        register(kinesis, name, f"app-{number}")
    first = kinesis.list_stream_consumers(StreamARN=arn(name), MaxResults=2)
    second = kinesis.list_stream_consumers(StreamARN=arn(name), NextToken=first["NextToken"])
    assert "NextToken" not in second
    found = first["Consumers"] + second["Consumers"]
    assert [consumer["ConsumerName"] for consumer in found] == [f"app-{number}" for number in range(5)]
    assert {consumer["ConsumerStatus"] for consumer in found} == {"ACTIVE"}
    assert set(found[0]) == {"ConsumerName", "ConsumerARN", "ConsumerStatus", "ConsumerCreationTimestamp"}
    pages = kinesis.get_paginator("list_stream_consumers").paginate(
        StreamARN=arn(name), PaginationConfig={"PageSize": 2}
    )
    assert [len(page["Consumers"]) for page in pages] == [2, 2, 1]


def test_listing_distinguishes_streams_of_the_same_name(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    created = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamCreationTimestamp"]
    kinesis.list_stream_consumers(StreamARN=arn(name), StreamCreationTimestamp=created)
    refused(
        "ResourceNotFoundException",
        f"Stream {name} under account 000000000000 not found.",
        kinesis.list_stream_consumers,
        StreamARN=arn(name),
        StreamCreationTimestamp=created - timedelta(days=1),
    )


def test_tokens_of_other_listings_are_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    one, other = stream(2), stream()
    register(kinesis, one, "app-1")
    register(kinesis, one, "app-2")
    token = kinesis.list_stream_consumers(StreamARN=arn(one), MaxResults=1)["NextToken"]
    shards = kinesis.list_shards(StreamName=one, MaxResults=1)["NextToken"]
    for name, wrong in ((other, token), (one, shards), (one, "x")):
        refused(
            "InvalidArgumentException",
            "NextToken is invalid.",
            kinesis.list_stream_consumers,
            StreamARN=arn(name),
            NextToken=wrong,
        )
    refused(
        "InvalidArgumentException",
        "cannot be provided together",
        kinesis.list_stream_consumers,
        StreamARN=arn(one),
        NextToken=token,
        StreamCreationTimestamp=datetime.now(UTC),
    )


def test_consumer_must_be_identified_exactly_once(kinesis: Any, stream: Make, refused: Refused) -> None:
    name, other = stream(), stream()
    consumer = register(kinesis, name)["ConsumerARN"]
    for arguments in (
        {},
        {"StreamARN": arn(name)},
        {"ConsumerName": "app"},
        {"ConsumerARN": consumer, "ConsumerName": "other"},
        {"ConsumerARN": consumer, "StreamARN": arn(other)},
    ):
        for call in (kinesis.describe_stream_consumer, kinesis.deregister_stream_consumer):
            refused("InvalidArgumentException", "ARN", call, **arguments)


def test_consumer_that_exists_is_in_use(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    register(kinesis, name)
    refused(
        "ResourceInUseException",
        f"Consumer app under stream {name} already exists for account 000000000000.",
        kinesis.register_stream_consumer,
        StreamARN=arn(name),
        ConsumerName="app",
    )


def test_stream_has_twenty_consumers(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream()
    for number in range(20):
        register(kinesis, name, f"app-{number}")
    refused(
        "LimitExceededException",
        "its limit of 20 registered consumers",
        kinesis.register_stream_consumer,
        StreamARN=arn(name),
        ConsumerName="one-more",
    )
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["ConsumerCount"] == 20


@pytest.mark.parametrize(
    ("consumer", "rule"),
    [("no blanks", "regular expression pattern: [a-zA-Z0-9_.-]+"), ("a" * 129, "length less than or equal to 128")],
)
def test_invalid_consumer_name_is_refused(
    kinesis: Any, stream: Make, refused: Refused, consumer: str, rule: str
) -> None:
    refused(
        "ValidationException",
        rule,
        kinesis.register_stream_consumer,
        StreamARN=arn(stream()),
        ConsumerName=consumer,
    )


def test_stream_with_consumers_is_deleted_only_if_requested(
    kinesis: Any, stream: Make, refused: Refused, active: Active, gone: Active
) -> None:
    name = stream()
    consumer = register(kinesis, name)["ConsumerARN"]
    text = (
        f"DeleteStream can't delete 000000000000:{name} because there are consumers associated with this data stream. To "
        f"delete {name} anyway, set the EnforceConsumerDeletion parameter to true to force the deletion of all the "
        "consumers that are associated with it."
    )
    for options in ({}, {"EnforceConsumerDeletion": False}):
        refused("ResourceInUseException", text, kinesis.delete_stream, StreamName=name, **options)
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
    gone(kinesis, name)
    text = f"Stream {name} under account 000000000000 not found."
    refused("ResourceNotFoundException", text, kinesis.describe_stream_consumer, ConsumerARN=consumer)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    active(kinesis, name)
    assert kinesis.list_stream_consumers(StreamARN=arn(name))["Consumers"] == []


def test_stream_is_deleted_after_its_consumers_are_deregistered(kinesis: Any, stream: Make, gone: Active) -> None:
    name = stream()
    register(kinesis, name)
    kinesis.deregister_stream_consumer(StreamARN=arn(name), ConsumerName="app")
    kinesis.delete_stream(StreamName=name)
    gone(kinesis, name)


def test_consumer_of_an_unknown_stream_is_not_found(kinesis: Any, refused: Refused) -> None:
    text = "Stream nowhere under account 000000000000 not found."
    arguments = {"StreamARN": arn("nowhere"), "ConsumerName": "app"}
    for call in (
        kinesis.register_stream_consumer,
        kinesis.describe_stream_consumer,
        kinesis.deregister_stream_consumer,
    ):
        refused("ResourceNotFoundException", text, call, **arguments)
    refused("ResourceNotFoundException", text, kinesis.list_stream_consumers, StreamARN=arn("nowhere"))

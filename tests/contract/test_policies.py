"""Resource policies of streams and consumers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]

ACCOUNT = "arn:aws:kinesis:us-east-1:000000000000"


def policy(resource: str) -> str:
    statement = {
        "Sid": "read",
        "Effect": "Allow",
        "Principal": {"AWS": "111122223333"},
        "Action": ["kinesis:GetRecords"],
        "Resource": resource,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(params=["stream", "consumer"])
def resource(request: pytest.FixtureRequest, kinesis: Any, stream: Make) -> str:
    """The ARN of a stream, or of a consumer."""
    arn = f"{ACCOUNT}:stream/{stream()}"
    if request.param == "stream":
        return arn
    return str(kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app")["Consumer"]["ConsumerARN"])


def test_policy_is_returned_as_it_was_put(kinesis: Any, resource: str) -> None:
    for text in (policy(resource), policy("*")):
        kinesis.put_resource_policy(ResourceARN=resource, Policy=text)
        assert kinesis.get_resource_policy(ResourceARN=resource)["Policy"] == text
    kinesis.delete_resource_policy(ResourceARN=resource)
    assert kinesis.get_resource_policy(ResourceARN=resource)["Policy"] == "{}"


def test_policy_that_does_not_exist_cannot_be_deleted(kinesis: Any, resource: str, refused: Refused) -> None:
    text = f"No resource policy found for resource ARN {resource}."
    refused("ResourceNotFoundException", text, kinesis.delete_resource_policy, ResourceARN=resource)


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"Statement": 1}', "x" * 20_481])
def test_invalid_policy_is_refused(kinesis: Any, resource: str, refused: Refused, text: str) -> None:
    refused("InvalidArgumentException", "policy", kinesis.put_resource_policy, ResourceARN=resource, Policy=text)


@pytest.mark.parametrize("call", ["get_resource_policy", "delete_resource_policy"])
def test_policy_of_an_unknown_resource_is_not_found(kinesis: Any, refused: Refused, call: str) -> None:
    text = "Stream nowhere under account 000000000000 not found."
    refused("ResourceNotFoundException", text, getattr(kinesis, call), ResourceARN=f"{ACCOUNT}:stream/nowhere")


def test_policies_of_a_stream_and_its_consumer_are_independent(kinesis: Any, stream: Make) -> None:
    arn = f"{ACCOUNT}:stream/{stream()}"
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app")["Consumer"]["ConsumerARN"]
    kinesis.put_resource_policy(ResourceARN=arn, Policy=policy(arn))
    kinesis.put_resource_policy(ResourceARN=consumer, Policy=policy(consumer))
    assert kinesis.get_resource_policy(ResourceARN=arn)["Policy"] == policy(arn)
    assert kinesis.get_resource_policy(ResourceARN=consumer)["Policy"] == policy(consumer)

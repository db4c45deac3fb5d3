"""Tags of streams and consumers, by both families of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Active = Callable[..., None]


def arn(name: str) -> str:
    return f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"


def tags(kinesis: Any, name: str) -> dict[str, str]:
    """Return a stream's tags. Both families must say the same."""
    answer = kinesis.list_tags_for_stream(StreamName=name)
    assert not answer["HasMoreTags"]
    assert kinesis.list_tags_for_resource(ResourceARN=arn(name))["Tags"] == answer["Tags"]
    return {tag["Key"]: tag["Value"] for tag in answer["Tags"]}


def test_tags_are_added_replaced_and_removed(kinesis: Any, stream: Make) -> None:
    name = stream()
    assert tags(kinesis, name) == {}
    kinesis.add_tags_to_stream(StreamName=name, Tags={"team": "blue", "cost": "12"})
    kinesis.add_tags_to_stream(StreamARN=arn(name), Tags={"team": "red", "empty": ""})
    assert tags(kinesis, name) == {"cost": "12", "empty": "", "team": "red"}
    kinesis.remove_tags_from_stream(StreamName=name, TagKeys=["cost", "never there"])
    assert tags(kinesis, name) == {"empty": "", "team": "red"}


def test_tags_are_added_and_removed_by_arn(kinesis: Any, stream: Make) -> None:
    name = stream()
    kinesis.tag_resource(ResourceARN=arn(name), Tags={"team": "blue", "größe": "µ 1_2.3:4/5=6+7-8@9"})
    assert tags(kinesis, name) == {"team": "blue", "größe": "µ 1_2.3:4/5=6+7-8@9"}
    kinesis.untag_resource(ResourceARN=arn(name), TagKeys=["team", "never there"])
    assert list(tags(kinesis, name)) == ["größe"]


def test_stream_is_created_with_tags(kinesis: Any, stream: Make) -> None:
    assert tags(kinesis, stream(Tags={"team": "blue"})) == {"team": "blue"}


def test_tags_are_listed_in_pages(kinesis: Any, stream: Make) -> None:
    name = stream(Tags={f"key-{number:02}": str(number) for number in range(50)})
    first = kinesis.list_tags_for_stream(StreamName=name, Limit=20)
    assert (len(first["Tags"]), first["HasMoreTags"]) == (20, True)
    second = kinesis.list_tags_for_stream(StreamName=name, ExclusiveStartTagKey=first["Tags"][-1]["Key"])
    assert (len(second["Tags"]), second["HasMoreTags"]) == (30, False)
    assert [tag["Key"] for tag in first["Tags"] + second["Tags"]] == [f"key-{number:02}" for number in range(50)]


def test_tags_are_deleted_with_their_stream(kinesis: Any, stream: Make, active: Active, gone: Active) -> None:
    name = stream(Tags={"team": "blue"})
    kinesis.delete_stream(StreamName=name)
    gone(kinesis, name)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    active(kinesis, name)
    assert tags(kinesis, name) == {}


def test_consumer_has_tags_of_its_own(kinesis: Any, stream: Make) -> None:
    name = stream(Tags={"team": "blue"})
    consumer = kinesis.register_stream_consumer(StreamARN=arn(name), ConsumerName="app", Tags={"team": "red"})
    resource = consumer["Consumer"]["ConsumerARN"]
    kinesis.tag_resource(ResourceARN=resource, Tags={"more": "yes"})
    listed = kinesis.list_tags_for_resource(ResourceARN=resource)["Tags"]
    assert listed == [{"Key": "more", "Value": "yes"}, {"Key": "team", "Value": "red"}]
    kinesis.untag_resource(ResourceARN=resource, TagKeys=["team"])
    assert kinesis.list_tags_for_resource(ResourceARN=resource)["Tags"] == [{"Key": "more", "Value": "yes"}]
    assert tags(kinesis, name) == {"team": "blue"}


@pytest.mark.parametrize(
    ("wrong", "code", "text"),
    [
        ({"a;b": "c"}, "InvalidArgumentException", "Some tags contain invalid characters."),
        ({"a": "x<y"}, "InvalidArgumentException", "Some tags contain invalid characters."),
        ({"50%": "c"}, "InvalidArgumentException", "because some tags contained illegal characters."),
        ({"aws:a": "c"}, "InvalidArgumentException", "reserved"),
        (
            {"k" * 129: "v"},
            "ValidationException",
            (
                "at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length "
                "less than or equal to 128, Member must have length greater than or equal to 1]"
            ),
        ),
        (
            {"k": "v" * 257},
            "ValidationException",
            (
                "at 'tags' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length "
                "less than or equal to 256, Member must have length greater than or equal to 0]"
            ),
        ),
        (
            {f"key-{number}": "" for number in range(51)},
            "InvalidArgumentException",
            "because a given stream cannot have more than 50 tags associated with it.",
        ),
        ({f"key-{number}": "" for number in range(201)}, "ValidationException", "less than or equal to 200"),
    ],
    ids=["semicolon", "less-than", "percent", "reserved", "long-key", "long-value", "51", "201"],
)
def test_invalid_tags_are_refused(
    kinesis: Any, stream: Make, names: Iterator[str], refused: Refused, wrong: dict[str, str], code: str, text: str
) -> None:
    name = stream()
    refused(code, text, kinesis.add_tags_to_stream, StreamName=name, Tags=wrong)
    refused(code, text, kinesis.tag_resource, ResourceARN=arn(name), Tags=wrong)
    refused(code, text, kinesis.create_stream, StreamName=next(names), ShardCount=1, Tags=wrong)
    assert tags(kinesis, name) == {}


def test_fifty_first_tag_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    name = stream(Tags={f"key-{number}": "" for number in range(50)})
    kinesis.add_tags_to_stream(StreamName=name, Tags={"key-7": "changed"})
    text = "more than 50 tags"
    refused("InvalidArgumentException", text, kinesis.add_tags_to_stream, StreamName=name, Tags={"one": "more"})


def test_at_most_fifty_keys_can_be_removed(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = "at 'tagKeys' failed to satisfy constraint: Member must have length less than or equal to 50"
    keys = [f"key-{number}" for number in range(51)]
    refused("ValidationException", text, kinesis.remove_tags_from_stream, StreamName=stream(), TagKeys=keys)


def test_tags_of_an_unknown_resource_are_not_found(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = "Stream nowhere under account 000000000000 not found."
    refused("ResourceNotFoundException", text, kinesis.list_tags_for_stream, StreamName="nowhere")
    refused("ResourceNotFoundException", text, kinesis.list_tags_for_resource, ResourceARN=arn("nowhere"))
    refused("ResourceNotFoundException", text, kinesis.add_tags_to_stream, StreamName="nowhere", Tags={"a": "b"})
    name = stream()
    text = f"Consumer app with creation timestamp 1700000000 under stream: {name}, account 000000000000 not found."
    consumer = f"{arn(name)}/consumer/app:1700000000"
    refused("ResourceNotFoundException", text, kinesis.tag_resource, ResourceARN=consumer, Tags={"a": "b"})


def test_text_that_is_not_an_arn_is_refused(kinesis: Any, refused: Refused) -> None:
    text = "at 'resourceARN' failed to satisfy constraint: Member must satisfy regular expression pattern: arn:aws"
    refused("ValidationException", text, kinesis.list_tags_for_resource, ResourceARN="orders")


def test_tags_need_an_active_stream(slow: Any, names: Iterator[str]) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1, Tags={"team": "blue"})
    assert tags(slow, name) == {"team": "blue"}
    with pytest.raises(slow.exceptions.ResourceInUseException):
        slow.add_tags_to_stream(StreamName=name, Tags={"team": "red"})

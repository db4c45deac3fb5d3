"""Request and response types, compared with the service model in botocore: members, constraints, and supported operations."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import botocore.session
import msgspec
import pytest

from kinstream.clock import SYSTEM_CLOCK
from kinstream.local.operations import constraints, responses
from kinstream.local.operations.table import Operations
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import MemoryStore
from kinstream.local.wire.formats import TIMESTAMPS

UNKNOWN = {
    **dict.fromkeys(
        ["CreateChannel", "DeleteChannel", "DescribeChannel", "ListChannels", "UpdateChannel"],
        "channels deliver to S3, which is not simulated",
    ),
    **dict.fromkeys(
        [
            "AcknowledgeDeadLetterQueueRecords",
            "AcknowledgeQueueRecords",
            "CreateQueue",
            "DeleteQueue",
            "DescribeQueue",
            "ListQueues",
            "ReceiveDeadLetterQueueRecords",
            "ReceiveQueueRecords",
            "RestoreDeadLetterQueueRecords",
            "UpdateDeadLetterQueueRecordsVisibility",
            "UpdateQueue",
            "UpdateQueueRecordsVisibility",
        ],
        "queues are not part of Data Streams",
    ),
}
"""Operations of the model that are not supported, with the reason."""

IGNORED = {"StreamId"}
"""Members that the API reference reserves for future use."""

NOT_THERE = {"ChannelCount", "ChannelCountLimit", "QueueCount", "StreamId"}
"""Members of responses for unsupported features. None of them is required."""

MODEL = botocore.session.get_session().get_service_model("kinesis")
OPERATIONS = Operations(State(), MemoryStore(), SYSTEM_CLOCK)
KNOWN = sorted(name for name in MODEL.operation_names if OPERATIONS.shape(name) is not None)


def test_each_operation_of_the_model_is_supported_or_listed_with_a_reason() -> None:
    assert {name for name in MODEL.operation_names if OPERATIONS.shape(name) is None} == set(UNKNOWN)


def request_members(operation: str) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Return the model's members of a request, and the constraints that ours have."""
    shape = OPERATIONS.shape(operation)
    assert shape is not None
    modelled = MODEL.operation_model(operation).input_shape
    assert modelled is not None
    ours: dict[str, tuple[Any, ...]] = dict(_constraints(shape))
    return {name: member for name, member in modelled.members.items() if name not in IGNORED}, ours


def _constraints(shape: type[msgspec.Struct]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    hints = get_type_hints(shape, include_extras=True)
    for field in msgspec.structs.fields(shape):
        yield field.encode_name, tuple(getattr(hints[field.name], "__metadata__", ()))


def constraints_of(rules: tuple[Any, ...]) -> set[str]:
    """Return constraints of ours as comparable text."""
    found = set()
    for rule in rules:
        match rule:
            case constraints.Required():
                found.add("required")
            case constraints.Length():
                found.add(f"length {rule.low}..{rule.high}")
            case constraints.Range():
                found.add(f"range {rule.low}..{rule.high}")
            case constraints.Pattern():
                found.add(f"pattern {_bare(rule.pattern)}")
            case constraints.OneOf():
                found.add(f"one of {' '.join(rule.values)}")
            case constraints.EachKey():
                found.add(f"keys {constraints_of(rule.rules)}")
            case constraints.EachValue():
                found.add(f"values {constraints_of(rule.rules)}")
            case constraints.EachMember():
                found.add(f"members {constraints_of(rule.rules)}")
    return found


def modelled(shape: Any, required: bool) -> set[str]:
    """Return a member's constraints in the model as comparable text."""
    found = {"required"} if required else set()
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.type_name in ("integer", "long") and low is not None:
        found.add(f"range {low}..{high}")
    elif high is not None:
        found.add(f"length {low}..{high}")
    if shape.metadata.get("pattern"):
        found.add(f"pattern {_bare(shape.metadata['pattern'])}")
    if shape.metadata.get("enum"):
        found.add(f"one of {' '.join(shape.metadata['enum'])}")
    if shape.type_name == "map":
        found |= {f"keys {modelled(shape.key, False)}", f"values {modelled(shape.value, False)}"}
    if shape.type_name == "list" and shape.member.type_name == "string":
        found.add(f"members {modelled(shape.member, False)}")
    return found


def _bare(pattern: str) -> str:
    """Return a pattern without anchors, and a choice without brackets: each must fit the whole text anyway."""
    bare = pattern.removeprefix("^").removesuffix("$")
    return bare[1:-1] if bare.startswith("(0|") else bare


@pytest.mark.parametrize("operation", KNOWN)
def test_requests_have_the_members_and_constraints_of_the_model(operation: str) -> None:
    members, ours = request_members(operation)
    assert set(ours) == set(members)
    required = set(MODEL.operation_model(operation).input_shape.required_members)
    for name, member in members.items():
        assert constraints_of(ours[name]) == modelled(member, name in required), name


def test_members_of_structures_have_the_constraints_of_the_model() -> None:
    seen = set()
    for operation in KNOWN:
        shape = OPERATIONS.shape(operation)
        assert shape is not None
        hints = get_type_hints(shape)
        for field in msgspec.structs.fields(shape):
            inner = [t for t in get_args(hints[field.name]) if isinstance(t, type) and issubclass(t, msgspec.Struct)]
            if inner:
                seen.add(field.encode_name)
                structure = MODEL.operation_model(operation).input_shape.members[field.encode_name]
                ours = dict(_constraints(inner[0]))
                assert set(ours) == set(structure.members)
                for name, member in structure.members.items():
                    assert constraints_of(ours[name]) == modelled(member, name in structure.required_members), name
    assert seen == {"MinimumThroughputBillingCommitment", "ShardFilter", "StartingPosition", "StreamModeDetails"}


@pytest.mark.parametrize("operation", [name for name in KNOWN if name != "SubscribeToShard"])
def test_responses_have_the_members_of_the_model(operation: str) -> None:
    modelled_answer = MODEL.operation_model(operation).output_shape
    name = {
        "DescribeAccountSettings": "AccountSettings",
        "UpdateAccountSettings": "AccountSettings",
        "DisableEnhancedMonitoring": "EnhancedMonitoring",
        "EnableEnhancedMonitoring": "EnhancedMonitoring",
    }.get(operation, operation)
    ours = getattr(responses, name, None)
    assert (ours is None) == (modelled_answer is None)
    if ours is not None:
        compare(ours, modelled_answer)


def test_events_have_the_members_of_the_model() -> None:
    stream = MODEL.operation_model("SubscribeToShard").output_shape.members["EventStream"]
    compare(responses.SubscribeToShardEvent, stream.members["SubscribeToShardEvent"])


def compare(ours: Any, shape: Any) -> None:
    """Compare a response type with a shape of the model."""
    if shape.type_name == "structure":
        fields = {field.encode_name: field for field in msgspec.structs.fields(ours)}
        assert set(shape.members) - set(fields) <= NOT_THERE
        assert set(fields) <= set(shape.members)
        for name, member in shape.members.items():
            if name in fields:
                assert (member.type_name == "timestamp") == (name in TIMESTAMPS)
                compare(_bare_type(fields[name].type), member)
    elif shape.type_name == "list":
        compare(get_args(ours)[0], shape.member)
    else:
        kinds = {"string": str, "integer": int, "long": int, "boolean": bool, "blob": bytes, "timestamp": float}
        assert ours is kinds[shape.type_name]


def _bare_type(hint: Any) -> Any:
    """Return a member's type without its being absent."""
    bare = [t for t in get_args(hint) if t not in (type(None), msgspec.UnsetType)]
    return bare[0] if bare and get_origin(hint) in (Union, UnionType) else hint

"""Leases and writes against tables and requests that were recorded from the Kinesis Client Library for Java."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kinstream import HashKeyRange, Position
from kinstream.consume.fetch.position import SHARD_END, TRIM_HORIZON
from kinstream.consume.lease import changes
from kinstream.consume.lease.lease import Lease, Pending, columns_of, lease_of
from kinstream.consume.lease.row import Delete, Put, Row, RowKind, Update, Value, Write

FOLDER = Path(__file__).with_name("kcl_tables")
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
STATES = [name for name in FILES if not name.endswith("-requests")]
KEYS = ("leaseKey", "key", "wid")
NOT_MADE_BY_US = {
    "CreateTable",  # made by the store, in one request with the index
    "UpdateTable",
    "Query",
    "PutItem Migration3.0",  # the version of an application is never written
    "UpdateItem pendingCheckpoint",  # a prepared checkpoint is shown and removed, never written
}


def value(attribute: Mapping[str, Any]) -> Value:
    ((kind, stored),) = attribute.items()
    if kind == "N":
        number = float(stored)
        return int(stored) if stored.lstrip("-").isdecimal() else number
    if kind == "B":
        return base64.b64decode(stored)
    if kind == "SS":
        return frozenset(stored)
    if kind == "L":
        return [value(inner) for inner in stored]
    if kind == "M":
        return {name: value(inner) for name, inner in stored.items()}
    assert kind == "S"
    return str(stored)


def row(item: Mapping[str, Any]) -> Row:
    columns = {name: value(attribute) for name, attribute in item.items()}
    (key,) = (columns.pop(name) for name in KEYS if name in columns)
    kind = columns.pop("entityType", RowKind.LEASE)
    assert isinstance(kind, str)
    return Row(RowKind(kind), str(key), columns)


def leases(state: str) -> Iterator[Row]:
    for item in FILES[state]["tables"]["billing"]["Items"]:
        found = row(item)
        if found.kind is RowKind.LEASE:
            yield found


def lease(state: str, key: str) -> Lease:
    return next(lease_of(found) for found in leases(state) if found.key == key)


def test_all_recorded_files_are_here() -> None:
    assert len(STATES) == 39
    assert len(FILES) == 42


@pytest.mark.parametrize("state", STATES)
def test_every_recorded_lease_is_read_and_written_back_with_the_same_columns(state: str) -> None:
    rows = list(leases(state))
    assert rows
    for stored in rows:
        assert columns_of(lease_of(stored)) == stored.values


@pytest.mark.parametrize("state", STATES)
def test_every_recorded_worker_row_and_lock_has_the_columns_that_we_write(state: str) -> None:
    for items in (table["Items"] for table in FILES[state]["tables"].values()):
        for item in items:
            names = set(item)
            if "lut" in names:
                change = changes.announce("w", 1.0, one_table=True, instance="i").change
                assert isinstance(change, Update)
                assert set(change.set) - {"kinstream", "entityType"} <= names
            if "leaseDuration" in names:
                change = changes.take_lead("w", 5.0, "v", one_table="entityType" in names).change
                assert isinstance(change, Put)
                assert set(change.values) == names - set(KEYS)


def test_lease_in_an_aggregate_is_read() -> None:
    assert lease("kcl-3.5.1-handoff-during", "shardId-000000000000") == Lease(
        "shardId-000000000000",
        owner="worker-2",
        checkpoint_owner="worker-1",
        counter=238,
        checkpoint=Position.after("49680673368926827850135038059041012970258601963264409602", 54),
        hash_key_range=HashKeyRange("0", "85070591730234615865843651857942052863"),
        throughput_kbps=0.224969,
    )


def test_closed_shard_is_read_with_its_children_and_the_child_with_its_parents() -> None:
    state = "kcl-3.5.1-after-split-and-merge"
    closed = lease(state, "shardId-000000000000")
    assert (closed.checkpoint, closed.children) == (SHARD_END, ("shardId-000000000004", "shardId-000000000005"))
    assert lease(state, "shardId-000000000006").parents == ("shardId-000000000001", "shardId-000000000002")


def test_stolen_lease_is_read_with_its_change_of_owner() -> None:
    assert [lease_of(found).owner_switches for found in leases("kcl-2.7.2-stolen")].count(1) == 1


def test_lease_of_one_of_several_streams_is_read_with_its_shard() -> None:
    found = lease("kcl-3.5.1-multi-stream", "000000000000:clicks:1795949306:shardId-000000000001")
    assert (found.stream, found.shard_id) == ("000000000000:clicks:1795949306", "shardId-000000000001")


@pytest.mark.parametrize(
    ("state", "key", "number", "index"),
    [
        (
            "kcl-2.7.2-pending-checkpoint",
            "shardId-000000000003",
            "49680673644028820619208805133019588952550770437393481778",
            279,
        ),
        (
            "kcl-3.5.1-pending-checkpoint",
            "shardId-000000000001",
            "49680673368926827850135038059181248365333901558870442002",
            49,
        ),
    ],
)
def test_prepared_checkpoint_is_read(state: str, key: str, number: str, index: int) -> None:
    found = lease(state, key)
    assert found.checkpoint == TRIM_HORIZON
    assert found.pending == Pending(Position.after(number, index), b"state")


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    for version in ("2.7.2", "3.4.2", "3.5.1"):
        for number, recorded in enumerate(FILES[f"kcl-{version}-requests"]["requests"]):
            request = recorded["request"]
            yield f"{version}-{number}-{_name(recorded['operation'], request)}", request


def _name(operation: str, request: dict[str, Any]) -> str:
    if "Item" in request and "cv" in request["Item"]:
        return f"{operation} Migration3.0"
    pending = request.get("AttributeUpdates", {}).get("pendingCheckpoint", {})
    return f"{operation} pendingCheckpoint" if pending.get("Action") == "PUT" else operation


def _made(name: str) -> bool:
    return name.split("-", 2)[2] not in NOT_MADE_BY_US


@pytest.mark.parametrize(("name", "request_"), [case for case in requests() if _made(case[0])])
def test_recorded_write_equals_ours(name: str, request_: dict[str, Any]) -> None:
    """The columns are equal, and our condition implies the recorded one."""
    change, expected = _recorded(request_)
    ours = _ours(request_, change, expected)
    assert ours.key == _key(request_)
    ours_change = ours.change
    if isinstance(change, Put) and isinstance(ours_change, Put):
        assert dict(ours_change.values) == dict(change.values)
    elif isinstance(change, Update) and isinstance(ours_change, Update):
        assert _without_extras(ours_change.set) == dict(change.set)
        assert dict(ours_change.add) == dict(change.add)
        own = set() if not name.startswith("2.7.2") else {"checkpointOwner"}  # 2.7.2 does not know the column
        assert set(ours_change.remove) - own == set(change.remove)
    else:
        assert isinstance(change, Delete)
        assert ours_change == change
    condition = ours.condition
    for column, stored in expected.items():
        if column in KEYS:
            assert condition.exists is (stored is not None)
        else:
            assert column in condition.equal
            assert condition.equal[column] == stored


def _without_extras(columns: Mapping[str, Value]) -> dict[str, Value]:
    return {name: stored for name, stored in columns.items() if name not in {"kinstream", "sup", "slu"}}


def _key(request: dict[str, Any]) -> str:
    place = request.get("Key") or request["Item"]
    return next(str(value(place[name])) for name in KEYS if name in place)


def _recorded(request: dict[str, Any]) -> tuple[Put | Update | Delete, dict[str, Value]]:
    """Return a recorded change and its condition: values by column, None for a missing one."""
    names = request.get("ExpressionAttributeNames", {})
    values = request.get("ExpressionAttributeValues", {})
    expected: dict[str, Value] = {
        name: value(stored["Value"]) if "Value" in stored else None
        for name, stored in request.get("Expected", {}).items()
    }
    for part in request.get("ConditionExpression", "").split(" AND "):
        if part.startswith("attribute_not_exists("):
            expected[names[part[21:-1]]] = None
        elif part.startswith("attribute_exists("):
            expected[names[part[17:-1]]] = _key(request)
        elif part:
            left, right = part.split(" = ")
            expected[names[left]] = value(values[right])
    if "Item" in request:
        columns = {name: value(stored) for name, stored in request["Item"].items() if name not in KEYS}
        return Put(columns), expected
    if "AttributeUpdates" in request:
        updates = request["AttributeUpdates"]
        return (
            Update(
                set={name: value(u["Value"]) for name, u in updates.items() if u["Action"] == "PUT"},
                add={name: int(u["Value"]["N"]) for name, u in updates.items() if u["Action"] == "ADD"},
                remove=frozenset(name for name, u in updates.items() if u["Action"] == "DELETE"),
            ),
            expected,
        )
    if "UpdateExpression" in request:
        pairs = (part.split(" = ") for part in request["UpdateExpression"].removeprefix("SET ").split(", "))
        columns = {names[left]: value(values[right]) for left, right in pairs}
        return Update(set={name: stored for name, stored in columns.items() if name not in {"sup", "slu"}}), expected
    return Delete(), expected


def _ours(request: dict[str, Any], change: Put | Update | Delete, expected: dict[str, Value]) -> Write:
    """Return our write for the purpose of a recorded one, from the values in it."""
    key = _key(request)
    if key == changes.LEADER_KEY:
        return _of_the_lock(change, expected)
    if isinstance(change, Put):
        one_table = "entityType" in change.values
        columns = {name: stored for name, stored in change.values.items() if name != "entityType"}
        return changes.create(lease_of(Row(RowKind.LEASE, key, columns)), one_table=one_table)
    assert isinstance(change, Update)
    if "lut" in change.set:
        return changes.announce(
            key, float(str(change.set["lut"])), one_table="entityType" in change.set, instance="process"
        )
    # The row as the writer knew it.
    known = Lease(
        key,
        stream=_text(change.set.get("streamName")),
        owner=_text(expected.get("leaseOwner")),
        checkpoint_owner=_text(expected.get("checkpointOwner")),
        counter=int(str(expected.get("leaseCounter", 5))),
    )
    if "startingHashKey" in change.set:
        low, high = str(change.set["startingHashKey"]), str(change.set["endingHashKey"])
        known = _replace(known, hash_key_range=HashKeyRange(low, high))
    if "checkpoint" in change.set:
        stored = {name: change.set[name] for name in ("checkpoint", "checkpointSubSequenceNumber", "leaseCounter")}
        return changes.checkpoint(known, lease_of(Row(RowKind.LEASE, key, stored)).checkpoint)
    if "childShardIds" in change.set:
        children = change.set["childShardIds"]
        assert isinstance(children, frozenset)
        return changes.name_children(known, tuple(children))
    owner = _text(change.set.get("leaseOwner"))
    if owner is None:
        # The KCL asks for no checkpointOwner once it knows that it hands the lease off.
        if "checkpointOwner" not in expected and not request.get("ReturnValuesOnConditionCheckFailure"):
            assert request["TableName"] == "billing"
        elif "checkpointOwner" not in expected:
            known = _replace(known, owner="next", checkpoint_owner="me")
        throughput = change.set.get("throughputKBps")
        assert throughput is None or isinstance(throughput, (int, float))
        return changes.renew(known, throughput)
    if "checkpointOwner" in change.set:
        return changes.hand_off(known, owner)
    if "leaseCounter" in change.set:
        switched = "ownerSwitchesSinceCheckpoint" in change.add
        return changes.take(_replace(known, owner="other" if switched else None), owner)
    if known.checkpoint_owner is not None:
        return changes.end_handoff(known, None)
    return changes.assign(known, owner)


def _of_the_lock(change: Put | Update | Delete, expected: dict[str, Value]) -> Write:
    stored = Row(
        RowKind.LEADER,
        changes.LEADER_KEY,
        {name: expected[name] for name in ("recordVersionNumber", "ownerName") if name in expected},
    )
    if isinstance(change, Delete):
        return changes.release_lead(stored)
    columns = change.values if isinstance(change, Put) else change.set
    duration, version = int(str(columns["leaseDuration"])) / 1000, str(columns["recordVersionNumber"])
    if isinstance(change, Update):
        return changes.heartbeat(stored, duration, version)
    return changes.take_lead(
        str(columns["ownerName"]),
        duration,
        version,
        one_table="entityType" in columns,
        stored=stored if stored.values else None,
    )


def _text(stored: Value) -> str | None:
    assert stored is None or isinstance(stored, str)
    return stored


def _replace(known: Lease, **fields: Any) -> Lease:
    return Lease(**({name: getattr(known, name) for name in Lease.__struct_fields__} | fields))

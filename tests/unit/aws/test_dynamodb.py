import json
from enum import StrEnum
from typing import Any

import pytest

from kinstream.aws import dynamodb
from kinstream.aws.dynamodb import (
    CONTENT_TYPE,
    Condition,
    Index,
    Page,
    Table,
    Written,
    absent,
    decode_item,
    encode_item,
    equals,
    exists,
)
from kinstream.aws.request import Malformed, Request
from kinstream.errors import ConfigError

KEY = {"leaseKey": "shardId-0"}
SECRET = "-".join(("no", "canary", "sings"))


class Kind(StrEnum):
    LEASE = "LEASE"


def sent(request: Request[Any]) -> Any:
    """Return the parameters of a request."""
    return json.loads(request.body)


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


# Attribute values


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", {"S": ""}),
        ("ключ", {"S": "ключ"}),
        (Kind.LEASE, {"S": "LEASE"}),
        (True, {"BOOL": True}),
        (False, {"BOOL": False}),
        (0, {"N": "0"}),
        (-(10**37), {"N": str(-(10**37))}),
        (0.5, {"N": "0.5"}),
        (2.0, {"N": "2"}),
        (0.0000014, {"N": "0.000001"}),
        (-0.0000001, {"N": "0"}),
        (1e21, {"N": "1000000000000000000000"}),
        (-1234.5678901, {"N": "-1234.56789"}),
        (None, {"NULL": True}),
        (b"\x00\xff", {"B": "AP8="}),
        (frozenset({"b", "a"}), {"SS": ["a", "b"]}),
        ([1, "a"], {"L": [{"N": "1"}, {"S": "a"}]}),
        ({"a": {"b": []}}, {"M": {"a": {"M": {"b": {"L": []}}}}}),
    ],
)
def test_python_value_is_written_with_its_type(value: Any, written: Any) -> None:
    assert sent(dynamodb.put_item("leases", {"a": value}))["Item"] == {"a": written}


class Loop(list[Any]):
    """A list that contains itself."""

    def __init__(self) -> None:
        super().__init__()
        self.append(self)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (10**38, "must have at most 38 digits"),
        (-(10**38), "must have at most 38 digits"),
        (float("nan"), "a float must be finite"),
        (float("inf"), "a float must be finite"),
        (1e32, "a float must be finite and less than"),
        (frozenset(), "at least one member"),
        (frozenset({1}), "all must be str"),
        ({1: "a"}, "a key: must be a string"),
        ({"a"}, "not set"),
        (bytearray(b"a"), "not bytearray"),
        ([object()], "not object"),
        (Loop(), "is nested too deeply"),
    ],
)
def test_value_without_a_type_is_refused_by_the_name_of_its_attribute(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^attribute 'lease': .*{problem}"):
        encode_item({"lease": value})


@pytest.mark.parametrize("value", ["\ud800", [{"a": "\udfff"}], {"\ud800": 1}])
def test_text_with_a_lone_surrogate_is_refused_without_a_quotation(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^PutItem: .*lone surrogates") as caught:
        dynamodb.put_item("leases", {"a": value, "b": SECRET})
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"S": "a"}, "a"),
        ({"N": "12"}, 12),
        ({"N": "-0"}, 0),
        ({"N": "+7"}, 7),
        ({"N": "99999999999999999999999999999999999999"}, 10**38 - 1),
        ({"N": "1.0"}, 1.0),
        ({"N": "1.57E-4"}, 0.000157),
        ({"N": "9.5e125"}, 9.5e125),
        ({"N": ".5"}, 0.5),
        ({"N": "0.001234"}, 0.001234),
        ({"B": "AP8="}, b"\x00\xff"),
        ({"B": ""}, b""),
        ({"BOOL": False}, False),
        ({"NULL": True}, None),
        ({"SS": ["b", "a"]}, frozenset({"a", "b"})),
        ({"NS": ["1", "2.5"]}, frozenset({1, 2.5})),
        ({"BS": ["AA=="]}, frozenset({b"\x00"})),
        ({"L": [{"N": "1"}, {"L": []}]}, [1, []]),
        ({"M": {"a": {"M": {}}}}, {"a": {}}),
    ],
)
def test_attribute_value_is_read_as_a_python_value(written: dict[str, Any], value: Any) -> None:
    found = decode_item({"a": written})["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"S": "a", "N": "1"},
        {"X": "a"},
        {"S": 1},
        {"S": None},
        {"N": 1},
        {"N": ""},
        {"N": "1e999"},
        {"N": "1" * 5000},
        {"N": "\u0663"},
        {"N": "nan"},
        {"N": "0x1"},
        {"B": "A"},
        {"B": "A==="},
        {"B": 1},
        {"B": "\u00e9"},
        {"BOOL": "true"},
        {"NULL": False},
        {"SS": "ab"},
        {"SS": [1]},
        {"NS": ["a"]},
        {"L": {}},
        {"L": ["a"]},
        {"M": []},
        {"M": {"a": 1}},
    ],
)
def test_malformed_attribute_value_is_refused(written: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode_item({"a": written})


@pytest.mark.parametrize("depth", [600, 50_000])
def test_item_that_is_nested_too_deeply_is_malformed(depth: int) -> None:
    deep = b'{"L": [' * depth + b'{"S": "a"}' + b"]}" * depth
    with pytest.raises(Malformed, match="nested too deeply"):
        dynamodb.get_item("leases", KEY).parse(b'{"Item": {"a": ' + deep + b"}}")


# Requests


def test_get_item_names_the_key_and_the_consistency() -> None:
    request = dynamodb.get_item("leases", KEY)
    assert (request.operation, request.content_type, request.reads, request.writes) == (
        "GetItem",
        CONTENT_TYPE,
        True,
        False,
    )
    assert sent(request) == {"TableName": "leases", "Key": {"leaseKey": {"S": "shardId-0"}}}
    assert sent(dynamodb.get_item("leases", KEY, consistent=True))["ConsistentRead"] is True


def test_get_item_returns_the_item_or_none() -> None:
    request = dynamodb.get_item("leases", KEY)
    assert request.parse(b'{"Item": {"leaseCounter": {"N": "3"}}}') == {"leaseCounter": 3}
    assert request.parse(b"{}") is None


@pytest.mark.parametrize(
    "response", [b"", b"[]", b'{"Item": 1}', b'{"Item": {"a": "b"}}', b'{"Item": {"a": {"N": 1}}}']
)
def test_response_of_another_shape_is_refused(response: bytes) -> None:
    with pytest.raises(ValueError):
        dynamodb.get_item("leases", KEY).parse(response)


def test_update_uses_placeholders_for_all_names_and_values() -> None:
    request = dynamodb.update_item(
        "leases",
        KEY,
        sets={"leaseCounter": 2, "name": SECRET},
        adds={"ownerSwitches": 1},
        removes=["checkpointOwner", "size"],
        condition=equals("leaseCounter", 1) & absent("checkpointOwner"),
        returns=dynamodb.ReturnValues.ALL_NEW,
    )
    assert (request.operation, request.reads, request.writes) == ("UpdateItem", False, True)
    assert sent(request) == {
        "TableName": "leases",
        "Key": {"leaseKey": {"S": "shardId-0"}},
        "UpdateExpression": "SET #n0 = :v0, #n1 = :v1 ADD #n2 :v2 REMOVE #n3, #n4",
        "ConditionExpression": "#n0 = :v3 AND attribute_not_exists(#n3)",
        "ExpressionAttributeNames": {
            "#n0": "leaseCounter",
            "#n1": "name",
            "#n2": "ownerSwitches",
            "#n3": "checkpointOwner",
            "#n4": "size",
        },
        "ExpressionAttributeValues": {":v0": {"N": "2"}, ":v1": {"S": SECRET}, ":v2": {"N": "1"}, ":v3": {"N": "1"}},
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    assert SECRET not in repr(request)


def test_update_without_changes_has_no_expression() -> None:
    assert sent(dynamodb.update_item("leases", KEY)) == {"TableName": "leases", "Key": {"leaseKey": {"S": "shardId-0"}}}


def test_put_and_delete_carry_their_condition() -> None:
    put = dynamodb.put_item("leases", KEY, condition=absent("leaseKey"), item_if_refused=False)
    assert sent(put) == {
        "TableName": "leases",
        "Item": {"leaseKey": {"S": "shardId-0"}},
        "ConditionExpression": "attribute_not_exists(#n0)",
        "ExpressionAttributeNames": {"#n0": "leaseKey"},
    }
    delete = dynamodb.delete_item("leases", KEY, condition=exists("leaseKey"), returns="ALL_OLD")
    assert sent(delete) == {
        "TableName": "leases",
        "Key": {"leaseKey": {"S": "shardId-0"}},
        "ConditionExpression": "attribute_exists(#n0)",
        "ExpressionAttributeNames": {"#n0": "leaseKey"},
        "ReturnValues": "ALL_OLD",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


@pytest.mark.parametrize(
    ("condition", "expression"),
    [
        (equals("a", 1) & equals("b", 2) & equals("a", 3), "#n0 = :v0 AND #n1 = :v1 AND #n0 = :v2"),
        (equals("a", 1) | absent("a"), "#n0 = :v0 OR attribute_not_exists(#n0)"),
        (
            exists("a") & (absent("b") | equals("b", 1)),
            "attribute_exists(#n0) AND (attribute_not_exists(#n1) OR #n1 = :v0)",
        ),
        (
            (exists("a") & exists("b")) | exists("c"),
            "(attribute_exists(#n0) AND attribute_exists(#n1)) OR attribute_exists(#n2)",
        ),
        (equals("{value} = :v", 1), "#n0 = :v0"),
    ],
)
def test_conditions_are_combined(condition: Condition, expression: str) -> None:
    assert sent(dynamodb.put_item("leases", KEY, condition=condition))["ConditionExpression"] == expression


def test_condition_shows_no_value() -> None:
    assert SECRET not in repr(equals("owner", SECRET) & exists("owner"))


@pytest.mark.parametrize("table", ["", "ab", "a" * 256, "a/b", "arn:aws:dynamodb:us-east-1:1:table/leases", None, 3])
def test_invalid_table_name_is_refused(table: Any) -> None:
    with pytest.raises(ConfigError, match=r"^table="):
        dynamodb.describe_table(table)


def test_invalid_return_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^returns='EVERYTHING': must be one of NONE, ALL_OLD"):
        dynamodb.update_item("leases", KEY, returns="EVERYTHING")
    with pytest.raises(ConfigError, match=r"^returns='ALL_NEW': must be NONE or ALL_OLD with PutItem"):
        dynamodb.put_item("leases", KEY, returns="ALL_NEW")


# Results of writes


def test_write_returns_the_attributes_of_the_response() -> None:
    request = dynamodb.update_item("leases", KEY, returns="ALL_NEW")
    assert request.parse(b'{"Attributes": {"n": {"N": "1"}}}') == Written(applied=True, item={"n": 1})
    assert request.parse(b"{}") == Written(applied=True)


def test_refused_condition_is_a_result_with_the_stored_item() -> None:
    request = dynamodb.update_item("leases", KEY, condition=exists("leaseKey"))
    assert request.expected is not None
    code, parse = request.expected
    assert code == "ConditionalCheckFailedException"
    refused = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "The conditional request failed"}
    assert parse(body({**refused, "Item": {"n": {"N": "1"}}})) == Written(applied=False, item={"n": 1})
    assert parse(body(refused)) == Written(applied=False)


def test_result_of_a_write_counts_its_attempts_and_shows_no_item() -> None:
    request = dynamodb.update_item("leases", KEY)
    assert request.counted is not None
    written = request.counted(Written(False, {"owner": SECRET}), 3, True)
    assert (written.attempts, written.maybe_applied_before) == (3, True)
    assert SECRET not in repr(written)


# Pages


def test_query_of_an_index_names_it_and_its_key() -> None:
    assert sent(dynamodb.query("leases", "leaseOwner", "worker-1", index="ByOwner", limit=10)) == {
        "TableName": "leases",
        "IndexName": "ByOwner",
        "KeyConditionExpression": "#n0 = :v0",
        "ExpressionAttributeNames": {"#n0": "leaseOwner"},
        "ExpressionAttributeValues": {":v0": {"S": "worker-1"}},
        "Limit": 10,
    }
    assert sent(dynamodb.query("leases", "leaseKey", "a", consistent=True))["ConsistentRead"] is True


def test_consistent_query_of_an_index_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^consistent: must be False with an index"):
        dynamodb.query("leases", "leaseOwner", "a", index="ByOwner", consistent=True)


def test_page_requests_the_next_one_after_its_last_key() -> None:
    request = dynamodb.scan("leases", segment=1, total_segments=2, consistent=True)
    last = {"leaseKey": {"S": "b"}}
    page = request.parse(body({"Items": [{"n": {"N": "1"}}, {}], "LastEvaluatedKey": last}))
    assert page.items == [{"n": 1}, {}]
    assert page.next is not None
    assert (page.next.operation, page.next.reads) == ("Scan", True)
    common = {"TableName": "leases", "Segment": 1, "TotalSegments": 2, "ConsistentRead": True}
    assert sent(request) == common
    assert sent(page.next) == {**common, "ExclusiveStartKey": last}
    assert page.next.parse(b'{"Items": []}') == Page([])
    with pytest.raises(Malformed, match="LastEvaluatedKey"):
        page.next.parse(body({"Items": [], "LastEvaluatedKey": last}))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"segment": 0}, "segment and total_segments: must be given together"),
        ({"total_segments": 2}, "segment and total_segments: must be given together"),
        ({"segment": 2, "total_segments": 2}, "segment=2"),
        ({"segment": 0, "total_segments": 0}, "total_segments=0"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_invalid_scan_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}"):
        dynamodb.scan("leases", **options)


# Tables


def test_created_table_has_its_indexes_and_on_demand_capacity() -> None:
    request = dynamodb.create_table("leases", "leaseKey", indexes=[Index("ByOwner", "leaseOwner", "leaseKey")])
    assert (request.reads, request.writes) == (False, True)
    assert sent(request) == {
        "TableName": "leases",
        "AttributeDefinitions": [
            {"AttributeName": "leaseKey", "AttributeType": "S"},
            {"AttributeName": "leaseOwner", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "ByOwner",
                "KeySchema": [
                    {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                    {"AttributeName": "leaseKey", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    }
    assert "GlobalSecondaryIndexes" not in sent(dynamodb.create_table("leases", "leaseKey"))
    alone = sent(dynamodb.create_table("leases", "leaseKey", indexes=[Index("ByOwner", "leaseOwner")]))
    assert alone["GlobalSecondaryIndexes"][0]["KeySchema"] == [{"AttributeName": "leaseOwner", "KeyType": "HASH"}]


def test_table_is_described_with_its_key_and_the_status_of_its_indexes() -> None:
    description = {
        "TableName": "leases",
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "b", "KeyType": "RANGE"}, {"AttributeName": "a", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [{"IndexName": "ByOwner", "IndexStatus": "CREATING"}],
    }
    found = dynamodb.describe_table("leases").parse(body({"Table": description}))
    assert found == Table("ACTIVE", ("a", "b"), {"ByOwner": "CREATING"})
    created = body({"TableDescription": {"TableStatus": "CREATING"}})
    assert dynamodb.create_table("leases", "a").parse(created) == Table("CREATING", (), {})
    assert dynamodb.delete_table("leases").parse(created) == Table("CREATING", (), {})


def test_request_is_titled_by_service_operation_and_table() -> None:
    assert dynamodb.scan("leases").title == "DynamoDB Scan of table 'leases'"
    assert Request("PutRecords", b"", len).title == "PutRecords"

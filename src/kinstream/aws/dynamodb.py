"""DynamoDB operations as requests: encodes items and conditions, parses the responses.

One function per operation. They do no I/O: `DynamoDBClient.send` sends the request that they return. An attribute is a Python
value:

| Python | DynamoDB |
|---|---|
| str | S |
| int, float | N |
| bytes | B |
| bool | BOOL |
| None | NULL |
| frozenset of str | SS |
| list | L |
| dict | M |

All names and values in expressions are placeholders, so that neither reserved words nor any data can change an expression.
A refused condition is a result (`Written.applied` is False), not an error.

Source: API reference of Amazon DynamoDB, version 2012-08-10 (`AttributeValue`, `UpdateItem`, `ConditionalCheckFailedException`).
"""

from __future__ import annotations

import math
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias, TypeVar

import msgspec

from kinstream.aws.request import Malformed, Request
from kinstream.config import choice, text, whole_number
from kinstream.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")

Item: TypeAlias = dict[str, Any]
"""An item: attributes as Python values, by name."""

CONTENT_TYPE = "application/x-amz-json-1.0"
"""Format of requests and responses (service model, `jsonVersion`)."""

CONDITION_REFUSED = "ConditionalCheckFailedException"
"""Code of the error response to a write whose condition was false."""

MAX_DIGITS = 38
"""Maximum significant digits of a number (API reference, "Data types", Number)."""
FLOAT_DECIMALS = 6
"""Decimals of a float in a request."""
FLOAT_MAX = 10.0 ** (MAX_DIGITS - FLOAT_DECIMALS)
"""Limit of the magnitude of a float, so that all digits that are written fit into `MAX_DIGITS`."""

TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
"""Pattern of a table name (API reference, `TableName`)."""
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class ReturnValues(StrEnum):
    """Attributes that a write returns (API reference, `UpdateItem`, `ReturnValues`)."""

    NONE = "NONE"
    """No attributes."""
    ALL_OLD = "ALL_OLD"
    """The item before the write. The only value other than NONE that PutItem and DeleteItem accept."""
    UPDATED_OLD = "UPDATED_OLD"
    """The updated attributes before the write."""
    ALL_NEW = "ALL_NEW"
    """The item after the write."""
    UPDATED_NEW = "UPDATED_NEW"
    """The updated attributes after the write."""


@dataclass(frozen=True, slots=True)
class Written:
    """Result of a write.

    An update that was applied, but whose response was lost, is retried. If its condition is about an attribute that it changes,
    the retry is refused because of its own first attempt. Then `applied` is False and `maybe_applied_before` is True, and only
    `item` shows whether the first attempt was applied.

    Attributes:
        applied: True if the write was applied. False if its condition was refused.
        item: The attributes that `returns` selects. If the condition was refused: the stored item, if it exists and was
            requested. None: no attributes.
        attempts: Number of requests sent for the call, including retries.
        maybe_applied_before: True if an earlier attempt of the same call may have been applied.
    """

    applied: bool
    item: Item | None = field(default=None, repr=False)
    attempts: int = 1
    maybe_applied_before: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One response to Query or Scan.

    Attributes:
        items: A page of items. It may be empty although more pages follow.
        next: Request for the next page. None on the last page.
    """

    items: list[Item] = field(repr=False)
    next: Request[Page] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """Description of a table.

    Attributes:
        status: "CREATING", "UPDATING", "ACTIVE", "DELETING", or another status of the API reference (`TableDescription`).
        key: Names of the key attributes, the partition key first.
        indexes: Status of each global secondary index, by its name.
    """

    status: str
    key: tuple[str, ...]
    indexes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Index:
    """Global secondary index of a new table, which contains the keys only. All key attributes are texts.

    Attributes:
        name: Name of the index.
        partition_key: Name of its partition key attribute.
        sort_key: Name of its sort key attribute. None: it has no sort key.
    """

    name: str
    partition_key: str
    sort_key: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Names of its key attributes."""
        return (self.partition_key,) if self.sort_key is None else (self.partition_key, self.sort_key)


# Conditions.


class _Placeholders:
    """Names and values of one request's expressions."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, dict[str, Any]] = {}

    def name(self, name: str) -> str:
        """Return the placeholder of an attribute's name."""
        placeholder = self.names.get(name)
        if placeholder is None:
            placeholder = self.names[name] = f"#n{len(self.names)}"
        return placeholder

    def value(self, name: str, value: Any) -> str:
        """Return the placeholder of a value for the attribute `name`."""
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = _encoded(name, value)
        return placeholder

    def add_to(self, params: dict[str, Any]) -> None:
        """Add the names and values to a request's parameters."""
        if self.names:
            params["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self.names.items()}
        if self.values:
            params["ExpressionAttributeValues"] = self.values


class Condition(msgspec.Struct, frozen=True):
    """Condition of a write. Created by `equals`, `exists` and `absent`, and combined by `&` and `|`.

    Attributes:
        template: The expression of one attribute, with {name} and {value}, or the operator that joins `parts`.
        name: Attribute.
        value: Value that the attribute is compared with.
        parts: Conditions that are joined.
    """

    template: str
    name: str = ""
    value: Any = None
    parts: tuple[Condition, ...] = ()

    def __repr__(self) -> str:
        return f"Condition({self.template!r}, name={self.name!r}, parts={self.parts!r})"  # without the value

    def __and__(self, other: Condition) -> Condition:
        return _joined("AND", self, other)

    def __or__(self, other: Condition) -> Condition:
        return _joined("OR", self, other)

    def expression(self, placeholders: _Placeholders) -> str:
        """Return the condition as an expression."""
        if self.parts:
            each = [part.expression(placeholders) for part in self.parts]
            return f" {self.template} ".join(
                [f"({one})" if part.parts else one for part, one in zip(self.parts, each, strict=True)]
            )
        name = placeholders.name(self.name)
        if "{value}" not in self.template:
            return self.template.format(name=name)
        return self.template.format(name=name, value=placeholders.value(self.name, self.value))


def equals(name: str, value: Any) -> Condition:
    """Return the condition that an attribute exists and has a value."""
    return Condition("{name} = {value}", name, value)


def exists(name: str) -> Condition:
    """Return the condition that an attribute exists. With a key attribute: that the item exists."""
    return Condition("attribute_exists({name})", name)


def absent(name: str) -> Condition:
    """Return the condition that an attribute does not exist. With a key attribute: that the item does not exist."""
    return Condition("attribute_not_exists({name})", name)


def _joined(operator: str, *conditions: Condition) -> Condition:
    """Return conditions joined by an operator, without nesting those that are joined by the same operator."""
    parts: list[Condition] = []
    for condition in conditions:
        parts += condition.parts if condition.parts and condition.template == operator else (condition,)
    return Condition(operator, parts=tuple(parts))


# Operations.


def get_item(table: str, key: Mapping[str, Any], *, consistent: bool = False) -> Request[Item | None]:
    """Return the request that reads one item. Its result is None if the item does not exist.

    Args:
        table: Table name.
        key: Key attributes of the item.
        consistent: True for a strongly consistent read.

    Raises:
        ConfigError: An argument is invalid.
    """
    params: dict[str, Any] = {"Key": encode_item(key)}
    if consistent:
        params["ConsistentRead"] = True
    return _request("GetItem", table, params, partial(_read, _GOT, _item_of))


def put_item(
    table: str,
    item: Mapping[str, Any],
    *,
    condition: Condition | None = None,
    returns: ReturnValues | str = ReturnValues.NONE,
    item_if_refused: bool = True,
) -> Request[Written]:
    """Return the request that writes an item and replaces one with the same key.

    Args:
        table: Table name.
        item: All attributes.
        condition: Condition on the stored item. None: no condition.
        returns: NONE or ALL_OLD.
        item_if_refused: True to return the stored item if the condition is refused.

    Raises:
        ConfigError: An argument is invalid.
    """
    params: dict[str, Any] = {"Item": encode_item(item)}
    return _write("PutItem", table, params, _Placeholders(), condition, returns, item_if_refused)


def update_item(
    table: str,
    key: Mapping[str, Any],
    *,
    sets: Mapping[str, Any] | None = None,
    adds: Mapping[str, int | float] | None = None,
    removes: Iterable[str] = (),
    condition: Condition | None = None,
    returns: ReturnValues | str = ReturnValues.NONE,
    item_if_refused: bool = True,
) -> Request[Written]:
    """Return the request that changes some attributes of an item. Without a condition it creates a missing item.

    Args:
        table: Table name.
        key: Key attributes of the item.
        sets: Attributes to set, with their values.
        adds: Numbers to add to attributes. A missing attribute counts as 0.
        removes: Attributes to remove.
        condition: Condition on the stored item. None: no condition.
        returns: Attributes to return.
        item_if_refused: True to return the stored item if the condition is refused.

    Raises:
        ConfigError: An argument is invalid.
    """
    params: dict[str, Any] = {"Key": encode_item(key)}
    using = _Placeholders()
    clauses: list[str] = []
    if sets:
        clauses.append("SET " + ", ".join([f"{using.name(n)} = {using.value(n, value)}" for n, value in sets.items()]))
    if adds:
        clauses.append("ADD " + ", ".join([f"{using.name(n)} {using.value(n, value)}" for n, value in adds.items()]))
    if removed := [using.name(name) for name in removes]:
        clauses.append("REMOVE " + ", ".join(removed))
    if clauses:
        params["UpdateExpression"] = " ".join(clauses)
    return _write("UpdateItem", table, params, using, condition, returns, item_if_refused)


def delete_item(
    table: str,
    key: Mapping[str, Any],
    *,
    condition: Condition | None = None,
    returns: ReturnValues | str = ReturnValues.NONE,
    item_if_refused: bool = True,
) -> Request[Written]:
    """Return the request that deletes an item. Without a condition a missing item counts as deleted.

    Args:
        table: Table name.
        key: Key attributes of the item.
        condition: Condition on the stored item. None: no condition.
        returns: NONE or ALL_OLD.
        item_if_refused: True to return the stored item if the condition is refused.

    Raises:
        ConfigError: An argument is invalid.
    """
    params: dict[str, Any] = {"Key": encode_item(key)}
    return _write("DeleteItem", table, params, _Placeholders(), condition, returns, item_if_refused)


def query(
    table: str,
    partition_key: str,
    value: Any,
    *,
    index: str | None = None,
    consistent: bool = False,
    limit: int | None = None,
) -> Request[Page]:
    """Return the request for the first page of the items with a partition key. `Page.next` requests the next one.

    Args:
        table: Table name.
        partition_key: Name of the partition key attribute of the table or the index.
        value: Its value.
        index: Name of the index. None: the table.
        consistent: True for strongly consistent reads, which a global secondary index does not have.
        limit: Maximum items per page. None: the maximum of the service, 1 MB.

    Raises:
        ConfigError: An argument is invalid.
    """
    using = _Placeholders()
    condition = f"{using.name(partition_key)} = {using.value(partition_key, value)}"
    params: dict[str, Any] = {"KeyConditionExpression": condition}
    if index is not None:
        if consistent:
            raise ConfigError("consistent: must be False with an index, whose reads are eventually consistent")
        params["IndexName"] = index
    using.add_to(params)
    return _paged("Query", table, params, consistent, limit)


def scan(
    table: str,
    *,
    segment: int | None = None,
    total_segments: int | None = None,
    consistent: bool = False,
    limit: int | None = None,
) -> Request[Page]:
    """Return the request for the first page of all items. `Page.next` requests the next one.

    Args:
        table: Table name.
        segment: Segment to scan, from 0, if several scans share the table. None: the whole table.
        total_segments: Number of segments. Range: 1 to 1,000,000 (API reference, `Scan`). Required with `segment`.
        consistent: True for strongly consistent reads.
        limit: Maximum items per page. None: the maximum of the service, 1 MB.

    Raises:
        ConfigError: An argument is invalid, or only one of `segment` and `total_segments` is given.
    """
    params: dict[str, Any] = {}
    if (segment is None) is not (total_segments is None):
        raise ConfigError("segment and total_segments: must be given together")
    if segment is not None and total_segments is not None:
        whole_number("total_segments", total_segments, 1, 1_000_000, "API reference, Scan")
        whole_number("segment", segment, 0, total_segments - 1)
        params |= {"Segment": segment, "TotalSegments": total_segments}
    return _paged("Scan", table, params, consistent, limit)


def create_table(table: str, partition_key: str, *, indexes: Iterable[Index] = ()) -> Request[Table]:
    """Return the request that creates a table with on-demand capacity (`PAY_PER_REQUEST`). All key attributes are texts.

    The table exists when `describe_table` returns the status "ACTIVE". `ResourceInUse` is raised if a table of this name exists,
    which an earlier attempt of the same call may have created (`maybe_written`).

    Args:
        table: Table name.
        partition_key: Name of the partition key attribute.
        indexes: Global secondary indexes.

    Raises:
        ConfigError: An argument is invalid.
    """
    indexes = list(indexes)
    attributes = dict.fromkeys([partition_key, *(name for index in indexes for name in index.key)])
    params: dict[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in attributes],
        "KeySchema": _key_schema((partition_key,)),
        "BillingMode": "PAY_PER_REQUEST",
    }
    if indexes:
        params["GlobalSecondaryIndexes"] = [
            {
                "IndexName": index.name,
                "KeySchema": _key_schema(index.key),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
            for index in indexes
        ]
    return _request("CreateTable", table, params, partial(_read, _CREATED, _described))


def describe_table(table: str) -> Request[Table]:
    """Return the request for a table's description.

    Args:
        table: Table name.

    Raises:
        ConfigError: The name is invalid.
    """
    return _request("DescribeTable", table, {}, partial(_read, _DESCRIBED, _described))


def delete_table(table: str) -> Request[Table]:
    """Return the request that deletes a table with all of its items.

    Args:
        table: Table name.

    Raises:
        ConfigError: The name is invalid.
    """
    return _request("DeleteTable", table, {}, partial(_read, _CREATED, _described))


def _key_schema(key: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(key, ("HASH", "RANGE"), strict=False)]


def _paged(operation: str, table: str, params: dict[str, Any], consistent: bool, limit: int | None) -> Request[Page]:
    if consistent:
        params["ConsistentRead"] = True
    if limit is not None:
        whole_number("limit", limit, 1, 2**31 - 1)
        params["Limit"] = limit
    return _page_request(operation, table, params)


def _page_request(operation: str, table: str, params: dict[str, Any]) -> Request[Page]:
    return _request(operation, table, params, partial(_read, _PAGE, partial(_page_of, operation, table, params)))


def _write(
    operation: str,
    table: str,
    params: dict[str, Any],
    using: _Placeholders,
    condition: Condition | None,
    returns: ReturnValues | str,
    item_if_refused: bool,
) -> Request[Written]:
    returned: ReturnValues = choice("returns", returns, ReturnValues)
    if operation != "UpdateItem" and returned not in (ReturnValues.NONE, ReturnValues.ALL_OLD):
        raise ConfigError(f"returns={returned.value!r}: must be NONE or ALL_OLD with {operation}")
    if returned is not ReturnValues.NONE:
        params["ReturnValues"] = returned.value
    if condition is not None:
        params["ConditionExpression"] = condition.expression(using)
        if item_if_refused:
            params["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    using.add_to(params)
    body = _body(operation, table, params)
    return Request(
        operation, body, _PARSE_WRITE, counted=_counted, content_type=CONTENT_TYPE, table=table, expected=_EXPECTED
    )


def _request(operation: str, table: str, params: dict[str, Any], parse: Callable[[bytes], T]) -> Request[T]:
    return Request(operation, _body(operation, table, params), parse, content_type=CONTENT_TYPE, table=table)


def _body(operation: str, table: str, params: dict[str, Any]) -> bytes:
    """Return the encoded parameters and table of a request.

    Raises:
        ConfigError: The table's name is invalid, or a text has lone surrogates.
    """
    if not isinstance(table, str) or not TABLE_NAME.fullmatch(table):
        raise ConfigError(f"table={table!r}: must be a table name (3 to 255 of a-z, A-Z, 0-9, '_', '.', '-')")
    try:
        return msgspec.json.encode({"TableName": table, **params})
    except (UnicodeEncodeError, TypeError):
        pass
    # Raised outside the handler above, because the encoder's error may quote a value.
    raise ConfigError(f"{operation}: a name or text is not a str without lone surrogates")


# Responses.


class _Got(msgspec.Struct, frozen=True):
    item: dict[str, dict[str, Any]] | None = msgspec.field(default=None, name="Item")


class _Wrote(msgspec.Struct, frozen=True):
    attributes: dict[str, dict[str, Any]] | None = msgspec.field(default=None, name="Attributes")


class _Paged(msgspec.Struct, frozen=True):
    items: list[dict[str, dict[str, Any]]] = msgspec.field(name="Items")
    last_key: dict[str, dict[str, Any]] | None = msgspec.field(default=None, name="LastEvaluatedKey")


class _KeyElement(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="AttributeName")
    kind: str = msgspec.field(name="KeyType")


class _IndexDescription(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="IndexName")
    status: str = msgspec.field(default="", name="IndexStatus")


class _TableDescription(msgspec.Struct, frozen=True):
    status: str = msgspec.field(name="TableStatus")
    key: list[_KeyElement] = msgspec.field(default_factory=list, name="KeySchema")
    indexes: list[_IndexDescription] | None = msgspec.field(default=None, name="GlobalSecondaryIndexes")


class _Created(msgspec.Struct, frozen=True):
    table: _TableDescription = msgspec.field(name="TableDescription")


class _Described(msgspec.Struct, frozen=True):
    table: _TableDescription = msgspec.field(name="Table")


_GOT = msgspec.json.Decoder(_Got)
_WROTE = msgspec.json.Decoder(_Wrote)
_PAGE = msgspec.json.Decoder(_Paged)
_CREATED = msgspec.json.Decoder(_Created)
_DESCRIBED = msgspec.json.Decoder(_Described)


def _read(decoder: msgspec.json.Decoder[T], result: Callable[[T], R], body: bytes) -> R:
    """Return the result in a response.

    Raises:
        ValueError: The body is not valid.
    """
    try:
        return result(decoder.decode(body))
    except RecursionError:
        raise Malformed("it is nested too deeply") from None


def _item_of(response: _Got) -> Item | None:
    return None if response.item is None else decode_item(response.item)


def _applied(response: _Wrote) -> Written:
    return Written(True, None if response.attributes is None else decode_item(response.attributes))


def _refused(response: _Got) -> Written:
    return Written(False, _item_of(response))


_PARSE_WRITE = partial(_read, _WROTE, _applied)
_EXPECTED = (CONDITION_REFUSED, partial(_read, _GOT, _refused))


def _counted(written: Written, attempts: int, maybe_applied_before: bool) -> Written:
    return replace(written, attempts=attempts, maybe_applied_before=maybe_applied_before)


def _page_of(operation: str, table: str, params: dict[str, Any], response: _Paged) -> Page:
    items = [decode_item(item) for item in response.items]
    if not response.last_key:
        return Page(items)
    if response.last_key == params.get("ExclusiveStartKey"):
        raise Malformed("its LastEvaluatedKey is the key that the page starts after")
    return Page(items, _page_request(operation, table, {**params, "ExclusiveStartKey": response.last_key}))


def _described(response: _Created | _Described) -> Table:
    table = response.table
    key = sorted(table.key, key=lambda element: element.kind)  # HASH before RANGE
    indexes = {index.name: index.status for index in table.indexes or ()}
    return Table(table.status, tuple([element.name for element in key]), indexes)


# Attribute values.


def encode_item(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the attributes of an item as DynamoDB's attribute values.

    Raises:
        ConfigError: A value has a type, or is a number, that DynamoDB does not have. The text names the attribute.
    """
    return {name: _encoded(name, value) for name, value in item.items()}


def _encoded(name: str, value: Any) -> dict[str, Any]:
    try:
        return _encode(name, value)
    except RecursionError:
        raise ConfigError(f"attribute {name!r}: is nested too deeply") from None


def _encode(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": str.__str__(value)}  # of a subclass, such as an enumeration's member
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        if abs(value) >= 10**MAX_DIGITS:
            raise ConfigError(f"attribute {name!r}: must have at most {MAX_DIGITS} digits")
        return {"N": str(int(value))}
    if isinstance(value, float):
        if not abs(value) < FLOAT_MAX:
            raise ConfigError(f"attribute {name!r}: a float must be finite and less than {FLOAT_MAX:g}")
        return {"N": _float_text(value)}
    if value is None:
        return {"NULL": True}
    if isinstance(value, bytes):
        return {"B": value}  # msgspec writes bytes as base64
    if isinstance(value, frozenset):
        if not value or not all(isinstance(member, str) for member in value):
            raise ConfigError(f"attribute {name!r}: a frozenset must have at least one member, and all must be str")
        return {"SS": sorted(value)}
    if isinstance(value, list):
        return {"L": [_encode(name, member) for member in value]}
    if isinstance(value, dict):
        return {"M": {text(f"attribute {name!r}: a key", key): _encode(name, each) for key, each in value.items()}}
    raise ConfigError(
        f"attribute {name!r}: must be str, int, float, bytes, bool, None, frozenset, list or dict, not"
        f" {type(value).__name__}"
    )


def _float_text(value: float) -> str:
    """Return a float as plain decimal text with at most 6 decimals."""
    written = f"{value:.{FLOAT_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def decode_item(item: Mapping[str, Mapping[str, Any]]) -> Item:
    """Return DynamoDB's attribute values as an item.

    Integers are int, other numbers float. Sets of numbers and of blobs are frozensets.

    Raises:
        Malformed: A value is not a valid attribute value.
    """
    return {name: _decode(value) for name, value in item.items()}


def _decode(value: Any) -> Any:
    if not isinstance(value, dict) or len(value) != 1:
        raise Malformed("an attribute value does not have exactly one type")
    ((kind, raw),) = value.items()
    decode = _DECODERS.get(kind)
    if decode is None:
        raise Malformed("an attribute value has an unknown type")
    return decode(raw)


def _decode_text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise Malformed("an attribute value is not a string")
    return raw


def _decode_number(raw: Any) -> int | float:
    if isinstance(raw, str):
        if _INTEGER.fullmatch(raw) and len(raw) <= 2 * MAX_DIGITS:
            return int(raw)
        if _DECIMAL.fullmatch(raw) and math.isfinite(number := float(raw)):
            return number
    raise Malformed("a number is not valid")


def _decode_blob(raw: Any) -> bytes:
    try:
        return a2b_base64(raw, strict_mode=True)
    except (ValueError, TypeError):
        raise Malformed("a blob is not valid base64") from None


def _decode_bool(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise Malformed("a BOOL is not a boolean")
    return raw


def _decode_null(raw: Any) -> None:
    if raw is not True:
        raise Malformed("a NULL is not true")


def _decode_list(raw: Any) -> list[Any]:
    return [_decode(member) for member in _listed(raw)]


def _decode_map(raw: Any) -> Item:
    if not isinstance(raw, dict):
        raise Malformed("an M is not an object")
    return decode_item(raw)


def _decode_set(decode: Callable[[Any], Any], raw: Any) -> frozenset[Any]:
    return frozenset([decode(member) for member in _listed(raw)])


def _listed(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise Malformed("a list or set is not an array")
    return raw


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "S": _decode_text,
    "N": _decode_number,
    "B": _decode_blob,
    "BOOL": _decode_bool,
    "NULL": _decode_null,
    "SS": partial(_decode_set, _decode_text),
    "NS": partial(_decode_set, _decode_number),
    "BS": partial(_decode_set, _decode_blob),
    "L": _decode_list,
    "M": _decode_map,
}

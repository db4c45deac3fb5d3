"""iter_deaggregate_records: deaggregation of dicts, in place of the function of aws-kinesis-agg with the same name.

The dicts are those of aws-kinesis-agg 1.2.3, with two differences. A record without an explicit hash key has None,
where aws-kinesis-agg returns the first key of the aggregate. An aggregate with the index of a key that does not exist
is returned whole, where it returns the records before that index and loses the others.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from kinstream.errors import ConfigError
from kinstream.kpl.container import BadIndex, Damaged, UserRecords, unpack

_METADATA = ("kinesisStreamRecordMetadata", "kinesisRecordMetadata")
"""Members with the origin of a record, in events of Kinesis Data Analytics and of Firehose."""


def iter_deaggregate_records(
    records: Iterable[dict[str, Any]] | dict[str, Any], data_format: Literal["Boto3"] | None = None
) -> Iterator[dict[str, Any]]:
    """Expand aggregated records in dicts, as the function of aws-kinesis-agg 1.2.3 with this name, without protobuf.

    A record that is not a valid aggregate is returned whole. A user record of an aggregate has the dict of a Lambda event in
    every format, with its data in base64 as bytes, and the members `explicitHashKey`, `subSequenceNumber` and `aggregated`. New
    code can use `kinstream.deaggregate`, or `kinstream.awslambda.records` in AWS Lambda.

    Args:
        records: Records of an event of AWS Lambda (`event["Records"]`), of a Firehose transformation or of a Kinesis Data
            Analytics preprocessor (`event["records"]`), or of boto3 with `data_format`. A single record is accepted too.
        data_format: "Boto3" for records of boto3's `get_records`. None: all other formats.

    Raises:
        ConfigError: An argument is invalid, or, when it is reached, a record lacks a member or is not base64.

    Example:
        >>> from kinstream import iter_deaggregate_records
        >>> record = {"SequenceNumber": "1", "PartitionKey": "k", "ApproximateArrivalTimestamp": 0.0, "Data": b"21.5"}
        >>> [each["kinesis"]["data"] for each in iter_deaggregate_records([record], data_format="Boto3")]
        [b'21.5']
    """
    if data_format not in (None, "Boto3"):
        raise ConfigError(f"data_format={data_format!r}: must be 'Boto3' or None")
    given: Any = [records] if isinstance(records, Mapping) else records
    if not isinstance(given, Iterable):
        raise ConfigError(f"records: must be records as dicts, not {type(given).__name__}")
    return _expanded(given, is_boto3=data_format == "Boto3")


def _expanded(records: Iterable[Any], *, is_boto3: bool) -> Iterator[dict[str, Any]]:
    for index, given in enumerate(records):
        place = f"records[{index}]"
        if not isinstance(given, Mapping):
            raise ConfigError(f"{place}: must be a record as a dict, not {type(given).__name__}")
        record: Any = _lambda_form(given, place, is_boto3=is_boto3)
        found = _user_records(record, place, is_boto3=is_boto3)
        if found is None:
            yield record
            continue
        kinesis = record["kinesis"]
        common = {
            name: _member(kinesis, name, f"{place}.kinesis")
            for name in ("kinesisSchemaVersion", "sequenceNumber", "approximateArrivalTimestamp")
        }
        record_id = {"recordId": kinesis["recordId"]} if "recordId" in kinesis else {}
        around = {name: value for name, value in record.items() if name not in ("kinesis", "data")}
        for number, (key, hash_key, data) in enumerate(found):
            content = {
                "explicitHashKey": hash_key,
                "partitionKey": key,
                "subSequenceNumber": number,
                "aggregated": True,
                "data": base64.b64encode(data),
            }
            yield {"kinesis": {**common, **content, **record_id}, **around}


def _lambda_form(record: Mapping[str, Any], place: str, *, is_boto3: bool) -> Mapping[str, Any]:
    """Return a record in the form of a Lambda event. A record in that form, or in an unknown one, is returned itself."""
    if ("kinesis" in record or "data" not in record) and "Data" not in record:
        return record
    for name in _METADATA:
        if name in record:
            metadata, inside = record[name], f"{place}.{name}"
            if not isinstance(metadata, Mapping):
                raise ConfigError(f"{inside}: must be a dict, not {type(metadata).__name__}")
            kinesis = {
                member: _member(metadata, member, inside)
                for member in ("sequenceNumber", "partitionKey", "approximateArrivalTimestamp", "shardId")
            }
            content = {"data": _member(record, "data", place), "recordId": _member(record, "recordId", place)}
            return {"kinesis": {"kinesisSchemaVersion": "1.0", **kinesis, **content}}
    if not is_boto3:
        return record
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": _member(record, "SequenceNumber", place),
            "partitionKey": record.get("PartitionKey"),  # a stream that distributes records itself stores none
            "approximateArrivalTimestamp": _member(record, "ApproximateArrivalTimestamp", place),
            "data": _member(record, "Data", place),
        }
    }


def _user_records(record: Mapping[str, Any], place: str, *, is_boto3: bool) -> UserRecords | None:
    """Return the user records in a record. None: it is not a valid aggregate."""
    kinesis = record.get("kinesis")
    if not isinstance(kinesis, Mapping):
        hint = ": pass data_format='Boto3' for records of boto3" if "Data" in record else ""
        raise ConfigError(f"{place}.kinesis: {'missing' if kinesis is None else 'not a dict'}{hint}")
    data = _member(kinesis, "data", f"{place}.kinesis")
    if not is_boto3:
        try:
            data = base64.b64decode(data)
        except (TypeError, ValueError):
            raise ConfigError(f"{place}.kinesis.data: must be base64, as text or bytes") from None
    if not isinstance(data, bytes):
        return None
    try:
        return unpack(data)
    except (Damaged, BadIndex):
        return None


def _member(mapping: Mapping[str, Any], name: str, place: str) -> Any:
    if name not in mapping:
        raise ConfigError(f"{place}.{name}: missing")
    return mapping[name]

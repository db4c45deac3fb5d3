"""Functions on AWS Lambda with a Kinesis stream as their trigger: deaggregated records and partial failures.

Importing this module loads neither the client of kinstream nor asyncio. An event is what Lambda passes to the function, or the
`KinesisStreamEvent` of Powertools for AWS Lambda. Lambda stores the position in the stream, so there are no checkpoints here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Literal, Self, TypeAlias, TypedDict

import msgspec

from kinstream.consume.fetch.position import Position
from kinstream.consume.lambda_event import number_of, received, sequence_number, stream_of, text_of
from kinstream.errors import ConfigError
from kinstream.functions import function
from kinstream.kpl.expand import expanded
from kinstream.record import ReceivedRecord, parse_json

__all__ = [
    "BatchItemFailure",
    "BatchResponse",
    "FailedBatch",
    "Failures",
    "failed_batch",
    "idempotency_key",
    "process",
    "records",
]

Event: TypeAlias = Mapping[str, Any]
"""An event of a Kinesis stream or one of its records, as a dict or as an object of Powertools for AWS Lambda."""

MAX_LOGGED = 10
"""Maximum failures of one event that are logged with a traceback."""


class BatchItemFailure(TypedDict):
    """A failed record in a response. Its fields have the names of AWS Lambda."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """The response of a function if its trigger has `ReportBatchItemFailures`. Its fields have the names of AWS Lambda."""

    batchItemFailures: list[BatchItemFailure]


class FailedBatch(msgspec.Struct, frozen=True):
    """Records that a function has failed to process, as an on-failure destination describes them.

    Attributes:
        stream: ARN of the stream.
        shard_id: ID of the shard.
        after: The position before the first record of the batch.
        upto: The position after the last record of the batch.
    """

    stream: str
    shard_id: str
    after: Position
    upto: Position


def records(event: Event) -> Iterator[ReceivedRecord[bytes]]:
    """Return the records of an event in order, with aggregated records (KPL format) expanded into their user records.

    Each record has its `shard_id` and `stream_name`. A record that is not a valid aggregate is returned whole, whatever its data
    is. All fields of the event are checked before the first record is returned. Aggregates are expanded when they are reached.

    Args:
        event: An event, or one of its records.

    Raises:
        ConfigError: It is not an event of a Kinesis stream: a field is missing or invalid. The text names the field.

    Example:
        >>> from kinstream.awslambda import records
        >>> kinesis = {"sequenceNumber": "7", "data": "eyJuIjogMX0=", "approximateArrivalTimestamp": 1.5, "partitionKey": "a"}
        >>> stream = "arn:aws:kinesis:us-east-1:123456789012:stream/orders"
        >>> event = {"Records": [{"kinesis": kinesis, "eventID": "shardId-000000000000:7", "eventSourceARN": stream}]}
        >>> [(record.shard_id, record.partition_key, record.json()) for record in records(event)]
        [('shardId-000000000000', 'a', {'n': 1})]
    """
    return chain.from_iterable(map(expanded, _received(event)))


def process(
    event: Event,
    handler: Callable[[ReceivedRecord[bytes]], object],
    *,
    on_failure: Literal["stop", "continue"] = "stop",
) -> BatchResponse:
    """Call a handler with each record of an event, and return the records that failed for Lambda to retry.

    A record has failed if the handler raises an `Exception`. All other exceptions, such as `KeyboardInterrupt`, are raised here.
    Failures are logged. Lambda retries from the lowest failed record on, so all records after it are repeated, also those that
    succeeded. If a user record of an aggregate fails, all records of the aggregate are repeated.

    Args:
        event: The event. Its trigger must have `ReportBatchItemFailures`: otherwise Lambda ignores the response, and failed
            records are lost.
        handler: Function of one record, deaggregated. Its return value is ignored.
        on_failure: "stop": no further record is handled after the first failure, so that order is kept. "continue": all records
            are handled, in order, and each failed one is in the response.

    Returns:
        The response for Lambda: each failed Kinesis record once, in the order of the event.

    Raises:
        ConfigError: An argument is invalid, or `event` is not an event of a Kinesis stream.

    Example:
        >>> from kinstream.awslambda import process
        >>> def lambda_handler(event, context):
        ...     return process(event, lambda record: print(record.json()))
        >>> lambda_handler({"Records": []}, None)
        {'batchItemFailures': []}
    """
    function("handler", handler, "a function of a record")
    if on_failure not in ("stop", "continue"):
        raise ConfigError(f"on_failure={on_failure!r}: must be 'stop' or 'continue'")
    found = _received(event)
    failures = Failures._of([record.sequence_number for record in found])
    for record in chain.from_iterable(map(expanded, found)):
        try:
            result = handler(record)
        except Exception as error:  # noqa: BLE001 - the record failed, whatever the handler raised
            failures.add(record, error)
            if on_failure == "stop":
                break
        else:
            if result is not None and hasattr(result, "__await__"):
                close = getattr(result, "close", None)  # of a coroutine, which would warn that it was never awaited
                if close is not None:
                    close()
                raise ConfigError("handler: returned an awaitable, which is never awaited here: pass a plain function")
    return failures.response()


class Failures:
    """Records of one event that failed, for a function that has its own loop.

    Args:
        event: The event.

    Raises:
        ConfigError: It is not an event of a Kinesis stream.

    Example:
        >>> from kinstream.awslambda import Failures, records
        >>> def lambda_handler(event, context):
        ...     failures = Failures(event)
        ...     for record in records(event):
        ...         try:
        ...             print(record.json())
        ...         except ValueError as error:
        ...             failures.add(record, error)
        ...     return failures.response()
        >>> lambda_handler({"Records": []}, None)
        {'batchItemFailures': []}
    """

    def __init__(self, event: Event) -> None:
        self._failed: dict[str, bool] = {sequence_number(record, place): False for place, record in _stored(event)}
        self._logged = 0

    @classmethod
    def _of(cls, sequence_numbers: list[str]) -> Self:
        """Return an object for an event that was checked already."""
        self = cls({"Records": ()})
        self._failed = dict.fromkeys(sequence_numbers, False)
        return self

    def add(self, record: ReceivedRecord[bytes] | Event, error: BaseException | None = None) -> None:
        """Mark a record as failed. A user record of an aggregate stands for the whole aggregate.

        Args:
            record: A record of the event: from `records`, or as it is in the event.
            error: The reason. The first one of each Kinesis record is logged, with its traceback and without the record's data.

        Raises:
            ConfigError: It is not a record of this event.
        """
        if not isinstance(record, ReceivedRecord):
            if not isinstance(record, Mapping):
                raise ConfigError(f"record: must be a record of the event, not {type(record).__name__}")
            record = received(record, "record")
        number = record.sequence_number
        if number not in self._failed:
            raise ConfigError(f"record: its sequence number {number} is not in the event")
        if error is not None and not self._failed[number]:
            self._log(record, error)
        self._failed[number] = True

    def response(self) -> BatchResponse:
        """Return the response for Lambda: each failed Kinesis record once, in the order of the event."""
        failed = [number for number, has_failed in self._failed.items() if has_failed]
        return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}

    def __repr__(self) -> str:
        return f"<Failures: {sum(self._failed.values())} of {len(self._failed)} records>"

    def _log(self, record: ReceivedRecord[bytes], error: BaseException) -> None:
        self._logged += 1
        if self._logged > MAX_LOGGED:
            return
        import logging  # here, because it would be a tenth of the time of importing this module

        from kinstream.consume.withhold import exception_info

        logging.getLogger("kinstream.awslambda").error(
            "%s: %s: record %s could not be handled (%s); it is returned to Lambda as failed%s",
            record.stream_name,
            record.shard_id,
            _number_of(record),
            type(error).__name__,
            "; further failures of this event are not logged" if self._logged == MAX_LOGGED else "",
            exc_info=exception_info(error, [record.data]),
        )


def idempotency_key(record: ReceivedRecord[bytes]) -> str:
    """Return a key that a record has each time it is delivered, to recognize records that were handled before.

    It consists of the stream's name, the shard's ID, the sequence number, and the index in the aggregate: records of a `Consumer`
    and of a Lambda function have the same key. Records that a producer wrote twice have different keys.

    Args:
        record: A record from `records`, or of a `Consumer`.

    Raises:
        ConfigError: It is not a record whose stream and shard are known. `get_records` returns records without them.

    Example:
        >>> from kinstream.awslambda import idempotency_key, process
        >>> handled = set()  # an application would use a table, such as DynamoDB with a conditional write
        >>> def handle(record):
        ...     if (key := idempotency_key(record)) not in handled:
        ...         print(record.json())
        ...         handled.add(key)
        >>> process({"Records": []}, handle)
        {'batchItemFailures': []}
    """
    if not isinstance(record, ReceivedRecord):
        raise ConfigError(f"record: must be a kinstream.ReceivedRecord, not {type(record).__name__}")
    if not record.shard_id or not record.stream_name:
        raise ConfigError(
            "record: its stream and its shard are unknown: use a record of records(event) or of a Consumer"
        )
    shard_id = record.shard_id.rpartition(":")[2]  # a consumer of several streams puts the stream's name before it
    return f"{record.stream_name}/{shard_id}/{_number_of(record)}"


def failed_batch(document: Event | str | bytes) -> FailedBatch:
    """Return the range of the records that Lambda gave up, from the document that it sent to an on-failure destination.

    The document has the positions of the records and not their data. They can be read from the stream for as long as it retains
    them.

    Args:
        document: The document, parsed or as JSON: the body of the SQS message, the message of the SNS notification, or the object
            in S3.

    Raises:
        ConfigError: It is not a document about records of a Kinesis stream. The text names the field.

    Example:
        >>> from kinstream.awslambda import failed_batch
        >>> batch = failed_batch({
        ...     "KinesisBatchInfo": {
        ...         "shardId": "shardId-000000000001",
        ...         "startSequenceNumber": "4960",
        ...         "endSequenceNumber": "4967",
        ...         "streamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/orders",
        ...     }
        ... })
        >>> print(batch.shard_id, "|", batch.after, "|", batch.upto)
        shardId-000000000001 | at 4960/0 | after 4967
    """
    if isinstance(document, (str, bytes)):
        try:
            document = parse_json(document)
        except ValueError as error:
            raise ConfigError(f"document: {error}") from None
    if not isinstance(document, Mapping):
        raise ConfigError(f"document: must be an object, not {type(document).__name__}")
    info = document.get("KinesisBatchInfo")
    if not isinstance(info, Mapping):
        state = "missing" if info is None else f"of type {type(info).__name__}"
        raise ConfigError(f"KinesisBatchInfo: {state}: this document is not about records of a Kinesis stream")
    place = "KinesisBatchInfo"
    arn = text_of(info, "streamArn", place, "streamArn")
    stream_of(arn, place, "streamArn")  # checks it
    return FailedBatch(
        arn.partition("/consumer/")[0],
        text_of(info, "shardId", place, "shardId"),
        Position.at(number_of(info, "startSequenceNumber", place, "startSequenceNumber")),
        Position.after(number_of(info, "endSequenceNumber", place, "endSequenceNumber")),
    )


def _received(event: Event) -> list[ReceivedRecord[bytes]]:
    """Return the records of an event as Kinesis stores them."""
    return [received(record, place) for place, record in _stored(event)]


def _stored(event: Event) -> list[tuple[str | int, Mapping[str, Any]]]:
    """Return the records of an event as they are in it, each with its index or name for errors."""
    if not isinstance(event, Mapping):
        raise ConfigError(
            f"event: must be an event of a Kinesis stream or one of its records, not {type(event).__name__}"
        )
    if "Records" not in event:
        if "kinesis" in event:
            return [("record", event)]
        source = event.get("eventSource")
        found = f" (eventSource={source[:60]!r})" if isinstance(source, str) else ""
        raise ConfigError(
            f"event.Records: missing: this is neither an event of a Kinesis stream nor one of its records{found}"
        )
    stored = event["Records"]
    if not isinstance(stored, (list, tuple)):
        raise ConfigError(f"event.Records: must be a list, not {type(stored).__name__}")
    for index, record in enumerate(stored):
        if record.__class__ is not dict and not isinstance(record, Mapping):
            raise ConfigError(f"Records[{index}]: must be an object, not {type(record).__name__}")
    return list(enumerate(stored))


def _number_of(record: ReceivedRecord[bytes]) -> str:
    """Return the sequence number of a record, with its index if it was in an aggregate."""
    index = record.subsequence_number
    return record.sequence_number if index is None else f"{record.sequence_number}/{index}"

"""The callbacks style without requests. Methods return None, never raise, and pass every error to the callback."""

from __future__ import annotations

import datetime
import inspect
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from tests.doubles.heard import Heard

import kinstream
from kinstream import ErrorType, KinesisError, Record, ShardIteratorType, callbacks

GOOD = ("us-east-1", "local", "local", "events")
SHARD = "shardId-000000000000"
REGION_KEY_SECRET_STREAM = range(4)
FACES = ("blocking", "callbacks")
WRONG_LIMITS: list[Any] = [0, -1, 10_001, 1.0, "10", True, []]

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a server that no test connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.fixture
def producer(nobody: str) -> callbacks.Producer:
    return callbacks.Producer(*GOOD, endpoint_url=nobody)


@pytest.fixture
def consumer(nobody: str) -> callbacks.Consumer:
    return callbacks.Consumer(*GOOD, endpoint_url=nobody)


def library_error(error: Any) -> KinesisError:
    """Check that it is an error of the library, as the contract describes one."""
    assert isinstance(error, KinesisError)
    assert error.type is ErrorType.LIBRARY_ERROR
    assert isinstance(error.details, str)
    assert error.details
    assert error.http_status is None
    assert error.http_response is None
    return error


def all_methods(
    make: Callable[[type[Any]], Any],
) -> list[tuple[str, Callable[[Heard], object], tuple[object, ...]]]:
    """Return each method as a call that takes a callback, and the callback arguments that must follow the error."""
    producer, consumer = make(callbacks.Producer), make(callbacks.Consumer)
    record = Record("data", "key")
    return [
        ("put_record", lambda heard: producer.put_record(record, heard), (None,)),
        ("put_records", lambda heard: producer.put_records([record, record], heard), (2, [])),
        ("put", lambda heard: producer.put(b"data", "key", heard), (None,)),
        ("flush", lambda heard: producer.flush(heard), (None,)),
        ("get_shards", lambda heard: consumer.get_shards(heard), ([],)),
        ("get_shard_iterator", lambda heard: consumer.get_shard_iterator(SHARD, "LATEST", None, heard), (None,)),
        ("get_records", lambda heard: consumer.get_records({"shard_iterator": "x"}, heard), ([], 0, None)),
        ("subscribe", lambda heard: consumer.subscribe(heard), (None,)),
        ("pause", lambda heard: consumer.pause(None, heard), ()),
        ("resume", lambda heard: consumer.resume(None, heard), ()),
        ("seek", lambda heard: consumer.seek(SHARD, "LATEST", heard), ()),
        ("status", lambda heard: consumer.status(heard), ([],)),
    ]


@pytest.mark.parametrize("position", REGION_KEY_SECRET_STREAM)
@pytest.mark.parametrize("wrong", [None, "", 5, b"local", ["local"], object()])
def test_wrong_constructor_arguments_arrive_in_every_callback(position: int, wrong: Any) -> None:
    given = [*GOOD]
    given[position] = wrong
    for name, call, rest in all_methods(lambda face: face(*given)):
        heard = Heard()
        assert call(heard) is None, name
        error, *others = heard.wait()
        library_error(error)
        assert tuple(others) == rest


@pytest.mark.parametrize(
    "given",
    [
        ("us east 1", "local", "local", "events"),
        ("us-east-1", "local", "local", "no stream's name"),
        ("us-east-1", "local", "local", "x" * 129),
        ("us-east-1", "lo cal", "local", "events"),
        ("eu-west-1", "local", "local", "arn:aws:kinesis:us-east-1:123456789012:stream/events"),
    ],
)
def test_constructor_arguments_that_cannot_be_right_arrive_in_the_callback(given: tuple[Any, ...]) -> None:
    heard = Heard()
    callbacks.Producer(*given).put_record(Record("data", "key"), heard)
    error, result = heard.wait()
    library_error(error)
    assert result is None


@pytest.mark.parametrize("wrong", ["", 5, [], {}, b"http://127.0.0.1:1", "ftp://127.0.0.1", "http://u:p@127.0.0.1"])
def test_wrong_endpoint_arrives_in_the_callback(wrong: Any) -> None:
    heard = Heard()
    callbacks.Consumer(*GOOD, endpoint_url=wrong).get_shards(heard)
    error, shard_ids = heard.wait()
    library_error(error)
    assert shard_ids == []


@pytest.mark.parametrize("wrong", [None, 1, "yes", []])
def test_is_blob_must_be_true_or_false(wrong: Any) -> None:
    heard = Heard()
    callbacks.Consumer(*GOOD, wrong).get_shards(heard)
    assert "is_blob" in library_error(heard.wait()[0]).details


def test_constructor_names_the_argument_and_never_its_secret() -> None:
    heard = Heard()
    callbacks.Producer("us-east-1", "local", "geheim nis", "events").put_record(Record("data", "key"), heard)
    error = library_error(heard.wait()[0])
    assert "secret_access_key" in error.details
    assert "geheim" not in f"{error!r} {error}"


WRONG_RECORDS: list[tuple[str, Any]] = [
    ("None", None),
    ("a dict", {"data": "x", "partition_key": "k"}),
    ("text", "record"),
    ("the class", Record),
    ("no key", Record("data", None)),  # type: ignore[arg-type]
    ("empty key", Record("data", "")),
    ("key no text", Record("data", 7)),  # type: ignore[arg-type]
    ("key too long", Record("data", "k" * 257)),
    ("key no Unicode", Record("data", "\ud800")),
    ("hash key no number", Record("data", "key", "x")),
    ("hash key empty", Record("data", "key", "")),
    ("hash key too large", Record("data", "key", str(2**128))),
    ("hash key no text", Record("data", "key", 5)),  # type: ignore[arg-type]
    ("previous number no number", Record("data", "key", None, "x")),
    ("previous number no text", Record("data", "key", None, 5)),  # type: ignore[arg-type]
    ("no JSON", Record(object(), "key")),
    ("a set", Record({1, 2}, "key")),
    ("a date", Record(datetime.datetime.now(datetime.UTC), "key")),
    ("NaN", Record(float("nan"), "key")),
    ("infinity within", Record({"deep": [float("inf")]}, "key")),
    ("lone surrogate", Record("\ud800", "key")),
    ("encoder no function", Record({"a": 1}, "key", None, None, "json")),  # type: ignore[arg-type]
    ("encoder raises", Record({"a": 1}, "key", None, None, lambda data: 1 // 0)),  # type: ignore[arg-type, return-value]
    ("encoder gives None", Record({"a": 1}, "key", None, None, lambda data: None)),  # type: ignore[arg-type, return-value]
    ("encoder gives a dict", Record({"a": 1}, "key", None, None, lambda data: data)),
    ("too large", Record(b"x" * (10 * 1024 * 1024), "key")),
]


@pytest.mark.parametrize("wrong", [record for _, record in WRONG_RECORDS], ids=[name for name, _ in WRONG_RECORDS])
def test_wrong_record_arrives_in_the_callback(wrong: Any, producer: callbacks.Producer) -> None:
    heard = Heard()
    assert producer.put_record(wrong, heard) is None  # type: ignore[func-returns-value]
    error, result = heard.wait()
    library_error(error)
    assert result is None
    assert producer.put_records([Record("good", "key"), wrong], heard) is None  # type: ignore[func-returns-value]
    error, failed_record_count, results = heard.wait()
    library_error(error)
    assert (failed_record_count, results) == (2, [])
    assert "records[1]" in error.details or "records:" in error.details


def test_data_that_holds_itself_arrives_in_the_callback(producer: callbacks.Producer) -> None:
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for data in (round_and_round, deep):
        heard = Heard()
        producer.put_record(Record(data, "key"), heard)
        library_error(heard.wait()[0])


@pytest.mark.parametrize("wrong", [None, 3, "records", b"", {}, Record("data", "key"), iter([]), object()])
def test_what_is_no_list_of_records_counts_none_as_failed(wrong: Any, producer: callbacks.Producer) -> None:
    heard = Heard()
    assert producer.put_records(wrong, heard) is None  # type: ignore[func-returns-value]
    error, failed_record_count, results = heard.wait()
    library_error(error)
    assert (failed_record_count, results) == (0, [])


@pytest.mark.parametrize("count", [0, 501, 1000])
def test_list_too_short_or_too_long_counts_all_as_failed(count: int, producer: callbacks.Producer) -> None:
    heard = Heard()
    producer.put_records([Record("data", "key")] * count, heard)
    error, failed_record_count, results = heard.wait()
    assert "500" in library_error(error).details
    assert (failed_record_count, results) == (count, [])


def test_records_too_large_together_arrive_in_the_callback(producer: callbacks.Producer) -> None:
    heard = Heard()
    producer.put_records([Record(b"x" * (1024 * 1024), "key")] * 10, heard)
    error, failed_record_count, results = heard.wait()
    library_error(error)
    assert (failed_record_count, results) == (10, [])


@pytest.mark.parametrize(
    ("shard_id", "type_", "options"),
    [
        (None, "LATEST", None),
        ("", "LATEST", None),
        (0, "LATEST", None),
        ("a shard", "LATEST", None),
        (SHARD, None, None),
        (SHARD, "", None),
        (SHARD, "latest", None),
        (SHARD, 1, None),
        (SHARD, [], None),
        (SHARD, ShardIteratorType, None),
        (SHARD, "LATEST", "options"),
        (SHARD, "LATEST", [("timestamp", 1)]),
        (SHARD, ShardIteratorType.AT_SEQUENCE_NUMBER, None),
        (SHARD, ShardIteratorType.AT_SEQUENCE_NUMBER, {}),
        (SHARD, ShardIteratorType.AT_SEQUENCE_NUMBER, {"timestamp": 1}),
        (SHARD, ShardIteratorType.AT_SEQUENCE_NUMBER, {"starting_sequence_number": None}),
        (SHARD, ShardIteratorType.AT_SEQUENCE_NUMBER, {"starting_sequence_number": ""}),
        (SHARD, ShardIteratorType.AT_SEQUENCE_NUMBER, {"starting_sequence_number": 123}),
        (SHARD, ShardIteratorType.AFTER_SEQUENCE_NUMBER, {}),
        (SHARD, ShardIteratorType.AFTER_SEQUENCE_NUMBER, {"starting_sequence_number": "abc"}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, None),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {"timestamp": None}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {"timestamp": "1"}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {"timestamp": 1.5}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {"timestamp": True}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {"timestamp": -1}),
        (SHARD, ShardIteratorType.AT_TIMESTAMP, {"timestamp": 10**12}),
    ],
)
def test_wrong_place_to_read_from_arrives_in_the_callback(
    shard_id: Any, type_: Any, options: Any, consumer: callbacks.Consumer
) -> None:
    heard = Heard()
    assert consumer.get_shard_iterator(shard_id, type_, options, heard) is None  # type: ignore[func-returns-value]
    error, shard_iterator = heard.wait()
    library_error(error)
    assert shard_iterator is None


@pytest.mark.parametrize(
    "options",
    [
        None,
        "iterator",
        [],
        {},
        {"limit": 10},
        {"shard_iterator": None},
        {"shard_iterator": ""},
        {"shard_iterator": 5},
        *({"shard_iterator": "x", "limit": limit} for limit in WRONG_LIMITS),
    ],
)
def test_wrong_read_options_arrive_in_the_callback(options: Any, consumer: callbacks.Consumer) -> None:
    heard = Heard()
    assert consumer.get_records(options, heard) is None  # type: ignore[func-returns-value]
    error, records, millis_behind_latest, next_options = heard.wait()
    library_error(error)
    assert (records, millis_behind_latest, next_options) == ([], 0, None)


def test_each_callback_is_called_once(producer: callbacks.Producer) -> None:
    heard = Heard()
    producer.put_record(None, heard)  # type: ignore[arg-type]
    producer.close()
    heard.wait()
    assert heard.quiet


def test_callback_that_is_no_function_is_logged_and_nothing_is_done(
    producer: callbacks.Producer, consumer: callbacks.Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.put_record(Record("data", "key"), "callback")  # type: ignore[arg-type]
    consumer.get_shards(5)  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "callback must be a function, not str" in caplog.text


def test_callback_whose_body_would_never_run_is_logged_and_nothing_is_done(
    producer: callbacks.Producer, consumer: callbacks.Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    async def coroutine(*_: object) -> None:
        pass

    def generator(*_: object) -> Iterator[None]:
        yield

    producer.put("data", "key", coroutine)
    producer.put_record(Record("data", "key"), generator)
    consumer.subscribe(coroutine)
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert [text.partition(": callback must be a plain function")[0] for text in told] == [
        "put",
        "put_record",
        "subscribe",
    ]


def test_methods_after_close_pass_a_closed_error_to_the_callback(nobody: str) -> None:
    def closed(face: type[Any]) -> Any:
        made = face(*GOOD, endpoint_url=nobody)
        made.close()
        return made

    for _, call, rest in all_methods(closed):
        heard = Heard()
        call(heard)
        error, *others = heard.wait()
        library_error(error)
        assert isinstance(error, kinstream.ClosedError)
        assert tuple(others) == rest


def test_constructors_take_the_references_arguments_in_its_order() -> None:
    common = ["region", "access_key_id", "secret_access_key", "stream_name"]
    producer, consumer = (inspect.signature(face).parameters for face in (callbacks.Producer, callbacks.Consumer))

    def by_place(parameters: Any) -> list[str]:
        return [name for name, parameter in parameters.items() if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]

    assert by_place(producer) == common
    assert by_place(consumer) == [*common, "is_blob"]
    assert consumer["is_blob"].default is False


@pytest.mark.parametrize("name", ["Producer", "Consumer"])
def test_options_of_the_pipelines_are_those_of_asyncio(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (callbacks, kinstream))
    assert set(theirs) - {"stream", "client", "options"} <= set(ours)
    assert all(ours[option].default == theirs[option].default for option in set(theirs) & set(ours))


@pytest.mark.parametrize("option", ["fetch", "handling", "errors", "checkpoints", "misrouted"])
def test_consumer_option_without_an_off_state_refuses_none_and_lists_its_choices(option: str) -> None:
    heard = Heard()
    with callbacks.Consumer(*GOOD, **{option: None}) as consumer:  # type: ignore[arg-type]
        consumer.get_shards(heard)
    error, shard_ids = heard.wait()
    library_error(error)
    assert error.details.startswith(f"{option}=None: must be ")
    assert shard_ids == []


def test_methods_take_the_references_arguments_in_its_order() -> None:
    def arguments(method: Callable[..., Any]) -> list[str]:
        return list(inspect.signature(method).parameters)[1:]

    assert arguments(callbacks.Producer.put_record) == ["record", "callback"]
    assert arguments(callbacks.Producer.put_records) == ["records", "callback"]
    assert arguments(callbacks.Consumer.get_shards) == ["callback"]
    assert arguments(callbacks.Consumer.get_shard_iterator) == ["shard_id", "type", "type_options", "callback"]
    assert arguments(callbacks.Consumer.get_records) == ["options", "callback"]
    for face in (callbacks.Producer, callbacks.Consumer):
        assert arguments(face.set_debug) == ["value"]


def test_record_takes_the_references_arguments_in_its_order() -> None:
    parameters = inspect.signature(Record).parameters
    assert list(parameters) == ["data", "partition_key", "explicit_hash_key", "prev_sequence_number", "encoder"]
    assert [p.name for p in parameters.values() if p.default is inspect.Parameter.empty] == ["data", "partition_key"]


def test_enumerations_have_the_references_values() -> None:
    assert {member.name for member in ErrorType} == {"LIBRARY_ERROR", "REQUEST_FAILED", "UNEXPECTED_RESPONSE"}
    assert {member.name for member in kinstream.EncryptionType} == {"NONE", "KMS"}
    assert {member.name for member in ShardIteratorType} == {
        "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP", "TRIM_HORIZON", "LATEST",
    }  # fmt: skip


def test_faces_share_their_values() -> None:
    modules = [import_module(f"kinstream.{face}.{name}") for face in FACES for name in ("producer", "consumer")]
    for name in ("Record", "PutRecordResult", "PutResult", "ProduceError", "ReceivedRecord", "ShardIteratorType"):
        used = [getattr(module, name) for module in modules if hasattr(module, name)]
        assert used
        assert all(value is getattr(kinstream, name) for value in used)
    hints = inspect.get_annotations(kinstream.ReceivedRecord)
    assert "EncryptionType" in str(hints["encryption_type"])


@pytest.mark.parametrize("method", ["put_record", "put_records", "get_shards", "get_shard_iterator", "get_records"])
def test_debug_output_is_off_until_it_is_turned_on(
    method: str, producer: callbacks.Producer, consumer: callbacks.Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "put_record": (None,),
        "put_records": (None,),
        "get_shards": (),
        "get_shard_iterator": ("", "LATEST", None),
        "get_records": ({},),
    }
    face: Any = producer if method.startswith("put") else consumer
    if method == "get_shards":
        face = callbacks.Consumer("", *GOOD[1:])

    def logged() -> str:
        heard = Heard()
        getattr(face, method)(*arguments[method], heard)
        heard.wait()
        return caplog.text

    assert logged() == ""
    face.set_debug(True)
    text = logged()
    assert method in text
    assert "LIBRARY_ERROR" in text
    face.set_debug(False)
    caplog.clear()
    assert logged() == ""


def test_set_debug_returns_nothing(producer: callbacks.Producer) -> None:
    assert producer.set_debug(True) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("place", [0, 3])
def test_secret_in_the_place_of_another_argument_is_not_shown(place: int) -> None:
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    arguments = ["us-east-1", "AKIDEXAMPLE", "secret", "events"]
    arguments[place] = secret
    heard: list[Any] = []
    with callbacks.Producer(*arguments) as producer:
        assert secret not in repr(producer)
        producer.put_record(Record(b"1", "key"), lambda error, _: heard.append(error))
    [error] = heard
    assert error.type is ErrorType.LIBRARY_ERROR
    assert secret not in error.details + repr(error)
    assert "40 characters" in error.details

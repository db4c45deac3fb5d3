"""Interceptions in process: the next call of an operation fails, waits, loses its connection or gets another response."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.client import IncompleteRead
from typing import Any

import botocore.config
import botocore.exceptions
import cbor2
import pytest
from tests.contract.clients.http2 import Ended, Http2
from tests.contract.servers.reach import Endpoint, Raw

from kinstream import Client, Credentials
from kinstream.errors import ClosedError, ConfigError, UsageError
from kinstream.local import Server

SHARD = "shardId-000000000000"
CBOR = "application/x-amz-cbor-1.1"
SECRET = "a-secret-that-shows"


@pytest.fixture(scope="module")
def controlled() -> Iterator[Server]:
    with Server(transition=0, quotas=False, secret_access_key=SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def client(controlled: Server) -> Any:
    """A boto3 client that does not retry."""
    return Endpoint("controlled", controlled.url, secret_access_key=SECRET).boto3()


@pytest.fixture
def kinesis(controlled: Server, client: Any) -> Iterator[Any]:
    """The client. Each test has its own stream, "events", and leaves no interception."""
    client.create_stream(StreamName="events", ShardCount=2)
    client.describe_stream_summary(StreamName="events")
    yield client
    controlled.cancel_interceptions()
    client.delete_stream(StreamName="events")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_stream_summary(StreamName="events")


@pytest.fixture
def raw(controlled: Server, kinesis: Any) -> Raw:
    return Raw(Endpoint("controlled", controlled.url, secret_access_key=SECRET))


def put(kinesis: Any, *datas: bytes) -> Any:
    return kinesis.put_records(StreamName="events", Records=[{"Data": d, "PartitionKey": "k"} for d in datas])


def iterator(kinesis: Any, shard: str = SHARD) -> str:
    place = kinesis.get_shard_iterator(StreamName="events", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    return str(place["ShardIterator"])


def written(kinesis: Any) -> list[bytes]:
    """Return the records of the stream."""
    shards = [shard["ShardId"] for shard in kinesis.list_shards(StreamName="events")["Shards"]]
    places = [iterator(kinesis, shard) for shard in shards]
    return [r["Data"] for place in places for r in kinesis.get_records(ShardIterator=place)["Records"]]


def refusal(call: Any, *arguments: Any, **members: Any) -> tuple[int, str, str]:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(*arguments, **members)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_next_call_fails_once_and_is_not_applied(controlled: Server, kinesis: Any) -> None:
    interception = controlled.next("PutRecords").fail("ProvisionedThroughputExceededException", "Slowly.")
    assert refusal(put, kinesis, b"a") == (400, "ProvisionedThroughputExceededException", "Slowly.")
    put(kinesis, b"b")
    assert (written(kinesis), interception.count, interception.left) == ([b"b"], 1, 0)


def test_other_calls_are_not_intercepted(controlled: Server, kinesis: Any) -> None:
    interception = controlled.next("PutRecords").fail("InternalFailure")
    kinesis.put_record(StreamName="events", Data=b"a", PartitionKey="k")
    assert (written(kinesis), interception.count) == ([b"a"], 0)


def test_call_that_fails_after_being_applied_has_written(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").after_applying.fail("InternalFailure")
    assert refusal(put, kinesis, b"a")[:2] == (500, "InternalFailure")
    assert written(kinesis) == [b"a"]


@pytest.mark.parametrize(
    ("code", "status"), [("InternalFailure", 500), ("ServiceUnavailable", 503), ("LimitExceededException", 400)]
)
def test_status_of_an_error_follows_from_its_code(controlled: Server, kinesis: Any, code: str, status: int) -> None:
    controlled.next("PutRecords").fail(code)
    assert refusal(put, kinesis, b"a")[:2] == (status, code)
    controlled.next("PutRecords").fail(code, status=418)
    assert refusal(put, kinesis, b"a")[:2] == (418, code)


def test_given_number_of_calls_fails(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords", 3).fail("InternalFailure")
    for _ in range(3):
        assert refusal(put, kinesis, b"a")[0] == 500
    put(kinesis, b"b")


def test_every_call_fails_until_the_interception_is_cancelled(controlled: Server, kinesis: Any) -> None:
    with controlled.every("PutRecords").fail("InternalFailure") as interception:
        for _ in range(5):
            assert refusal(put, kinesis, b"a")[0] == 500
        assert (interception.count, interception.left) == (5, None)
    put(kinesis, b"b")
    assert interception.left == 0


def test_oldest_matching_interception_applies(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").fail("FirstException")
    controlled.every("PutRecords").fail("SecondException")
    controlled.next("PutRecords").fail("ThirdException")
    assert [refusal(put, kinesis, b"a")[1] for _ in range(3)] == [
        "FirstException",
        "SecondException",
        "SecondException",
    ]


def test_entries_fail_and_the_others_are_written(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").fail_entries([0, 2, 99], "ProvisionedThroughputExceededException", "Slowly.")
    answer = put(kinesis, b"a", b"b", b"c", b"d")
    failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Slowly."}
    assert answer["FailedRecordCount"] == 2
    assert [answer["Records"][0], answer["Records"][2]] == [failed, failed]
    assert all(answer["Records"][place]["SequenceNumber"] for place in (1, 3))
    assert written(kinesis) == [b"b", b"d"]


def test_entries_that_fail_after_being_applied_are_written(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").after_applying.fail_entries([1], "InternalFailure")
    answer = put(kinesis, b"a", b"b")
    assert [r.get("ErrorCode") for r in answer["Records"]] == [None, "InternalFailure"]
    assert written(kinesis) == [b"a", b"b"]


def test_all_entries_may_fail(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").fail_entries(range(10))
    assert put(kinesis, b"a", b"b")["FailedRecordCount"] == 2
    assert written(kinesis) == []


def test_failing_entries_are_selected_by_a_function(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").fail_entries(lambda entry: entry["Data"] == b"b")
    assert put(kinesis, b"a", b"b", b"c")["FailedRecordCount"] == 1
    assert written(kinesis) == [b"a", b"c"]


def test_only_put_records_has_entries(controlled: Server) -> None:
    for operation in ("PutRecord", None):
        with pytest.raises(ConfigError, match="PutRecords"):
            controlled.next(operation).fail_entries([0])


@pytest.mark.parametrize("after", [False, True])
def test_delayed_call_is_applied_later(controlled: Server, kinesis: Any, after: bool) -> None:
    interceptor = controlled.next("PutRecords")
    (interceptor.after_applying if after else interceptor).delay(0.3)
    start = time.monotonic()
    put(kinesis, b"a")
    assert time.monotonic() - start >= 0.3
    assert written(kinesis) == [b"a"]


@pytest.mark.parametrize("after", [False, True])
def test_held_call_continues_when_it_is_released(controlled: Server, kinesis: Any, after: bool) -> None:
    interceptor = controlled.next("PutRecords")
    held = (interceptor.after_applying if after else interceptor).hold()
    putting = threading.Thread(target=put, args=(kinesis, b"a"))
    putting.start()
    call = held.wait()
    assert call.parameters["Records"] == [{"Data": b"a", "PartitionKey": "k"}]
    deadline = time.monotonic() + 5
    while written(kinesis) != ([b"a"] if after else []):
        assert time.monotonic() < deadline  # it has been intercepted, and is applied a moment later
    assert putting.is_alive()
    held.release()
    putting.join(timeout=10)
    assert written(kinesis) == [b"a"]


def test_call_that_was_released_before_it_arrived_is_not_held(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").hold().release()
    put(kinesis, b"a")


def test_cancelling_an_interception_resumes_the_calls_that_it_holds(controlled: Server, kinesis: Any) -> None:
    with controlled.every("PutRecords").hold() as held:
        putting = threading.Thread(target=put, args=(kinesis, b"a"))
        putting.start()
        held.wait()
    putting.join(timeout=10)
    assert written(kinesis) == [b"a"]


def test_connection_is_dropped_before_the_call_is_applied(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").drop_connection()
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        put(kinesis, b"a")
    assert written(kinesis) == []


def test_connection_is_dropped_after_the_call_was_applied(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").after_applying.drop_connection()
    with pytest.raises(botocore.exceptions.ConnectionClosedError):
        put(kinesis, b"a")
    assert written(kinesis) == [b"a"]


def test_connection_is_reset(controlled: Server, raw: Raw) -> None:
    controlled.next("ListStreams").drop_connection(reset=True)
    with pytest.raises(ConnectionResetError):
        raw.send(raw.sign("ListStreams", b"{}"), b"{}")


@pytest.mark.parametrize("size", [1, 7, 50])
def test_connection_is_dropped_within_a_response(controlled: Server, raw: Raw, size: int) -> None:
    controlled.next("ListStreams").after_applying.drop_connection(after_bytes=size)
    connection = raw.connection()
    connection.request("POST", "/", b"{}", raw.sign("ListStreams", b"{}"))
    answer = connection.getresponse()
    assert (answer.status, int(answer.headers["Content-Length"])) > (200, size)
    received = b""
    while part := answer.read1():
        received += part
    connection.close()
    assert received == b'{"StreamNames":["events"],"HasMoreStreams":false,"S'[:size]


def test_connection_is_dropped_within_a_response_over_http_2(controlled: Server, raw: Raw) -> None:
    controlled.next("ListStreams").after_applying.drop_connection(after_bytes=10)
    with Http2(controlled.url) as client:
        stream = client.start(raw.sign("ListStreams", b"{}"))
        with pytest.raises(Ended):  # noqa: PT012
            client.send(stream, b"{}")
            client.finish(stream)
        assert b"".join(event.data for event in client.events if hasattr(event, "data")) == b'{"StreamNa'


def test_drop_within_a_response_needs_a_response(controlled: Server) -> None:
    with pytest.raises(ConfigError, match="after_applying"):
        controlled.next().drop_connection(after_bytes=5)
    with pytest.raises(ConfigError, match="reset"):
        controlled.next().after_applying.drop_connection(after_bytes=5, reset=True)


def test_call_gets_a_response_of_the_test(controlled: Server, raw: Raw) -> None:
    controlled.next("ListStreams").respond(
        502, b"<html>", {"Content-Type": "text/html", "x-amzn-RequestId": "", "Via": "x"}
    )
    status, headers, body = raw.send(raw.sign("ListStreams", b"{}"), b"{}")
    assert (status, headers["Content-Type"], headers["Via"], body) == (502, "text/html", "x", b"<html>")
    assert "x-amzn-RequestId" not in headers


def test_response_can_have_a_wrong_length(controlled: Server, raw: Raw) -> None:
    controlled.next("ListStreams").respond(body=b"short", headers={"Content-Length": "99"})
    with pytest.raises(IncompleteRead):
        raw.send(raw.sign("ListStreams", b"{}"), b"{}")


def test_members_of_a_response_are_encoded_in_the_format_of_the_request(controlled: Server, raw: Raw) -> None:
    controlled.next("ListStreams", 2).respond(body={"StreamNames": ["x"], "Data": b"\xff"})
    assert raw.json("ListStreams", {}) == {"StreamNames": ["x"], "Data": "/w=="}
    body = cbor2.dumps({})
    _, _, answer = raw.send(raw.sign("ListStreams", body, content_type=CBOR), body)
    assert cbor2.loads(answer) == {"StreamNames": ["x"], "Data": b"\xff"}


def test_response_that_cannot_be_encoded_is_refused_immediately(controlled: Server) -> None:
    with pytest.raises(ConfigError, match="body"):
        controlled.next("ListStreams").respond(body={"StreamNames": object()})
    with pytest.raises(ConfigError, match="changes"):
        controlled.next("ListStreams").change(5)  # type: ignore[arg-type]


def test_call_with_a_response_of_the_test_can_be_applied_before(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").after_applying.respond(503, b"")
    with pytest.raises(botocore.exceptions.ClientError):
        put(kinesis, b"a")
    assert written(kinesis) == [b"a"]


def test_parameters_are_changed_before_the_call_is_applied(controlled: Server, kinesis: Any) -> None:
    put(kinesis, b"a", b"b", b"c")
    controlled.next("GetRecords").change({"Limit": 2})
    assert len(kinesis.get_records(ShardIterator=_place(kinesis))["Records"]) == 2
    controlled.next("PutRecords").change(lambda given: {**given, "Records": given["Records"][:1]})
    assert len(put(kinesis, b"d", b"e")["Records"]) == 1
    controlled.next("PutRecords").change({"Records": "none"})
    assert refusal(put, kinesis, b"a")[1] == "SerializationException"


def test_response_is_changed_after_the_call_was_applied(controlled: Server, kinesis: Any) -> None:
    place = _place(kinesis)
    controlled.next("GetRecords").after_applying.change({"MillisBehindLatest": 77, "NextShardIterator": None})
    answer = kinesis.get_records(ShardIterator=place)
    assert (answer["MillisBehindLatest"], "NextShardIterator" in answer) == (77, False)
    controlled.next("GetRecords").after_applying.change(lambda answer: {**answer, "Records": answer["Records"] * 3})
    assert [r["Data"] for r in kinesis.get_records(ShardIterator=place)["Records"]] == [b""] * 3


def _place(kinesis: Any) -> str:
    """Return an iterator at the beginning of the shard of the key "k"."""
    shard = kinesis.put_record(StreamName="events", Data=b"", PartitionKey="k")["ShardId"]
    return iterator(kinesis, shard)


def test_calls_are_selected_by_stream_and_shard(controlled: Server, kinesis: Any) -> None:
    kinesis.create_stream(StreamName="others", ShardCount=2)
    interception = controlled.every("GetRecords", stream="events", shard="shardId-000000000001").watch()
    by_stream = controlled.every(stream="others").watch()
    for stream in ("events", "others"):
        for shard in ("shardId-000000000000", "shardId-000000000001"):
            place = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="LATEST")
            kinesis.get_records(ShardIterator=place["ShardIterator"])
    arn = kinesis.describe_stream_summary(StreamName="others")["StreamDescriptionSummary"]["StreamARN"]
    kinesis.list_shards(StreamARN=arn)
    kinesis.list_streams()
    assert [(call.stream, call.shard) for call in interception.calls] == [("events", "shardId-000000000001")]
    assert [call.operation for call in by_stream.calls] == [
        *["GetShardIterator", "GetRecords"] * 2,
        "DescribeStreamSummary",
        "ListShards",
    ]
    kinesis.delete_stream(StreamName="others")


def test_calls_are_selected_by_a_function(controlled: Server, kinesis: Any) -> None:
    interception = controlled.next("PutRecord", when=lambda given: given["Data"] == b"this").fail("InternalFailure")
    kinesis.put_record(StreamName="events", Data=b"that", PartitionKey="k")
    assert refusal(kinesis.put_record, StreamName="events", Data=b"this", PartitionKey="k")[0] == 500
    assert interception.count == 1


def test_failing_condition_intercepts_nothing_and_is_logged(
    controlled: Server, kinesis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    controlled.next("PutRecord", when=lambda given: given["Nothing"]).fail("InternalFailure")
    with caplog.at_level(logging.ERROR):
        kinesis.put_record(StreamName="events", Data=b"a", PartitionKey="k")
    assert "`when` function of an interception failed" in caplog.text


def test_intercepted_calls_can_be_inspected_and_contain_no_secret(controlled: Server, kinesis: Any) -> None:
    interception = controlled.every().watch()
    put(kinesis, b"a")
    kinesis.list_streams(Limit=5)
    calls = interception.calls
    assert [call.operation for call in calls] == ["PutRecords", "ListStreams"]
    assert (calls[0].stream, calls[0].region) == ("events", "us-east-1")
    assert calls[1].parameters == {"Limit": 5}
    for told in (repr(calls), repr(interception), repr(controlled)):
        assert SECRET not in told
        assert "Signature" not in told


def test_request_that_is_rejected_is_not_intercepted(controlled: Server, kinesis: Any) -> None:
    interception = controlled.every().watch()
    stranger = Endpoint("stranger", controlled.url).boto3()
    assert refusal(stranger.list_streams)[1] == "InvalidSignatureException"
    assert interception.count == 0


def test_each_retry_is_another_call(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords").fail("InternalFailure")
    later = controlled.every("PutRecords").watch()
    retries = botocore.config.Config(retries={"total_max_attempts": 2})
    put(Endpoint("retries", controlled.url, secret_access_key=SECRET).boto3(config=retries), b"a")
    assert (later.count, written(kinesis)) == (1, [b"a"])


def test_calls_without_an_interception_are_handled_as_usual(controlled: Server, kinesis: Any) -> None:
    controlled.next("PutRecords")
    later = controlled.next("PutRecords").watch()
    put(kinesis, b"a")
    assert later.count == 1


def test_wait_times_out_without_a_call(controlled: Server, kinesis: Any) -> None:
    interception = controlled.next("PutRecords").watch()
    with pytest.raises(TimeoutError, match="0 of 1 calls of PutRecords"):
        interception.wait(timeout=0.05)
    interception.cancel()
    with pytest.raises(ClosedError):
        interception.wait()


def test_wait_for_more_calls_than_are_intercepted_ends(controlled: Server, kinesis: Any) -> None:
    interception = controlled.next("PutRecords").watch()
    waiting: list[Any] = []

    def wait() -> None:
        try:
            interception.wait(2)
        except ClosedError as error:
            waiting.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    put(kinesis, b"a")
    thread.join(timeout=10)
    assert len(waiting) == 1


async def test_asyncio_tasks_can_wait_for_calls(controlled: Server, kinesis: Any) -> None:
    held = controlled.next("ListShards").hold()
    async with Client(
        region="us-east-1", credentials=Credentials("local", SECRET), endpoint_url=controlled.url
    ) as client:
        asking = asyncio.create_task(client.call("ListShards", {"StreamName": "events"}))
        call = await held.wait_async()
        assert call.parameters == {"StreamName": "events"}
        assert not asking.done()
        held.release()
        assert len((await asking)["Shards"]) == 2


def test_unknown_operation_is_refused_immediately(controlled: Server) -> None:
    with pytest.raises(ConfigError, match="PutRecordz"):
        controlled.next("PutRecordz")
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ConfigError, match="times"):
            controlled.next("PutRecords", wrong)  # type: ignore[arg-type]


def test_stopped_server_refuses_interceptions() -> None:
    server = Server()
    with pytest.raises(UsageError, match="not running"):
        server.next("PutRecords")
    with server:
        server.next("PutRecords").fail("InternalFailure")
        held = server.next("ListStreams").hold()
    with pytest.raises(ClosedError):
        held.wait()
    with pytest.raises(UsageError, match="not running"):
        server.every()
    with server:
        client = Endpoint("again", server.url).boto3()
        assert refusal(put, client, b"a")[1] == "ResourceNotFoundException"  # the interception went with the server


def test_stopping_resumes_the_held_calls() -> None:
    server = Server(transition=0).start()
    client = Endpoint("stopping", server.url).boto3()
    client.create_stream(StreamName="events", ShardCount=1)
    held = server.next("ListStreams").hold()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.list_streams()))
    asking.start()
    held.wait()
    server.stop()
    asking.join(timeout=10)
    assert answers[0]["StreamNames"] == ["events"]


def test_many_threads_set_interceptions_during_calls(controlled: Server, kinesis: Any) -> None:
    ends = threading.Event()

    def set_interceptions() -> None:
        while not ends.is_set():
            with controlled.next("ListStreams").watch(), controlled.every("ListShards").watch():
                pass

    threads = [threading.Thread(target=set_interceptions) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        assert kinesis.list_streams()["StreamNames"] == ["events"]
    ends.set()
    for thread in threads:
        thread.join()


def test_advancing_the_clock_keeps_signatures_valid(controlled: Server, kinesis: Any) -> None:
    old = iterator(kinesis)
    before = put(kinesis, b"a")
    controlled.advance(301)
    status, code, _ = refusal(kinesis.get_records, ShardIterator=old)
    assert (status, code) == (400, "ExpiredIteratorException")
    assert before["FailedRecordCount"] == 0
    assert written(kinesis) == [b"a"]
    controlled.advance(86_400)
    assert written(kinesis) == []
    with pytest.raises(ConfigError, match="seconds"):
        controlled.advance(-1)


def test_response_to_an_intercepted_call_is_json(controlled: Server, raw: Raw) -> None:
    controlled.next("ListShards").watch()
    body = json.dumps({"StreamName": "events"}).encode()
    status, headers, answer = raw.send(raw.sign("ListShards", body), body)
    assert (status, headers["Content-Type"]) == (200, "application/x-amz-json-1.1")
    assert len(json.loads(answer)["Shards"]) == 2

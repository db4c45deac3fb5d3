"""Error answers as AWS's specifications and servers give them, and the codes that botocore knows."""

import json

import botocore.retries.standard as botocore_standard
import botocore.session
import cbor2
import pytest
from tests.doubles.transport import ScriptedTransport

from kinstream.aws.client import Client
from kinstream.aws.transport import Response
from kinstream.config import RetryPolicy
from kinstream.credentials import Credentials
from kinstream.errors import (
    CONFLICT_CODES,
    THROTTLE_CODES,
    TRANSIENT_CODES,
    ExpiredIterator,
    InvalidArgument,
    NotFound,
    ServiceError,
    Throttled,
    service_error,
)

MODEL = botocore.session.Session().get_component("data_loader").load_service_model("kinesis", "service-2")
TABLES = botocore.session.Session().get_component("data_loader").load_service_model("dynamodb", "service-2")
ERROR_CODES = sorted(name for name, shape in MODEL["shapes"].items() if shape.get("exception"))

# Smithy, "AWS JSON 1.1 protocol", "Operation error serialization": each of these names FooError.
FOO_ERROR = [
    "FooError",
    "FooError:http://internal.amazon.com/coral/com.amazon.coral.validate/",
    "aws.protocoltests.restjson#FooError",
    "aws.protocoltests.restjson#FooError:http://internal.amazon.com/coral/com.amazon.coral.validate/",
]


async def refused(status: int, headers: dict[str, str], body: bytes) -> ServiceError:
    transport = ScriptedTransport(Response(status, headers, body))
    client = Client(
        region="us-east-1",
        credentials=Credentials("A", "S"),
        endpoint_url="http://127.0.0.1:1",
        transport=transport,
        retry=RetryPolicy(max_attempts=1),
    )
    with pytest.raises(ServiceError) as caught:
        await client.call("DescribeLimits", {})
    return caught.value


@pytest.mark.parametrize("name", FOO_ERROR)
@pytest.mark.parametrize("member", ["__type", "code"])
async def test_code_is_found_in_the_body(name: str, member: str) -> None:
    assert (await refused(400, {}, json.dumps({member: name}).encode())).code == "FooError"


@pytest.mark.parametrize("name", FOO_ERROR)
@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_code_is_found_in_the_header(name: str, body: bytes) -> None:
    assert (await refused(400, {"x-amzn-errortype": name}, body)).code == "FooError"


@pytest.mark.parametrize("member", ["message", "Message"])
async def test_message_is_found_in_either_case(member: str) -> None:
    error = await refused(400, {}, json.dumps({"__type": "FooError", member: "what happened"}).encode())
    assert error.message == "what happened"
    assert error.details == "DescribeLimits: FooError: what happened"


async def test_error_in_cbor_is_read_by_its_content_type() -> None:
    body = cbor2.dumps({"__type": "ResourceNotFoundException", "message": "Stream a under account 1 not found."})
    error = await refused(400, {"content-type": "application/x-amz-cbor-1.1"}, body)
    assert type(error) is NotFound
    assert error.message == "Stream a under account 1 not found."


# The body and the headers of an ExpiredIteratorException as kinesalite answers it, after the service's own form
# (github.com/mhart/kinesalite, test/getRecords.js).
async def test_expired_iterator_of_kinesalite_is_typed() -> None:
    body = (
        b'{"__type":"ExpiredIteratorException","message":"Iterator expired. The iterator was created at time Wed Feb 18 '
        b"05:40:31 UTC 2015 while right now it is Wed Feb 18 05:45:32 UTC 2015 which is further in the future than the "
        b'tolerated delay of 300000 milliseconds."}'
    )
    headers = {"content-type": "application/x-amz-json-1.1", "x-amzn-requestid": "e1e7d2c5-1f5b-11e5"}
    error = await refused(400, headers, body)
    assert type(error) is ExpiredIterator
    assert error.request_id == "e1e7d2c5-1f5b-11e5"
    assert error.http_status == 400
    assert isinstance(error.http_response, dict)


@pytest.mark.parametrize("code", ERROR_CODES)
def test_every_code_of_the_model_has_a_class_of_its_own_or_is_no_fault(code: str) -> None:
    error = service_error("PutRecord", 400, code, "")
    assert error.code == code
    assert not error.maybe_written
    if "Throttling" in code or "ThroughputExceeded" in code:
        assert type(error) is Throttled


def test_throttle_codes_are_botocores() -> None:
    assert set(botocore_standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES) <= THROTTLE_CODES


def test_transient_codes_are_botocores() -> None:
    theirs = set(botocore_standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES)
    assert theirs <= TRANSIENT_CODES | THROTTLE_CODES


@pytest.mark.parametrize("code", sorted(TRANSIENT_CODES))
def test_timeout_of_the_service_is_unknown_and_repeated(code: str) -> None:
    error = service_error("PutRecord", 400, code, "")
    assert error.retry_safe is None
    assert error.maybe_written


@pytest.mark.parametrize("code", ["InvalidArgumentException", "ValidationException", "SerializationException"])
def test_refused_arguments_are_one_class(code: str) -> None:
    assert type(service_error("PutRecord", 400, code, "")) is InvalidArgument


TABLE_OPERATIONS = (
    "GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "CreateTable", "DescribeTable", "DeleteTable",
)  # fmt: skip


@pytest.mark.parametrize("operation", TABLE_OPERATIONS)
def test_every_error_of_the_dynamodb_operations_is_typed(operation: str) -> None:
    for error in TABLES["operations"][operation]["errors"]:
        code = error["shape"]
        if code == "ConditionalCheckFailedException":
            continue  # a result
        status = 500 if code == "InternalServerError" else 400
        found = service_error(operation, status, code, "")
        assert type(found) is not ServiceError, code


def test_conflicts_are_the_errors_that_the_dynamodb_model_marks_as_retryable() -> None:
    assert {name for name, shape in TABLES["shapes"].items() if "retryable" in shape} == CONFLICT_CODES

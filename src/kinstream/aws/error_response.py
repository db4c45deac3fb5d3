"""Errors built from responses: a refusal of the request, or a response that is not one of the service."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from kinstream.aws.codec import CborCodec, Codec, JsonCodec
from kinstream.aws.request import Malformed
from kinstream.aws.service import Service
from kinstream.errors import ServiceError, UnexpectedResponse, service_error

if TYPE_CHECKING:
    from kinstream.aws.transport import Response

TEXT_MAX_BYTES = 2048
"""Maximum bytes kept in an error of a response that is neither JSON nor CBOR."""

_TOO_LARGE = re.compile(
    r"Value (?:'java\.nio\.HeapByteBuffer\[pos=\d+ lim=(?P<size>\d+) cap=\d+\]' )?"
    r"at '(?:records\.(?P<number>\d+)\.member\.)?data' failed to satisfy constraint: "
    r"Member must have length less than or equal to (?P<limit>\d+)"
)
"""The service's message about data that is too large. It quotes a Java object and counts records from 1."""


def refusal(operation: str, response: Response, service: Service, title: str) -> ServiceError:
    """Return the error for a response with another status than 200.

    Args:
        operation: Operation of the request.
        response: The response.
        service: The service.
        title: The operation in the error's text.
    """
    body = readable_body(response)
    code = message = ""
    if isinstance(body, dict):
        code = _first_text(body, "__type", "code")
        message = _first_text(body, "message", "Message")
    # "com.amazonaws.kinesis#Code" in bodies, "Code:http://..." in headers (Smithy, "Operation error serialization").
    code = (code or response.headers.get("x-amzn-errortype") or "").split(":")[0].rpartition("#")[2]
    if 300 <= response.status < 400:
        message = "the response is a redirect, which is not followed: check the endpoint"
    elif not code and (isinstance(body, str) or (not response.body and response.status < 500)):
        message = f"the response is not from {service.title}: check the endpoint and the proxy"
        if response.status == 400 and isinstance(body, str) and "https" in body.lower():
            message = "the port seems to expect TLS: use https://"  # nginx and Go reply like this to plain HTTP
    elif too_large := _TOO_LARGE.search(message):
        message = _too_large(too_large)
    return service_error(
        operation,
        response.status,
        code,
        message,
        request_id=response.headers.get("x-amzn-requestid"),
        http_response=body,
        title=title,
        advice=service.advice,
    )


def unexpected(title: str, response: Response, problem: str) -> UnexpectedResponse:
    """Return the error for a response with a result that is not one of the service.

    Args:
        title: Operation of the request.
        response: The response.
        problem: Difference from a response of the service, without a quotation of the response.
    """
    return UnexpectedResponse(f"{title}: {problem}", http_status=response.status, http_response=readable_body(response))


def readable_body(response: Response) -> dict[str, Any] | str:
    """Return the parsed body, or its first 2 KiB as text if it is neither JSON nor CBOR."""
    kind = response.headers.get("content-type") or ""
    codec: Codec = CborCodec() if "cbor" in kind else JsonCodec()
    try:
        body = codec.decode(response.body)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else response.body[:TEXT_MAX_BYTES].decode("utf-8", "replace")


def mismatch(error: Exception) -> str:
    """Return the difference between a response and its expected shape, without a quotation of the response.

    Args:
        error: Error of the parser.
    """
    message = str(error)
    return message if isinstance(error, (msgspec.ValidationError, Malformed)) else "its body cannot be decoded"


def check_checksum(response: Response) -> None:
    """Check a body by the `x-amz-crc32` header of DynamoDB, if the response has one.

    Raises:
        Malformed: The checksum does not match.
    """
    header = response.headers.get("x-amz-crc32")
    if header is not None and header != str(zlib.crc32(response.body)):
        raise Malformed("its checksum (x-amz-crc32) does not match its body")


def retry_after(response: Response) -> float | None:
    """Return the seconds in the `x-amz-retry-after` header. None if it is missing or not valid."""
    header = response.headers.get("x-amz-retry-after")
    return int(header) / 1000 if header is not None and header.isdecimal() and len(header) < 10 else None


def _too_large(found: re.Match[str]) -> str:
    """Return the error text for a record that is larger than the stream accepts."""
    record = f"records[{int(found['number']) - 1}]" if found["number"] else "the record"
    size = f": {found['size']} bytes of data" if found["size"] else ""
    return (
        f"{record} is too large{size}. The stream accepts at most {found['limit']} bytes of data and partition key (its"
        " MaxRecordSizeInKiB). Split the record, or raise the limit with UpdateMaxRecordSize"
    )


def _first_text(body: dict[str, Any], *names: str) -> str:
    return next((value for name in names if isinstance(value := body.get(name), str) and value), "")

"""Signatures: accepted requests, and the errors for others."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

Refused = Callable[..., None]
BODY = b"{}"
MISMATCH = "The request signature we calculated does not match the signature you provided."


def test_wrong_access_key_is_unrecognized(endpoint: Any, refused: Refused) -> None:
    stranger = endpoint.boto3(aws_access_key_id="nobody")
    text = "The security token included in the request is invalid."
    refused("UnrecognizedClientException", text, stranger.list_streams)


def test_wrong_secret_is_an_invalid_signature(endpoint: Any, refused: Refused) -> None:
    refused("InvalidSignatureException", MISMATCH, endpoint.boto3(aws_secret_access_key="wrong").list_streams)


def test_any_region_is_accepted(endpoint: Any) -> None:
    for region in ("eu-central-1", "mars-north-1"):
        endpoint.boto3(region_name=region).list_streams()


def test_session_token_is_signed_and_otherwise_ignored(endpoint: Any, raw: Any) -> None:
    endpoint.boto3(aws_session_token="anything").list_streams()
    headers = raw.sign("ListStreams", BODY, extra={"X-Amz-Security-Token": "one"})
    headers["X-Amz-Security-Token"] = "another"
    assert raw.refusal(headers, BODY)[1] == "InvalidSignatureException"


def test_unsigned_request_is_refused(raw: Any) -> None:
    headers = raw.sign("ListStreams", BODY)
    del headers["Authorization"]
    assert raw.refusal(headers, BODY) == (400, "MissingAuthenticationTokenException", "Missing Authentication Token")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda a: a.replace("Signature=", "Signature=0"), "InvalidSignatureException"),
        (lambda a: a[:-64] + "ü" * 64, "InvalidSignatureException"),
        (lambda a: a.replace(";x-amz-date", ""), "InvalidSignatureException"),
        (lambda a: a.replace("host;", ""), "InvalidSignatureException"),
        (lambda a: a.replace("SignedHeaders=", "SignedHeaders=x-none;"), "InvalidSignatureException"),
        (lambda a: a.replace("/kinesis/", "/dynamodb/"), "InvalidSignatureException"),
        (lambda a: a.replace("/us-east-1/", "/us-east-2/"), "InvalidSignatureException"),
        (lambda a: a.replace("aws4_request", "aws5_request"), "InvalidSignatureException"),
        (lambda a: a.replace("/kinesis/aws4_request", ""), "IncompleteSignatureException"),
        (lambda a: a.replace("Signature=", "Signed="), "IncompleteSignatureException"),
        (lambda a: a.replace("Credential=", "C="), "IncompleteSignatureException"),
        (lambda a: a.replace("SignedHeaders=", "S="), "IncompleteSignatureException"),
        (lambda a: a.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "IncompleteSignatureException"),
        (lambda a: "Basic bG9jYWw6bG9jYWw=", "IncompleteSignatureException"),
        (lambda a: "AWS4-HMAC-SHA256", "IncompleteSignatureException"),
        (lambda a: "AWS4-HMAC-SHA256 " + "=," * 1000, "IncompleteSignatureException"),
    ],
)
def test_changed_authorization_is_refused(raw: Any, change: Callable[[str], str], code: str) -> None:
    headers = raw.sign("ListStreams", BODY)
    headers["Authorization"] = change(headers["Authorization"])
    assert raw.refusal(headers, BODY)[:2] == (400, code)


def test_authorization_without_a_date_is_incomplete(raw: Any) -> None:
    headers = raw.sign("ListStreams", BODY)
    del headers["X-Amz-Date"]
    status, code, text = raw.refusal(headers, BODY)
    assert (status, code) == (400, "IncompleteSignatureException")
    assert "'X-Amz-Date'" in text


@pytest.mark.parametrize("date", ["today", "20260101T000000", "99999999T999999Z", "20260230T000000Z"])
def test_invalid_date_is_refused(raw: Any, date: str) -> None:
    headers = raw.sign("ListStreams", BODY)
    headers["X-Amz-Date"] = date
    headers["Authorization"] = headers["Authorization"].replace(
        "local/" + time.strftime("%Y%m%d", time.gmtime()), "local/" + date[:8]
    )
    assert raw.refusal(headers, BODY)[1] in ("InvalidSignatureException", "IncompleteSignatureException")


def test_changed_body_is_refused(raw: Any) -> None:
    assert raw.refusal(raw.sign("ListStreams", BODY), b'{"Limit": 1}')[1] == "InvalidSignatureException"


def test_changed_operation_is_refused(raw: Any) -> None:
    headers = raw.sign("ListStreams", BODY)
    headers["X-Amz-Target"] = "Kinesis_20131202.DeleteStream"
    assert raw.refusal(headers, BODY)[1] == "InvalidSignatureException"


def test_changed_path_or_query_is_refused(raw: Any) -> None:
    for path in ("/other", "/?a=b", "/../x", "/%"):
        assert raw.refusal(raw.sign("ListStreams", BODY), BODY, path=path)[1] == "InvalidSignatureException", path


def test_given_body_hash_must_match_the_body(raw: Any) -> None:
    header = "X-Amz-Content-Sha256"
    good = raw.sign("ListStreams", BODY, extra={header: sha256(BODY).hexdigest()})
    assert raw.send(good, BODY)[0] == 200
    for false in ("UNSIGNED-PAYLOAD", sha256(b"other").hexdigest(), ""):
        headers = raw.sign("ListStreams", BODY, extra={header: false})
        assert raw.refusal(headers, BODY)[1] == "InvalidSignatureException"


def test_request_of_five_minutes_ago_is_expired(raw: Any, clock: Any) -> None:
    assert raw.send(raw.sign("ListStreams", BODY, now=clock.wall() - 290), BODY)[0] == 200
    status, code, text = raw.refusal(raw.sign("ListStreams", BODY, now=clock.wall() - 310), BODY)
    assert (status, code) == (400, "InvalidSignatureException")
    assert text.startswith("Signature expired: ")
    assert text.endswith(" - 5 min.)")


def test_request_from_the_future_is_not_yet_current(raw: Any, clock: Any) -> None:
    assert raw.send(raw.sign("ListStreams", BODY, now=clock.wall() + 290), BODY)[0] == 200
    status, code, text = raw.refusal(raw.sign("ListStreams", BODY, now=clock.wall() + 310), BODY)
    assert (status, code) == (400, "InvalidSignatureException")
    assert text.startswith("Signature not yet current: ")


def test_spaces_in_signed_headers_are_as_in_the_specification(raw: Any) -> None:
    headers = raw.sign("ListStreams", BODY, extra={"X-Amz-Meta": "a b"})
    headers["X-Amz-Meta"] = "  a    b  "
    assert raw.send(headers, BODY)[0] == 200


def test_wrongly_signed_request_reveals_no_stream(raw: Any) -> None:
    body = b'{"StreamName": "nowhere"}'
    headers = raw.sign("DescribeStream", body, secret_access_key="wrong")
    assert raw.refusal(headers, body)[1] == "InvalidSignatureException"

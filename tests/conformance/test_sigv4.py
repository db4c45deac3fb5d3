"""AWS's published SigV4 vectors."""

import json
from pathlib import Path
from typing import Any

import pytest

from kinstream.aws.sign import Signer
from kinstream.credentials import Credentials

SUITE: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "sigv4.json").read_text())


@pytest.mark.parametrize("case", SUITE["cases"], ids=lambda case: case["name"])
def test_signature_is_the_published_one(case: dict[str, Any]) -> None:
    credentials = Credentials(SUITE["access_key_id"], SUITE["secret_access_key"], case["token"])
    signer = Signer(SUITE["region"], SUITE["service"])
    headers = [(name, value) for name, value in case["headers"]]

    authorization = signer.authorization(credentials, SUITE["stamp"], case["method"], headers, case["body"].encode())

    assert authorization == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={case['signed_headers']}, Signature={case['signature']}"
    )


def test_order_and_case_of_headers_do_not_change_the_signature() -> None:
    credentials = Credentials(SUITE["access_key_id"], SUITE["secret_access_key"])
    signer = Signer(SUITE["region"], SUITE["service"])
    headers = [("X-Amz-Date", SUITE["stamp"]), ("Host", "example.amazonaws.com"), ("My-Header1", "value1")]

    forward = signer.authorization(credentials, SUITE["stamp"], "POST", headers, b"")
    backward = signer.authorization(
        credentials, SUITE["stamp"], "POST", [(n.upper(), v) for n, v in reversed(headers)], b""
    )

    assert forward == backward
    assert forward.endswith("c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c")  # post-header-key-sort

"""How a server is reached: by boto3, and by requests made by hand."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, HTTPSConnection
from typing import Any

import boto3
import botocore.config
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

JSON = "application/x-amz-json-1.1"


@dataclass
class Endpoint:
    """A server under test.

    Attributes:
        place: Name of the server and of the way to reach it.
        url: Its address.
        region: The region of its requests.
        access_key_id: The accepted access key.
        secret_access_key: The key's secret.
        until: Monotonic time from which its boto3 clients make no more calls. None sets no limit.
    """

    place: str
    url: str
    region: str = "us-east-1"
    access_key_id: str = "local"
    secret_access_key: str = "local"
    until: float | None = None

    def boto3(self, **changes: Any) -> Any:
        """Return a boto3 client, which does not retry, so that each error is seen."""
        options = {
            "endpoint_url": self.url,
            "region_name": self.region,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "config": botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=10),
        }
        client = boto3.session.Session().client("kinesis", **(options | changes))
        client.meta.events.register("before-call.kinesis", self._check_patience)
        return client

    def _check_patience(self, **call: Any) -> None:
        if self.until is not None and time.monotonic() > self.until:
            raise TimeoutError("it does not terminate")


class Raw:
    """A client without a client library: one request a connection, signed by botocore's signer, all changeable."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.host = endpoint.url.partition("://")[2]

    def sign(
        self,
        operation: str,
        body: bytes,
        *,
        content_type: str = JSON,
        now: float | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        service: str = "kinesis",
        extra: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Return the headers of a signed request."""
        key, secret = self.endpoint.access_key_id, self.endpoint.secret_access_key
        headers = {
            "Host": self.host,
            "Content-Type": content_type,
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)),
            **(extra or {}),
        }
        request = AWSRequest("POST", f"{self.endpoint.url}/", data=body, headers=headers)
        request.context["timestamp"] = headers["X-Amz-Date"]
        credentials = Credentials(access_key_id or key, secret_access_key or secret)
        signer = SigV4Auth(credentials, service, self.endpoint.region)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signed = signer.signed_headers(signer.headers_to_sign(request))
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={signed}, "
            f"Signature={signer.signature(text, request)}"
        )
        return headers

    def send(
        self, headers: dict[str, str], body: bytes, *, method: str = "POST", path: str = "/"
    ) -> tuple[int, HTTPMessage, bytes]:
        """Send a request as it is. Return status, headers and body."""
        connection = self.connection()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def connection(self, timeout: float = 10) -> HTTPConnection:
        """Return a connection that is not yet open. Certificates are not checked: the servers have their own."""
        if self.endpoint.url.startswith("https:"):
            unchecked = ssl._create_unverified_context()
            return HTTPSConnection(self.host, timeout=timeout, context=unchecked)
        return HTTPConnection(self.host, timeout=timeout)

    def json(self, operation: str, params: Any, **changes: Any) -> Any:
        """Call an operation in JSON. Return its response, which must be successful."""
        body = json.dumps(params).encode()
        status, _, answer = self.send(self.sign(operation, body, **changes), body)
        assert status == 200, answer
        return json.loads(answer or b"null")

    def refusal(self, headers: dict[str, str], body: bytes, **changes: Any) -> tuple[int, str, str]:
        """Return status, code and text of a request that is refused."""
        status, _, answer = self.send(headers, body, **changes)
        error = json.loads(answer)
        return status, error["__type"], error.get("message", "")

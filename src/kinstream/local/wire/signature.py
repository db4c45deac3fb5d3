"""Verification of request signatures (AWS Signature Version 4) with the signer of botocore."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from kinstream.clock import Clock
from kinstream.local.state.request_error import RequestError

TOLERANCE = 300.0
"""Allowed difference of the date of a request in seconds (AWS General Reference, "Elements of an AWS API request signature")."""

_AUTHORITY = ":authority"
_SCHEME = "AWS4-HMAC-SHA256"
_DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


class Verifier:
    """Verifier of signatures.

    Args:
        access_key_id: The only accepted access key id.
        secret_access_key: Its secret.
        clock: Clock for the date of a signature.
    """

    def __init__(self, access_key_id: str, secret_access_key: str, clock: Clock) -> None:
        self._access_key_id = access_key_id
        self._credentials = Credentials(access_key_id, secret_access_key)
        self._clock = clock

    def verify(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes, service: str = "kinesis"
    ) -> str:
        """Verify a request, and return the region in its signature. Any region is accepted.

        Args:
            method: HTTP method.
            target: Path and query as received.
            headers: Headers with names in lower case.
            body: The complete body.
            service: Service name that the signature must be scoped to.

        Raises:
            RequestError: The signature is missing, invalid or expired.
        """
        given: dict[str, list[str]] = {}
        for name, value in headers:
            given.setdefault(name, []).append(value)
        # Over HTTP/2 the AWS SDK for JavaScript signs the host as the pseudo-header `:authority`.
        given[_AUTHORITY] = given.get("host", [])
        parts = _parts(given)
        scope = parts["Credential"].rsplit("/", 4)
        if len(scope) != 5:
            raise RequestError(
                "IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements."
            )
        access_key_id, day, region, signed_for, terminator = scope
        if not hmac.compare_digest(access_key_id.encode(), self._access_key_id.encode()):
            raise RequestError("UnrecognizedClientException", "The security token included in the request is invalid.")
        date = given["x-amz-date"][0]
        if day != date[:8] or signed_for != service or terminator != "aws4_request":
            raise RequestError(
                "InvalidSignatureException",
                f"Credential should be scoped to the date {date[:8]}, to service '{service}' and to 'aws4_request'.",
            )
        self._check_date(date)
        signed = parts["SignedHeaders"].split(";")
        host_signed = "host" in signed or _AUTHORITY in signed
        if not host_signed or "x-amz-date" not in signed or not all(name in given for name in signed):
            raise RequestError(
                "InvalidSignatureException",
                "'Host' and 'X-Amz-Date' must be 'SignedHeaders' in the Authorization header.",
            )
        digest = sha256(body).hexdigest()
        claimed = given.get("x-amz-content-sha256", [digest])
        if claimed != [digest]:
            raise RequestError("InvalidSignatureException", _MISMATCH)
        if not target.startswith("/"):
            # The target of OPTIONS or of a proxy request. Appended to a host it could be parsed as a part of it.
            raise RequestError("InvalidSignatureException", _MISMATCH)
        signer = _Signer(self._credentials, service, region, given, signed, digest)
        if not hmac.compare_digest(signer.sign(method, target, date).encode(), parts["Signature"].encode()):
            raise RequestError("InvalidSignatureException", _MISMATCH)
        return region

    def _check_date(self, date: str) -> None:
        try:
            sent = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise RequestError(
                "IncompleteSignatureException", f"Date must be in ISO-8601 'basic format'. Got '{date}'."
            ) from None
        now = self._clock.wall()
        if sent < now - TOLERANCE:
            raise RequestError(
                "InvalidSignatureException",
                f"Signature expired: {date} is now earlier than {_basic(now - TOLERANCE)} ({_basic(now)} - 5 min.)",
            )
        if sent > now + TOLERANCE:
            raise RequestError(
                "InvalidSignatureException",
                f"Signature not yet current: {date} is still later than {_basic(now + TOLERANCE)} ({_basic(now)} + 5 min.)",
            )


class _Signer(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """The signer of botocore, with the signed headers, the body hash and the date of the request."""

    def __init__(
        self,
        credentials: Credentials,
        service: str,
        region: str,
        given: dict[str, list[str]],
        signed: list[str],
        digest: str,
    ) -> None:
        super().__init__(credentials, service, region)
        self._given = given
        self._signed = signed
        self._digest = digest

    def sign(self, method: str, target: str, date: str) -> str:
        """Return the expected signature of the request."""
        # The host comes from the headers. The URL provides only the path and the query.
        request = AWSRequest(method=method, url=f"http://localhost{target}")
        request.context["timestamp"] = date
        return str(self.signature(self.string_to_sign(request, self.canonical_request(request)), request))

    def headers_to_sign(self, request: AWSRequest) -> Any:
        """Return the headers signed by the client."""
        headers = HTTPHeaders()
        for name in self._signed:
            for value in self._given[name]:
                headers[name] = value
        return headers

    def payload(self, request: AWSRequest) -> str:
        """Return the hash of the received body."""
        return self._digest


def _parts(given: dict[str, list[str]]) -> dict[str, str]:
    """Return the parts of the Authorization header. Raises RequestError if one is missing."""
    authorization = given.get("authorization", [""])[0]
    if not authorization:
        raise RequestError("MissingAuthenticationTokenException", "Missing Authentication Token")
    scheme, _, rest = authorization.partition(" ")
    pairs = [part.strip().partition("=") for part in rest.split(",")]
    parts = {name: value for name, _, value in pairs}
    missing = "".join(
        f"Authorization header requires '{name}' parameter. "
        for name in ("Credential", "Signature", "SignedHeaders")
        if not parts.get(name)
    )
    if not given.get("x-amz-date"):
        missing += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
    if scheme != _SCHEME or missing:
        raise RequestError("IncompleteSignatureException", f"{missing}Authorization={scheme}")
    return parts


def _basic(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")

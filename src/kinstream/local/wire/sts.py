"""The operation GetCallerIdentity of AWS STS, which the KPL calls before it writes.

Requests are HTML forms, responses are XML, and the service name in the signature is "sts" (API reference of AWS STS).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import msgspec

from kinstream.local.state.model import ACCOUNT
from kinstream.local.state.request_error import RequestError

T = TypeVar("T", bound=msgspec.Struct)

FORM = "application/x-www-form-urlencoded"
"""Content type of a request."""

_VERSION = "2011-06-15"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAMESPACE = f"https://sts.amazonaws.com/doc/{_VERSION}/"


class CallerIdentity(msgspec.Struct, rename="pascal"):
    """Response of GetCallerIdentity."""

    arn: str
    user_id: str
    account: str


class _Form(msgspec.Struct, rename="pascal"):
    action: str = ""
    version: str = ""


class StsWire:
    """Decoder of forms and encoder of XML."""

    content_type = "text/xml"

    def decode(self, body: bytes, shape: type[T]) -> T:
        """Decode a request. Raises RequestError."""
        try:
            form = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise RequestError("MalformedInput", "The request is not a valid form.") from None
        return msgspec.convert({name: values[0] for name, values in form.items()}, shape)

    def encode(self, response: msgspec.Struct | Mapping[str, Any]) -> bytes:
        """Return the body of a response or of an error."""
        request_id = f"<RequestId>{uuid.uuid4()}</RequestId>"
        if not isinstance(response, msgspec.Struct):
            reported = _elements({"Type": "Sender", "Code": response["__type"], "Message": response.get("message", "")})
            return f'<ErrorResponse xmlns="{_NAMESPACE}"><Error>{reported}</Error>{request_id}</ErrorResponse>'.encode()
        name = "GetCallerIdentity"
        return (
            f'<{name}Response xmlns="{_NAMESPACE}"><{name}Result>{_elements(msgspec.to_builtins(response))}</{name}Result>'
            f"<ResponseMetadata>{request_id}</ResponseMetadata></{name}Response>"
        ).encode()


STS = StsWire()


def respond(body: bytes) -> CallerIdentity:
    """Return the response to a request.

    Raises:
        RequestError: The operation is not GetCallerIdentity.
    """
    form = STS.decode(body, _Form)
    if form.action != "GetCallerIdentity" or form.version != _VERSION:
        raise RequestError("InvalidAction", f"Could not find operation {form.action} for version {form.version}")
    return CallerIdentity(f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, ACCOUNT)


def _elements(members: dict[str, str]) -> str:
    return "".join(f"<{name}>{escape(_NOT_XML.sub('?', value))}</{name}>" for name, value in members.items())

"""Every option once: small frozen values that check themselves when they are made."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kinstream.errors import ConfigError


class Wire(StrEnum):
    """How requests and answers are written on the wire."""

    JSON = "json"
    """`application/x-amz-json-1.1`, which every Kinesis speaks. Best for small records."""
    CBOR = "cbor"
    """`application/x-amz-cbor-1.1`, the Java SDK's default: bytes stay bytes. Best from about 500 bytes a record."""


def number(field: str, value: Any, low: float, high: float, unit: str = "") -> None:
    """Check that `value` is a number from `low` to `high`.

    Raises:
        ConfigError: It is not; the message names field, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ConfigError(f"{field}={value!r}: must be a number from {low:g} to {high:g}{unit and ' ' + unit}")


def whole_number(field: str, value: Any, low: int, high: int, source: str = "") -> None:
    """Check that `value` is an int from `low` to `high`.

    Raises:
        ConfigError: It is not; the message names field, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        where = f" ({source})" if source else ""
        raise ConfigError(f"{field}={value!r}: must be a whole number from {low} to {high}{where}")


def text(field: str, value: Any) -> str:
    """Return `value`, checked to be text that is not empty.

    Raises:
        ConfigError: It is not. The message has the value's type, not the value: it may be a secret.
    """
    if not isinstance(value, str) or not value:
        given = "it is empty" if value == "" else f"it is {type(value).__name__}"
        raise ConfigError(f"{field}: must be text of at least one character; {given}")
    return value


def choice(field: str, value: Any, allowed: type[StrEnum]) -> Any:
    """Return `value` as a member of `allowed`.

    Raises:
        ConfigError: It is none; the message lists what is allowed.
    """
    try:
        return allowed(value)
    except ValueError:
        raise ConfigError(f"{field}={value!r}: must be one of {', '.join(m.value for m in allowed)}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        progress: An attempt ends after this long without progress: no connection, no answer, or no further bytes of
            it. A large request is given more, as if the line carried 128 KiB a second. 0.05 to 300.
        call: The whole call ends after this long, retries and their pauses included. 0.05 to 3600.
    """

    progress: float = 6.0
    call: float = 60.0

    def __post_init__(self) -> None:
        number("Timeouts.progress", self.progress, 0.05, 300, "seconds")
        number("Timeouts.call", self.call, 0.05, 3600, "seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrying:
    """When a failed request is sent again: the AWS SDKs' standard mode, with its 2026 numbers.

    Attributes:
        max_attempts: Requests for one call, the first included; 1 never repeats. 1 to 100. The SDKs' default is 3.
        max_delay: The longest pause, in seconds. 0 to 300. The SDKs' is 20.
    """

    max_attempts: int = 3
    max_delay: float = 20.0

    def __post_init__(self) -> None:
        whole_number("Retrying.max_attempts", self.max_attempts, 1, 100)
        number("Retrying.max_delay", self.max_delay, 0, 300, "seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """How Kinesis is reached.

    Attributes:
        ca_bundle: A PEM file of certificate authorities to trust besides the usual ones; None: `AWS_CA_BUNDLE`, if
            that is set. Certificates are always checked.
        proxy: URL of an HTTP proxy, such as "http://proxy:3128"; None: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
            `NO_PROXY` as they are set; "" means none whatever they say.
        max_idle: Open connections that are kept for further calls. 0 to 1000.
        idle_timeout: Seconds after which an unused connection is closed. 1 to 3600.
        allow_http: Permit plain http to other hosts than this machine. Records and signatures are then readable on the way.
    """

    ca_bundle: str | Path | None = None
    proxy: str | None = None
    max_idle: int = 64
    idle_timeout: float = 20.0
    allow_http: bool = False

    def __post_init__(self) -> None:
        whole_number("Connection.max_idle", self.max_idle, 0, 1000)
        number("Connection.idle_timeout", self.idle_timeout, 1, 3600, "seconds")
        if self.ca_bundle is not None:
            read_ca_bundle("Connection.ca_bundle", self.ca_bundle)
        if self.allow_http not in (True, False):
            raise ConfigError(f"Connection.allow_http={self.allow_http!r}: must be True or False")
        proxy = self.proxy
        if proxy not in (None, "") and not (isinstance(proxy, str) and is_proxy_url(proxy)):
            raise ConfigError("Connection.proxy: must be a URL such as http://proxy:3128, or '' for none")

    def __repr__(self) -> str:
        # A proxy's URL may hold a password.
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name != "proxy")
        return f"Connection({shown}, proxy={'...' if self.proxy else self.proxy!r})"


def is_proxy_url(url: str) -> bool:
    """Return whether `url` names an HTTP proxy: its scheme, a host, and perhaps a port."""
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        return url.startswith(("http://", "https://")) and has_place
    except ValueError:
        return False


def read_ca_bundle(field: str, path: str | Path) -> bytes:
    """Return the PEM certificates in a file.

    Raises:
        ConfigError: It cannot be read, or holds no certificate.
    """
    try:
        pem = Path(path).read_bytes()
        ssl.create_default_context().load_verify_locations(cadata=pem.decode("ascii"))
    except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or "no PEM certificates"
        raise ConfigError(f"{field}={str(path)!r}: must be a readable PEM file of certificates ({reason})") from error
    return pem

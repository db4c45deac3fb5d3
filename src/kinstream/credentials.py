"""AWS credentials, as values. `kinstream.aws.credentials` has their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from kinstream.config import number, secretive, text
from kinstream.errors import ConfigError
from kinstream.usage import checks_options


@checks_options
@secretive
@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """AWS credentials. Their repr shows no secret, and they cannot be pickled.

    Attributes:
        access_key_id: Access key ID (`AWS_ACCESS_KEY_ID`).
        secret_access_key: Secret access key (`AWS_SECRET_ACCESS_KEY`).
        session_token: Session token of temporary credentials (`AWS_SESSION_TOKEN`). None: long-term credentials.
        expiration: Expiration of temporary credentials in seconds since 1970. None: they do not expire.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expiration: float | None = None

    def __post_init__(self) -> None:
        _printable("access_key_id", self.access_key_id)
        _printable("secret_access_key", self.secret_access_key)
        if self.session_token is not None:
            _printable("session_token", self.session_token)
        if self.expiration is not None:
            number("Credentials.expiration", self.expiration, 0, 253402300799, "seconds since 1970")

    def __repr__(self) -> str:
        return "Credentials(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials cannot be pickled, because the pickle would contain the secret")

    def __getstate__(self) -> NoReturn:
        raise TypeError("Credentials cannot be pickled, because the pickle would contain the secret")


def _printable(field: str, value: str) -> None:
    text(f"Credentials.{field}", value)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"Credentials.{field}: must be printable ASCII without spaces, as issued by AWS")

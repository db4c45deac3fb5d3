"""Whose requests they are: given credentials, any async provider, or the chain that AWS's own tools follow.

botocore reads the chain (environment, profiles, SSO, assumed roles, web identity, container, instance). It is imported
late and only ever called in a thread: its import takes 160 ms, and a slow source stalls whoever waits for it.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

from kinstream.clock import Clock
from kinstream.config import number, secretive, text
from kinstream.errors import ClosedError, ConfigError, CredentialsError, KinesisError
from kinstream.frames import without_frames
from kinstream.usage import checks_options

T = TypeVar("T")

ADVISORY_REFRESH = 900.0
"""Seconds before their end at which credentials are fetched anew, while the old ones serve (botocore: 15 minutes)."""
MANDATORY_REFRESH = 600.0
"""Seconds before their end from which requests wait for new ones (botocore: 10 minutes)."""
REFRESH_PAUSE = 60.0
"""Seconds after a fetch before the next early one."""


@checks_options
@secretive
@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An access key, as AWS gives it out. Its repr has no secret, and it refuses to be pickled.

    Attributes:
        access_key_id: Names the key.
        secret_access_key: Signs.
        session_token: Comes with temporary keys.
        expiration: Seconds since 1970 when temporary keys end; None: never.
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
        raise TypeError("Credentials cannot be pickled: a secret would leave the process")

    def __getstate__(self) -> NoReturn:
        raise TypeError("Credentials cannot be pickled: a secret would leave the process")


Provider: TypeAlias = Callable[[], Awaitable[Credentials]]
"""Fetches credentials; called when there are none yet and again before they expire, one call at a time."""


class CredentialSource(Protocol):
    """What the client asks for credentials."""

    async def get(self) -> Credentials:
        """Return credentials that are good now."""

    def expired(self, credentials: Credentials) -> bool:
        """Say that the service called these expired; return whether the next `get` may give others."""


class StaticSource:
    """The same credentials always."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def get(self) -> Credentials:
        """Return them."""
        return self._credentials

    def expired(self, credentials: Credentials) -> bool:
        """Return False: there are no others."""
        return False


class RefreshingSource:
    """Credentials of a provider: fetched once for all who wait, renewed before they end.

    Args:
        provider: Fetches them.
        clock: Says when they end.
        forget: Makes the provider begin anew: called when the service called its credentials expired.
    """

    def __init__(self, provider: Provider, clock: Clock, forget: Callable[[], None] | None = None) -> None:
        self._provider = provider
        self._clock = clock
        self._forget = forget
        self._current: Credentials | None = None
        self._fetching: asyncio.Task[Credentials] | None = None
        self._no_refresh_before = -math.inf
        self._had_ended = False
        self._closed = False

    async def get(self) -> Credentials:
        """Return credentials that are good now.

        Raises:
            CredentialsError: The provider failed, and no old credentials serve any longer.
            ClosedError: The source was closed meanwhile.
        """
        current = self._current
        if current is not None:
            if current.expiration is None:
                return current
            left = current.expiration - self._clock.wall()
            now = self._clock.monotonic()  # the wall clock may be set at any time
            if left > MANDATORY_REFRESH or ((left > 0 or self._had_ended) and now < self._no_refresh_before):
                if left <= ADVISORY_REFRESH and now >= self._no_refresh_before:
                    self._fetch()  # the old ones serve meanwhile
                return current
        task = self._fetch()
        try:
            # Shielded: who gives up waiting must not end the fetch that others wait for.
            return await asyncio.shield(task)
        except CredentialsError:
            if current is not None and current.expiration is not None and current.expiration > self._clock.wall():
                return current
            raise
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if not task.cancelled() or waiter is None or waiter.cancelling():
                raise  # it is the waiter that was cancelled
            raise (
                ClosedError("closed while credentials were fetched")
                if self._closed
                else CredentialsError("the credentials provider was cancelled")
            ) from None

    def expired(self, credentials: Credentials) -> bool:
        """Drop these credentials, if they are still the current ones."""
        if self._current is credentials:
            self._current = None
            if self._forget is not None:
                self._forget()
        return True

    async def close(self) -> None:
        """End a fetch that is under way; who waits for it gets ClosedError."""
        self._closed = True
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _fetch(self) -> asyncio.Task[Credentials]:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._run_provider(), name="kinstream-credentials")
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    async def _run_provider(self) -> Credentials:
        try:
            found = await self._provider()
        except (CredentialsError, ConfigError):
            raise
        except Exception as error:
            raise CredentialsError(f"the credentials provider failed: {_named(error)}") from error
        if not isinstance(found, Credentials):
            raise CredentialsError(
                f"the credentials provider gave a {type(found).__name__}, not a kinstream.Credentials"
            )
        return found

    def _fetched(self, task: asyncio.Task[Credentials]) -> None:
        self._fetching = None
        if task.cancelled():
            return
        # After a failure, but also after a success: keys that always end within minutes must not be fetched for each call.
        self._no_refresh_before = self._clock.monotonic() + REFRESH_PAUSE
        if task.exception() is None:
            self._current = current = task.result()
            # Keys that have ended when they come: more likely this machine's clock is wrong, and the service will tell.
            self._had_ended = current.expiration is not None and current.expiration <= self._clock.wall()


@dataclass(frozen=True, slots=True)
class Setting:
    """What the AWS configuration of this process says, besides credentials.

    Attributes:
        region: The default region, if any.
        endpoint_url: A configured endpoint, if any.
        ca_bundle: A configured CA bundle, if any.
        fips: Whether FIPS endpoints are asked for.
        dual_stack: Whether dual-stack endpoints are asked for.
        max_attempts: Where the number of attempts of one call is configured, and its text.
        retry_mode: A configured retry mode, if any.
    """

    region: str | None
    endpoint_url: str | None
    ca_bundle: str | None
    fips: bool
    dual_stack: bool
    max_attempts: tuple[str, str] | None
    retry_mode: str | None

    @classmethod
    def of_environment(cls) -> Setting:
        """Return the settings of the environment for a client with explicit region, endpoint and credentials."""
        attempts = os.environ.get("AWS_MAX_ATTEMPTS")
        return cls(
            region=None,
            endpoint_url=None,
            ca_bundle=os.environ.get("AWS_CA_BUNDLE") or None,
            fips=False,
            dual_stack=False,
            max_attempts=("AWS_MAX_ATTEMPTS", attempts) if attempts else None,
            retry_mode=os.environ.get("AWS_RETRY_MODE") or None,
        )


class AwsChain:
    """AWS's own configuration, read by botocore: environment, `~/.aws`, and the sources that they name.

    Args:
        profile: A profile of `~/.aws/config`; None: `AWS_PROFILE`, or the default one.
    """

    def __init__(self, profile: str | None = None) -> None:
        self.profile = profile
        self._session: Any = None
        self._found: Any = None

    async def setting(self) -> Setting:
        """Return the configuration.

        Raises:
            ConfigError: It cannot be read, or names a profile that is not there.
        """
        return await _in_thread(self._read_setting)

    async def credentials(self) -> Credentials:
        """Return the chain's credentials: a `Provider`.

        Raises:
            CredentialsError: There are none, or their source failed.
        """
        try:
            return await _in_thread(self._read_credentials)
        except KinesisError as error:
            without_frames(error)  # botocore's frames hold the content of the file
            raise

    def forget(self) -> None:
        """Read everything anew the next time: files may have changed, and what botocore keeps is no good any more."""
        self._session = self._found = None

    def _open(self) -> Any:
        session = self._session
        if session is None:
            import botocore.session

            session = self._session = botocore.session.Session(profile=self.profile)
        return session

    def _read_setting(self) -> Setting:
        import botocore.exceptions

        try:
            session = self._open()
            environment = Setting.of_environment()
            profile = session.get_scoped_config()
            attempts = profile.get("max_attempts")
            return Setting(
                # AWS_REGION is the SDKs' name; botocore reads AWS_DEFAULT_REGION and the profile.
                region=os.environ.get("AWS_REGION") or session.get_config_variable("region") or None,
                endpoint_url=_configured_endpoint(session),
                ca_bundle=session.get_config_variable("ca_bundle") or None,
                fips=bool(session.get_config_variable("use_fips_endpoint")),
                dual_stack=bool(session.get_config_variable("use_dualstack_endpoint")),
                max_attempts=environment.max_attempts
                or (("max_attempts of the profile", attempts) if attempts else None),
                retry_mode=environment.retry_mode or profile.get("retry_mode") or None,
            )
        except botocore.exceptions.BotoCoreError as error:
            raise ConfigError(f"the AWS configuration cannot be read: {error}") from error
        except OSError as error:
            raise ConfigError(f"the AWS configuration cannot be read: {_named(error)}") from error

    def _read_credentials(self) -> Credentials:
        import botocore.exceptions

        try:
            found = self._found or self._open().get_credentials()
            frozen = found and found.get_frozen_credentials()
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            advice = "; run 'aws sso login'" if "SSO" in type(error).__name__ or "Token" in type(error).__name__ else ""
            raise CredentialsError(
                f"the AWS credential chain failed: {type(error).__name__}: {error}{advice}"
            ) from error
        except Exception as error:  # noqa: BLE001 - a token file that is not there, a process that prints no JSON
            failure = _named(error)
        else:
            self._found = found
            return _of_botocore(found, frozen)
        # Not within the handler above: the error may quote the content of the file.
        raise CredentialsError(f"the AWS credential chain failed: {failure}")


def _of_botocore(found: Any, frozen: Any) -> Credentials:
    """Return the credentials that botocore found. Raises CredentialsError if there are none."""
    if frozen is None:
        raise CredentialsError(
            "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "configure a profile, or give credentials=Credentials(...)"
        )
    # botocore does not show when they expire, and renews them by its own rule; they are fetched from it every minute.
    expiry = getattr(found, "_expiry_time", None)
    return Credentials(
        frozen.access_key, frozen.secret_key, frozen.token or None, expiry.timestamp() if expiry else None
    )


async def _in_thread(read: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(read)
    except RuntimeError:
        # At the interpreter's end no thread starts any more. What is under way then is still sent, and holds nobody up.
        return read()


def source_of(credentials: Credentials | Provider | None, chain: AwsChain, clock: Clock) -> CredentialSource:
    """Return the source for what a caller gave.

    Raises:
        ConfigError: It is no Credentials, no callable and not None.
    """
    if isinstance(credentials, Credentials):
        return StaticSource(credentials)
    if credentials is None:
        return RefreshingSource(chain.credentials, clock, chain.forget)
    if callable(credentials):
        return RefreshingSource(credentials, clock)
    raise ConfigError(
        "credentials: must be a kinstream.Credentials, an async function that returns one, or None for the AWS chain, "
        f"not {type(credentials).__name__}"
    )


def _configured_endpoint(session: Any) -> str | None:
    """Return the endpoint that the environment or the profile names (SDKs guide, "Service-specific endpoints")."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    if in_environment := os.environ.get("AWS_ENDPOINT_URL_KINESIS") or os.environ.get("AWS_ENDPOINT_URL"):
        return in_environment
    profile = session.get_scoped_config()
    kinesis = None
    if "services" in profile:
        section = session.full_config.get("services", {}).get(profile["services"])
        if not section:
            raise ConfigError(f"the AWS configuration has no [services {profile['services']}], which the profile names")
        kinesis = section.get("kinesis")
    return (isinstance(kinesis, dict) and kinesis.get("endpoint_url")) or profile.get("endpoint_url") or None


def _named(error: BaseException) -> str:
    """Return an error's class, and the file that could not be opened. Its message is left out: it may quote that file."""
    names = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and isinstance(cause.filename, (str, bytes)):
            return f"{names}: {os.fsdecode(cause.filename)!r}: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return names


def _printable(field: str, value: str) -> None:
    text(f"Credentials.{field}", value)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"Credentials.{field}: must be printable ASCII without blanks, as AWS gives it out")

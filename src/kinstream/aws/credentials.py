"""Sources of AWS credentials: static, from an async provider, or from the default AWS credential chain.

botocore reads the chain (environment, profiles, SSO, assumed roles, web identity, container, instance). It is imported
lazily and only called in a thread, because its import takes 160 ms and a slow source would block the event loop.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from kinstream.aws.service import KINESIS, Service
from kinstream.clock import Clock
from kinstream.credentials import Credentials
from kinstream.errors import ClosedError, ConfigError, CredentialsError, KinesisError
from kinstream.forking import end_before_forks
from kinstream.frames import without_frames

T = TypeVar("T")

ADVISORY_REFRESH = 900.0
"""Seconds before expiration from which credentials are refreshed in the background, while the old ones are used (botocore: 15
minutes)."""
MANDATORY_REFRESH = 600.0
"""Seconds before expiration from which requests wait for the refresh (botocore: 10 minutes)."""
REFRESH_PAUSE = 60.0
"""Minimum seconds between two refreshes of credentials that have not expired."""


Provider: TypeAlias = Callable[[], Awaitable[Credentials]]
"""Async function that returns credentials. Called before the first request and again before they expire, one call at a time."""


class CredentialSource(Protocol):
    """Source of a client's credentials."""

    async def get(self) -> Credentials:
        """Return valid credentials."""

    def expired(self, credentials: Credentials) -> bool:
        """Report that the service refused these credentials as expired. Returns whether the next `get` may return others."""


class StaticSource:
    """Source that always returns the same credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def get(self) -> Credentials:
        """Return the credentials."""
        return self._credentials

    def expired(self, credentials: Credentials) -> bool:
        """Return False: the next `get` returns the same credentials."""
        return False


class RefreshingSource:
    """Source that caches the credentials of a provider: one fetch for all waiters, refreshed before they expire.

    Args:
        provider: Fetches credentials.
        clock: Clock by which they expire.
        forget: Resets the provider, called when the service refused its credentials as expired.
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
        """Return valid credentials.

        Raises:
            CredentialsError: The provider failed, and the old credentials have expired.
            ClosedError: The source was closed during the fetch.
        """
        current = self._current
        if current is not None:
            if current.expiration is None:
                return current
            left = current.expiration - self._clock.wall()
            now = self._clock.monotonic()  # the wall clock may be set at any time
            if left > MANDATORY_REFRESH or ((left > 0 or self._had_ended) and now < self._no_refresh_before):
                if left <= ADVISORY_REFRESH and now >= self._no_refresh_before:
                    self._fetch()  # in the background, while the old ones are used
                return current
        task = self._fetch()
        try:
            # A cancelled waiter must not cancel the shared fetch.
            return await asyncio.shield(task)
        except CredentialsError:
            if current is not None and current.expiration is not None and current.expiration > self._clock.wall():
                return current
            raise
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if not task.cancelled() or waiter is None or waiter.cancelling():
                raise  # the waiter was cancelled, not the fetch
            raise (
                ClosedError("closed while credentials were fetched")
                if self._closed
                else CredentialsError("the credentials provider was cancelled")
            ) from None

    def expired(self, credentials: Credentials) -> bool:
        """Discard these credentials, unless they were refreshed already. Returns True: the next `get` fetches others."""
        if self._current is credentials:
            self._current = None
            if self._forget is not None:
                self._forget()
        return True

    async def close(self) -> None:
        """Cancel a running fetch. Its waiters get ClosedError."""
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
                f"the credentials provider must return a kinstream.Credentials, not {type(found).__name__}"
            )
        return found

    def _fetched(self, task: asyncio.Task[Credentials]) -> None:
        self._fetching = None
        if task.cancelled():
            return
        # After a success too: credentials that always expire within minutes must not be fetched for each call.
        self._no_refresh_before = self._clock.monotonic() + REFRESH_PAUSE
        if task.exception() is None:
            self._current = current = task.result()
            # If new credentials seem expired, this machine's clock is probably wrong. The service will refuse them if not.
            self._had_ended = current.expiration is not None and current.expiration <= self._clock.wall()


@dataclass(frozen=True, slots=True)
class Setting:
    """AWS configuration of this process, except credentials.

    Attributes:
        region: Default region, if any.
        endpoint_url: Configured endpoint, if any.
        ca_bundle: Configured CA bundle, if any.
        fips: Whether FIPS endpoints are configured.
        dual_stack: Whether dual-stack endpoints are configured.
        max_attempts: Name of the setting for the maximum attempts, and its text.
        retry_mode: Configured retry mode, if any.
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
        """Return the settings of the environment, for a client with explicit region, endpoint and credentials."""
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
    """AWS configuration and credentials as botocore finds them: environment, `~/.aws`, and the sources named there.

    Args:
        profile: Profile of `~/.aws/config`. None: `AWS_PROFILE`, else the default profile.
        service: Service whose endpoint is read.
    """

    def __init__(self, profile: str | None = None, service: Service = KINESIS) -> None:
        self.profile = profile
        self.service = service
        self._session: Any = None
        self._found: Any = None

    @property
    def provider(self) -> str | None:
        """Name of botocore's provider that found the credentials, such as "env" or "sso". None: not fetched yet."""
        method = getattr(self._found, "method", None)
        return None if method is None else str(method)

    async def setting(self) -> Setting:
        """Return the configuration.

        Raises:
            ConfigError: It cannot be read, or names a profile that does not exist.
        """
        return await _in_thread(self._read_setting)

    async def credentials(self) -> Credentials:
        """Return the credentials of the chain. This method is a `Provider`.

        Raises:
            CredentialsError: None were found, or their source failed.
        """
        try:
            return await _in_thread(self._read_credentials)
        except KinesisError as error:
            without_frames(error)  # variables of botocore's frames hold the content of the file
            raise

    def forget(self) -> None:
        """Discard the botocore session, so that files are read again and its cached credentials are not used again."""
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
                endpoint_url=_configured_endpoint(session, self.service),
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
        except Exception as error:  # noqa: BLE001 - such as a missing token file, or a process that prints no JSON
            failure = _named(error)
        else:
            self._found = found
            return _of_botocore(found, frozen)
        # Raised outside the handler above, because the error may quote the content of the file.
        raise CredentialsError(f"the AWS credential chain failed: {failure}")


def _of_botocore(found: Any, frozen: Any) -> Credentials:
    """Return the credentials that botocore found. Raises CredentialsError if it found none."""
    if frozen is None:
        raise CredentialsError(
            "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "configure a profile, or pass credentials=Credentials(...)"
        )
    # botocore refreshes by its own rule and has no public expiration, so its credentials are fetched again every minute.
    expiry = getattr(found, "_expiry_time", None)
    return Credentials(
        frozen.access_key, frozen.secret_key, frozen.token or None, expiry.timestamp() if expiry else None
    )


async def _in_thread(read: Callable[[], T]) -> T:
    def read_in_thread() -> T:
        end_before_forks()
        return read()

    try:
        return await asyncio.to_thread(read_in_thread)
    except RuntimeError:
        # No thread starts during interpreter shutdown. Read in this thread, which blocks no other task any more.
        return read()


def source_of(credentials: Credentials | Provider | None, chain: AwsChain, clock: Clock) -> CredentialSource:
    """Return the source for the `credentials` argument of a client.

    Raises:
        ConfigError: The argument is neither Credentials, nor callable, nor None.
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


def _configured_endpoint(session: Any, service: Service) -> str | None:
    """Return the endpoint from the environment or the profile (SDKs guide, "Service-specific endpoints")."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    if in_environment := os.environ.get(service.endpoint_variable) or os.environ.get("AWS_ENDPOINT_URL"):
        return in_environment
    profile = session.get_scoped_config()
    own = None
    if "services" in profile:
        section = session.full_config.get("services", {}).get(profile["services"])
        if not section:
            raise ConfigError(
                f"the AWS configuration has no section [services {profile['services']}], which the profile refers to"
            )
        own = section.get(service.section)
    return (isinstance(own, dict) and own.get("endpoint_url")) or profile.get("endpoint_url") or None


def _named(error: BaseException) -> str:
    """Return an error's class, and the file that could not be opened. Its message is left out because it may quote that file."""
    names = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and isinstance(cause.filename, (str, bytes)):
            return f"{names}: {os.fsdecode(cause.filename)!r}: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return names

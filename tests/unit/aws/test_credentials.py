import asyncio
import copy
import json
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import InvalidConfigError
from tests.doubles.clock import VirtualClock

from kinstream.aws.credentials import (
    ADVISORY_REFRESH,
    MANDATORY_REFRESH,
    REFRESH_PAUSE,
    AwsChain,
    RefreshingSource,
    StaticSource,
    source_of,
)
from kinstream.credentials import Credentials
from kinstream.errors import ClosedError, ConfigError, CredentialsError

SECRET = "canary+secret/key"
TOKEN = "canary-session-token=="
HOUR = 3600.0


# The value itself


def test_credentials_are_hidden_in_repr_and_str() -> None:
    credentials = Credentials("AKIACANARY", SECRET, TOKEN)
    for shown in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert "canary" not in shown.lower()


@pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy, Credentials.__getstate__])
def test_credentials_cannot_leave_the_process(carry: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        carry(Credentials("A", SECRET))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", ["", "a b", "a\n", "\u00e4", "a\x00", None, 1, b"key"])
@pytest.mark.parametrize("field", ["access_key_id", "secret_access_key", "session_token"])
def test_invalid_key_is_refused_without_being_shown(field: str, value: Any) -> None:
    given = {"access_key_id": "A", "secret_access_key": "S", field: value}
    if field == "session_token" and value is None:
        return
    with pytest.raises(ConfigError, match=rf"^Credentials\.{field}: ") as caught:
        Credentials(**given)
    assert not value or repr(value) not in str(caught.value)


# A provider


class Provider:
    """Returns credentials valid for `lifetime` seconds. Fails or waits if configured to."""

    def __init__(self, clock: VirtualClock, lifetime: float | None = HOUR) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.calls = 0
        self.running = 0
        self.most_running = 0
        self.fail: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> Credentials:
        self.calls += 1
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.fail is not None:
                raise self.fail
        finally:
            self.running -= 1
        end = None if self.lifetime is None else self.clock.wall() + self.lifetime
        return Credentials(f"KEY{self.calls}", SECRET, TOKEN, end)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("end", ["2026-01-01", datetime(2026, 1, 1, tzinfo=UTC), float("nan"), True, -1])
def test_expiration_that_is_not_a_time_is_refused(end: Any) -> None:
    with pytest.raises(ConfigError, match=r"Credentials\.expiration="):
        Credentials("id", "secret", None, end)


async def test_static_credentials_are_always_the_same() -> None:
    source = StaticSource(Credentials("A", "S"))
    assert await source.get() is await source.get()
    assert source.expired(await source.get()) is False


async def test_credentials_without_an_end_are_fetched_once(clock: VirtualClock) -> None:
    provider = Provider(clock, lifetime=None)
    source = RefreshingSource(provider, clock)
    first = await source.get()
    clock.move(365 * 24 * HOUR)
    assert await source.get() is first
    assert provider.calls == 1


async def test_fifty_callers_wait_for_one_fetch(clock: VirtualClock) -> None:
    provider = Provider(clock)
    provider.gate = asyncio.Event()
    source = RefreshingSource(provider, clock)
    callers = [asyncio.create_task(source.get()) for _ in range(50)]
    await settle()
    provider.gate.set()
    found = await asyncio.gather(*callers)
    assert provider.calls == 1
    assert len({id(credentials) for credentials in found}) == 1


async def test_early_refresh_delays_no_request(clock: VirtualClock) -> None:
    provider = Provider(clock)
    source = RefreshingSource(provider, clock)
    first = await source.get()
    clock.move(HOUR - ADVISORY_REFRESH)
    provider.gate = asyncio.Event()
    assert await source.get() is first
    assert await source.get() is first
    await settle()
    assert provider.calls == 2
    provider.gate.set()
    await settle()
    assert (await source.get()).access_key_id == "KEY2"
    assert provider.most_running == 1


async def test_close_to_their_end_callers_wait_for_new_credentials(clock: VirtualClock) -> None:
    provider = Provider(clock)
    source = RefreshingSource(provider, clock)
    await source.get()
    clock.move(HOUR - MANDATORY_REFRESH)
    assert (await source.get()).access_key_id == "KEY2"


async def test_failing_provider_leaves_the_old_credentials_until_they_end(clock: VirtualClock) -> None:
    provider = Provider(clock)
    source = RefreshingSource(provider, clock)
    first = await source.get()
    provider.fail = RuntimeError("down")
    clock.move(HOUR - MANDATORY_REFRESH)
    while clock.wall() < (first.expiration or 0):
        assert await source.get() is first
        clock.move(30)
    assert provider.calls <= 2 + MANDATORY_REFRESH / REFRESH_PAUSE
    with pytest.raises(CredentialsError, match="the credentials provider failed: RuntimeError"):
        await source.get()
    provider.fail = None
    assert (await source.get()) is not first


async def test_credentials_that_always_end_soon_are_not_fetched_for_each_call(clock: VirtualClock) -> None:
    provider = Provider(clock, lifetime=300)
    source = RefreshingSource(provider, clock)
    for _ in range(60):
        await source.get()
        await settle()
        clock.move(1)
    assert provider.calls == 1
    await source.get()
    await settle()
    assert provider.calls == 2


async def test_clock_that_is_ahead_does_not_fetch_credentials_for_each_call(clock: VirtualClock) -> None:
    provider = Provider(clock, lifetime=-82_800)  # an hour left by the provider's clock: ours is a day ahead
    source = RefreshingSource(provider, clock)
    for _ in range(50):
        await source.get()
    assert provider.calls == 1
    clock.move(REFRESH_PAUSE + 1)
    await source.get()
    assert provider.calls == 2


async def test_cancelled_waiter_does_not_cancel_the_fetch(clock: VirtualClock) -> None:
    provider = Provider(clock)
    provider.gate = asyncio.Event()
    source = RefreshingSource(provider, clock)
    impatient, patient = asyncio.create_task(source.get()), asyncio.create_task(source.get())
    await settle()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    provider.gate.set()
    assert (await patient).access_key_id == "KEY1"
    assert provider.calls == 1


async def test_fetch_with_only_cancelled_waiters_serves_the_next_request(clock: VirtualClock) -> None:
    provider = Provider(clock)
    provider.gate = asyncio.Event()
    source = RefreshingSource(provider, clock)
    caller = asyncio.create_task(source.get())
    await settle()
    caller.cancel()
    await asyncio.wait([caller])
    provider.gate.set()
    await settle()
    assert (await source.get()).access_key_id == "KEY1"


async def test_closing_cancels_the_fetch_and_notifies_its_waiters(clock: VirtualClock) -> None:
    provider = Provider(clock)
    provider.gate = asyncio.Event()
    source = RefreshingSource(provider, clock)
    caller = asyncio.create_task(source.get())
    await settle()
    await source.close()
    with pytest.raises(ClosedError):
        await caller
    assert provider.running == 0
    await source.close()


async def test_cancelled_caller_is_cancelled_though_the_source_closes_too(clock: VirtualClock) -> None:
    provider = Provider(clock)
    provider.gate = asyncio.Event()
    source = RefreshingSource(provider, clock)
    caller = asyncio.create_task(source.get())
    await settle()
    caller.cancel()
    await source.close()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_provider_that_cancels_itself_is_a_credentials_error(clock: VirtualClock) -> None:
    async def provider() -> Credentials:
        raise asyncio.CancelledError

    with pytest.raises(CredentialsError, match="was cancelled"):
        await RefreshingSource(provider, clock).get()


@pytest.mark.parametrize("given", [None, ("A", "S"), {"access_key_id": "A"}])
async def test_provider_that_returns_another_type_is_an_error(clock: VirtualClock, given: Any) -> None:
    async def provider() -> Any:
        return given

    with pytest.raises(CredentialsError, match=f"must return a kinstream.Credentials, not {type(given).__name__}"):
        await RefreshingSource(provider, clock).get()


async def test_provider_that_is_not_a_coroutine_function_is_a_credentials_error(clock: VirtualClock) -> None:
    provider: Any = lambda: Credentials("A", SECRET)  # noqa: E731
    with pytest.raises(CredentialsError, match="TypeError"):
        await RefreshingSource(provider, clock).get()


async def test_expired_credentials_are_dropped_once(clock: VirtualClock) -> None:
    provider = Provider(clock, lifetime=None)
    source = RefreshingSource(provider, clock)
    first = await source.get()
    assert source.expired(first)
    second = await source.get()
    assert second.access_key_id == "KEY2"
    assert source.expired(first)  # another call had them too, and says it late
    assert await source.get() is second


@pytest.mark.parametrize("given", ["key", 1, ("A", "S"), {}])
def test_invalid_credentials_are_refused_without_being_shown(given: Any, clock: VirtualClock) -> None:
    with pytest.raises(ConfigError, match=rf"^credentials: .*not {type(given).__name__}$"):
        source_of(given, AwsChain(), clock)


# The AWS chain


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    return tmp_path


def write(home: Path, credentials: str = "", config: str = "") -> None:
    (home / ".aws" / "credentials").write_text(credentials)
    (home / ".aws" / "config").write_text(config)


STATIC = f"aws_access_key_id = FILEKEY\naws_secret_access_key = {SECRET}\n"


async def test_environment_has_the_first_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, f"[default]\n{STATIC}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    assert await AwsChain().credentials() == Credentials("ENVKEY", SECRET, TOKEN)


async def test_profile_is_the_given_one_or_the_environments_or_the_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        home, f"[default]\n{STATIC}\n[two]\n{STATIC.replace('FILE', 'TWO')}\n[three]\n{STATIC.replace('FILE', 'THREE')}"
    )
    assert await AwsChain().credentials() == Credentials("FILEKEY", SECRET)
    monkeypatch.setenv("AWS_PROFILE", "two")
    assert await AwsChain().credentials() == Credentials("TWOKEY", SECRET)
    assert await AwsChain("three").credentials() == Credentials("THREEKEY", SECRET)


async def test_unknown_profile_is_named(home: Path) -> None:
    with pytest.raises(CredentialsError, match=r"ProfileNotFound: .*\(nobody\)"):
        await AwsChain("nobody").credentials()
    with pytest.raises(ConfigError, match=r"\(nobody\)"):
        await AwsChain("nobody").setting()


async def test_missing_credentials_are_an_error_with_advice(home: Path) -> None:
    with pytest.raises(CredentialsError, match="no AWS credentials found: set AWS_ACCESS_KEY_ID"):
        await AwsChain().credentials()


async def test_half_a_key_is_an_error(home: Path) -> None:
    write(home, "[default]\naws_access_key_id = A\n")
    with pytest.raises(CredentialsError, match="PartialCredentialsError"):
        await AwsChain().credentials()


async def test_role_without_a_source_is_an_error(home: Path) -> None:
    write(home, config="[profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = nobody\n")
    with pytest.raises(CredentialsError, match="InvalidConfigError"):
        await AwsChain("role").credentials()


async def test_file_that_does_not_parse_is_an_error(home: Path) -> None:
    write(home, config="[default\nnonsense")
    with pytest.raises(CredentialsError, match="ConfigParseError"):
        await AwsChain().credentials()
    with pytest.raises(ConfigError, match="cannot be read"):
        await AwsChain().setting()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("missing", "FileNotFoundError"),
        ("folder", "IsADirectoryError"),
        ("file/token", "NotADirectoryError"),
        ("n" * 300, "OSError"),
    ],
)
async def test_web_identity_without_its_file_names_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    (home / "folder").mkdir()
    (home / "file").write_text(SECRET)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / name))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(CredentialsError, match=f"the AWS credential chain failed: {kind}: ") as caught:
        await AwsChain().credentials()
    assert repr(str(home / name)) in caught.value.details
    assert SECRET not in caught.value.details


async def test_token_that_is_not_text_is_not_quoted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = home / "token"
    token.write_bytes(SECRET.encode() + b"\xff")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(CredentialsError, match="UnicodeDecodeError") as caught:
        await AwsChain().credentials()
    assert SECRET not in repr(caught.value)
    assert caught.value.__context__ is None


async def test_file_that_a_provider_cannot_open_is_named(tmp_path: Path) -> None:
    async def provider() -> Credentials:
        (tmp_path / "missing").read_text()
        raise AssertionError

    with pytest.raises(CredentialsError, match="the credentials provider failed: FileNotFoundError: ") as caught:
        await RefreshingSource(provider, VirtualClock()).get()
    assert str(tmp_path / "missing") in caught.value.details


async def test_program_that_is_not_there_is_named(home: Path) -> None:
    write(home, config="[default]\ncredential_process = /nowhere/to-be-found\n")
    with pytest.raises(CredentialsError, match="FileNotFoundError: '/nowhere/to-be-found'"):
        await AwsChain().credentials()


def process(home: Path, code: str) -> None:
    (home / "process.py").write_text(code)
    write(home, config=f"[default]\ncredential_process = {sys.executable} {home / 'process.py'}\n")


async def test_process_provides_credentials_with_an_expiration(home: Path) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    answer = {
        "Version": 1,
        "AccessKeyId": "P",
        "SecretAccessKey": SECRET,
        "SessionToken": TOKEN,
        "Expiration": end.isoformat(),
    }
    process(home, f"print({json.dumps(answer)!r})")
    assert await AwsChain().credentials() == Credentials("P", SECRET, TOKEN, end.timestamp())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise SystemExit(1)", "CredentialRetrievalError"),
        (f"print('{SECRET}')", "JSONDecodeError"),
        ("print('{}')", ""),
    ],
    ids=["fails", "prints no JSON", "prints no key"],
)
async def test_process_that_fails_is_an_error_without_its_output(home: Path, code: str, kind: str) -> None:
    process(home, code)
    with pytest.raises(CredentialsError, match=f"the AWS credential chain failed: {kind}") as caught:
        await AwsChain().credentials()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


class Sts(BaseHTTPRequestHandler):
    """Responds like a container's credential endpoint and like STS."""

    go_on: threading.Event | None = None
    status = 200
    keys = 0

    def do_GET(self) -> None:
        assert self.go_on is None or self.go_on.wait(10)
        type(self).keys += 1
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.reply(
            json.dumps({"AccessKeyId": f"C{self.keys}", "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": end})
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self.status != 200:
            self.reply(
                '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>AccessDenied</Code>'
                "<Message>not you</Message></Error></ErrorResponse>"
            )
            return
        self.reply(
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
            f"<SessionToken>{TOKEN}</SessionToken><Expiration>{end}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )

    def reply(self, text: str) -> None:
        body = text.encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def sts() -> Iterator[tuple[str, type[Sts]]]:
    handler = type("Handler", (Sts,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


@pytest.mark.enable_socket
async def test_container_provides_credentials_with_an_expiration(
    home: Path, monkeypatch: pytest.MonkeyPatch, sts: tuple[str, type[Sts]]
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{sts[0]}/credentials")
    found = await AwsChain().credentials()
    assert (found.access_key_id, found.secret_access_key, found.session_token) == ("C1", SECRET, TOKEN)
    assert 3500 < (found.expiration or 0) - time.time() < 3700


def role(home: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    write(
        home,
        f"[base]\n{STATIC}",
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n",
    )


@pytest.mark.enable_socket
async def test_role_is_assumed(home: Path, monkeypatch: pytest.MonkeyPatch, sts: tuple[str, type[Sts]]) -> None:
    role(home, monkeypatch, sts[0])
    found = await AwsChain("role").credentials()
    assert (found.access_key_id, found.session_token) == ("ROLE", TOKEN)
    assert 3500 < (found.expiration or 0) - time.time() < 3700


@pytest.mark.enable_socket
async def test_role_that_is_denied_is_an_error_without_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch, sts: tuple[str, type[Sts]]
) -> None:
    sts[1].status = 403
    role(home, monkeypatch, sts[0])
    with pytest.raises(CredentialsError, match="AccessDenied") as caught:
        await AwsChain("role").credentials()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.enable_socket
async def test_slow_source_leaves_the_event_loop_free(
    home: Path, monkeypatch: pytest.MonkeyPatch, sts: tuple[str, type[Sts]]
) -> None:
    sts[1].go_on = threading.Event()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{sts[0]}/credentials")
    fetch = asyncio.create_task(AwsChain().credentials())
    for _ in range(10):  # a loop that is held up does not come here before the source gives up
        await asyncio.sleep(0.001)
    assert not fetch.done()
    sts[1].go_on.set()
    assert (await fetch).access_key_id == "C1"


async def test_rotated_file_is_read_when_the_service_calls_the_old_credentials_expired(home: Path) -> None:
    write(home, f"[default]\n{STATIC}aws_session_token = {TOKEN}\n")
    source = source_of(None, AwsChain(), VirtualClock())
    old = await source.get()
    write(home, f"[default]\n{STATIC.replace('FILE', 'ROTATED')}")
    assert await source.get() is old  # nothing says yet that it changed
    assert source.expired(old)
    assert await source.get() == Credentials("ROTATEDKEY", SECRET)


# The rest of the configuration


async def test_region_is_the_environments_or_the_profiles(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await AwsChain().setting()).region is None
    write(home, config="[default]\nregion = eu-north-1\n[profile two]\nregion = eu-west-2\n")
    assert (await AwsChain().setting()).region == "eu-north-1"
    assert (await AwsChain("two").setting()).region == "eu-west-2"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    assert (await AwsChain().setting()).region == "us-west-1"
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert (await AwsChain().setting()).region == "us-west-2"


async def test_fips_dual_stack_and_bundle_are_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = await AwsChain().setting()
    assert (plain.fips, plain.dual_stack, plain.ca_bundle) == (False, False, None)
    write(home, config="[default]\nuse_fips_endpoint = true\nuse_dualstack_endpoint = true\nca_bundle = /file.pem\n")
    setting = await AwsChain().setting()
    assert (setting.fips, setting.dual_stack, setting.ca_bundle) == (True, True, "/file.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/environment.pem")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "false")
    setting = await AwsChain().setting()
    assert (setting.fips, setting.dual_stack, setting.ca_bundle) == (False, True, "/environment.pem")


SERVICES = "[services local]\nkinesis =\n  endpoint_url = http://services:1\ndynamodb =\n  endpoint_url = http://no:1\n"
PLACES: dict[str, Any] = {
    "none": ({}, ""),
    "profile": ({}, "[default]\nendpoint_url = http://profile:1\n"),
    "services": ({}, f"[default]\nservices = local\nendpoint_url = http://profile:1\n{SERVICES}"),
    "services of another service": ({}, "[default]\nservices = s\n[services s]\nsqs =\n  endpoint_url = http://no:1\n"),
    "global variable": (
        {"AWS_ENDPOINT_URL": "http://global:1"},
        f"[default]\nservices = local\n{SERVICES}",
    ),
    "own variable": (
        {"AWS_ENDPOINT_URL": "http://global:1", "AWS_ENDPOINT_URL_KINESIS": "http://own:1"},
        f"[default]\nservices = local\n{SERVICES}",
    ),
    "another service's variable": ({"AWS_ENDPOINT_URL_DYNAMODB": "http://no:1"}, ""),
    "empty variables": (
        {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_KINESIS": ""},
        "[default]\nendpoint_url = http://p:1\n",
    ),
}


@pytest.mark.parametrize("place", PLACES)
async def test_configured_endpoint_is_botocores(place: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, config = PLACES[place]
    write(home, config=config)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    session = botocore.session.Session()
    theirs = ConfiguredEndpointProvider(
        session.full_config, session.get_scoped_config(), "kinesis", os.environ
    ).provide()
    assert (await AwsChain().setting()).endpoint_url == theirs


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("switch", ["variable", "profile"])
async def test_configured_endpoint_can_be_ignored(
    place: str, switch: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, config = PLACES[place]
    if switch == "variable":
        variables = {**variables, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
    else:
        config = config.replace("[default]", "[default]\nignore_configured_endpoint_urls = true") or (
            "[default]\nignore_configured_endpoint_urls = true"
        )
    write(home, config=config)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (await AwsChain().setting()).endpoint_url is None


async def test_services_section_that_is_not_there_is_an_error_as_in_botocore(home: Path) -> None:
    write(home, config="[default]\nservices = nowhere\nendpoint_url = http://profile:1\n")
    session = botocore.session.Session()
    with pytest.raises(InvalidConfigError):
        ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "kinesis", {}).provide()
    with pytest.raises(ConfigError, match=r"no section \[services nowhere\]"):
        await AwsChain().setting()


async def test_nothing_of_the_chain_reaches_a_log_of_ours(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(home, f"[default]\n{STATIC}aws_session_token = {TOKEN}\n")
    with caplog.at_level(logging.DEBUG):
        await source_of(None, AwsChain(), VirtualClock()).get()
    assert SECRET not in caplog.text
    assert TOKEN not in caplog.text

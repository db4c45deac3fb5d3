import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from kinstream import config
from kinstream.config import (
    BufferLimits,
    ConnectionOptions,
    Polling,
    PreferFanOut,
    RetryPolicy,
    Timeouts,
    WireFormat,
    choice,
    read_ca_bundle,
    text,
)
from kinstream.errors import ConfigError


@pytest.mark.parametrize(
    ("option", "field", "wrong", "allowed"),
    [
        (Timeouts, "progress", 0.01, "0.05 to 300 seconds"),
        (Timeouts, "progress", 301, "0.05 to 300 seconds"),
        (Timeouts, "progress", "6", "0.05 to 300 seconds"),
        (Timeouts, "progress", True, "0.05 to 300 seconds"),
        (Timeouts, "progress", float("nan"), "0.05 to 300 seconds"),
        (Timeouts, "call", None, "0.05 to 3600 seconds"),
        (Timeouts, "call", float("inf"), "0.05 to 3600 seconds"),
        (RetryPolicy, "max_attempts", 0, "1 to 100"),
        (RetryPolicy, "max_attempts", 101, "1 to 100"),
        (RetryPolicy, "max_attempts", 3.0, "1 to 100"),
        (RetryPolicy, "max_attempts", True, "1 to 100"),
        (RetryPolicy, "max_delay", -1, "0 to 300 seconds"),
        (ConnectionOptions, "max_idle", -1, "0 to 1000"),
        (ConnectionOptions, "idle_timeout", 0, "1 to 3600 seconds"),
    ],
)
def test_wrong_value_is_named_with_what_is_allowed(option: Any, field: str, wrong: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        option(**{field: wrong})
    assert f"{option.__name__}.{field}={wrong!r}" in caught.value.details
    assert allowed in caught.value.details


def options_that_cannot_be_off() -> Iterator[tuple[Any, str]]:
    """Yield each option class with each of its fields that has a default other than None."""
    for option in vars(config).values():
        if dataclasses.is_dataclass(option):
            yield from ((option, field.name) for field in dataclasses.fields(option) if field.default is not None)


@pytest.mark.parametrize(
    ("option", "field"), [pytest.param(o, f, id=f"{o.__name__}.{f}") for o, f in options_that_cannot_be_off()]
)
def test_none_is_refused_for_an_option_that_cannot_be_off(option: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        option(**{field: None})
    given, _, allowed = caught.value.details.partition(": must be ")
    assert given in (f"{option.__name__}.{field}=None", f"{option.__name__}.{field}")
    assert allowed
    assert "None" in caught.value.details


@pytest.mark.parametrize(
    "option",
    [
        config.BufferLimits(max_wait=None),
        config.DeliveryPolicy(max_age=None),
        config.EnhancedFanOut(consumer_name=None),
        ConnectionOptions(ca_bundle=None, proxy=None),
    ],
)
def test_none_is_the_default_of_an_option_that_can_be_off(option: Any) -> None:
    assert option == type(option)()


def test_large_limits_are_written_in_full() -> None:
    with pytest.raises(ConfigError, match=r"from 1024 to 1073741824$"):
        config.RateLimits(bytes_per_second=0)
    with pytest.raises(ConfigError, match=r"from 0\.05 to 31536000 seconds$"):
        config.DeliveryPolicy(max_age=0)


@pytest.mark.parametrize("option", [Timeouts(), RetryPolicy(), ConnectionOptions()])
def test_options_are_frozen_and_equal_by_value(option: Any) -> None:
    name = dataclasses.fields(option)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(option, name, 1)
    assert option == type(option)()
    assert hash(option) == hash(type(option)())


@pytest.mark.parametrize(
    "proxy", ["proxy:3128", "socks5://proxy:1080", "ftp://proxy", " http://proxy", 8080, b"http://p"]
)
def test_proxy_must_be_an_http_url(proxy: Any) -> None:
    with pytest.raises(ConfigError, match=r"ConnectionOptions\.proxy"):
        ConnectionOptions(proxy=proxy)


@pytest.mark.parametrize("value", ["no", "false", None, 2])
def test_switch_for_plain_http_must_be_a_bool(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"ConnectionOptions\.allow_http="):
        ConnectionOptions(allow_http=value)


def test_repr_has_no_password_of_a_proxy() -> None:
    assert "canary" not in repr(ConnectionOptions(proxy="http://user:canary@proxy:3128"))
    assert repr(ConnectionOptions()).startswith("ConnectionOptions(ca_bundle=None, ")
    assert "proxy=None" in repr(ConnectionOptions())


def test_bundle_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ConnectionOptions(ca_bundle=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match="ca_bundle='8080'"):
        ConnectionOptions(ca_bundle=8080)  # type: ignore[arg-type]
    for content in (b"", b"not a certificate", "zertifikät".encode()):
        (tmp_path / "odd.pem").write_bytes(content)
        with pytest.raises(ConfigError, match="must be a readable PEM file of certificates") as caught:
            ConnectionOptions(ca_bundle=str(tmp_path / "odd.pem"))
        assert "odd.pem" in caught.value.details


def test_bundle_is_read_whole(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert read_ca_bundle("ConnectionOptions.ca_bundle", tmp_path / "ca.pem") == authority.cert_pem.bytes()


@pytest.mark.parametrize("value", ["", None, 1, b"x"])
def test_text_is_refused_without_being_shown(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"secret: must be a string of at least one character"):
        text("secret", value)


@pytest.mark.parametrize("value", ["JSON", "xml", None, 1, [], {}])
def test_choice_lists_what_is_allowed(value: Any) -> None:
    with pytest.raises(ConfigError, match="must be one of json, cbor"):
        choice("wire", value, WireFormat)


def test_choice_takes_the_name_or_the_member() -> None:
    assert choice("wire", "cbor", WireFormat) is WireFormat.CBOR
    assert choice("wire", WireFormat.JSON, WireFormat) is WireFormat.JSON


def test_wait_for_buffer_space_may_be_bounded() -> None:
    assert BufferLimits(max_wait=1.5).max_wait == 1.5
    with pytest.raises(ConfigError, match=r"BufferLimits.max_wait=-1: must be a number from 0 to 86400 seconds"):
        BufferLimits(max_wait=-1)


def test_ways_to_fetch_are_those_of_the_two_options() -> None:
    assert PreferFanOut(polling=Polling(idle_interval=2)).polling.idle_interval == 2

from typing import Any

import pytest

from kinstream.aws.endpoint import Stream, check_endpoint_url, check_region, host_header, is_loopback
from kinstream.errors import ConfigError

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"


def test_name_is_a_stream_in_the_clients_region() -> None:
    stream = Stream.parse("orders.v2_1-eu")
    assert stream.parameter == {"StreamName": "orders.v2_1-eu"}
    assert (stream.region, stream.account) == (None, None)


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-eusc"])
def test_arn_has_region_and_account(partition: str) -> None:
    arn = ARN.replace("arn:aws:", f"arn:{partition}:")
    stream = Stream.parse(arn)
    assert stream == Stream("orders", arn, "eu-west-1", "123456789012")
    assert stream.parameter == {"StreamARN": arn}


@pytest.mark.parametrize(
    "stream",
    [
        "",
        "a b",
        "a" * 129,
        "orders\n",
        "orders/1",
        "zürich",
        f"{ARN}/consumer/c:1",
        f"{ARN}\n",
        ARN.replace("kinesis", "dynamodb"),
        ARN.replace("123456789012", "12345678901"),
        ARN.replace("123456789012", "1234567890\u0661\u0662"),
        ARN.replace("eu-west-1", "evil.example.com"),
        ARN.replace("eu-west-1", ""),
        ARN.replace("arn:aws:", "arn:evil:"),
        None,
        1,
        b"orders",
        ["orders"],
    ],
)
def test_other_values_are_not_a_stream(stream: Any) -> None:
    with pytest.raises(ConfigError, match=r"^stream="):
        Stream.parse(stream)


@pytest.mark.parametrize("region", ["us-east-1", "eusc-de-east-1", "local", "a", "a" * 63])
def test_region_is_a_label_of_a_host_name(region: str) -> None:
    assert check_region(region) == region


@pytest.mark.parametrize(
    "region", ["", "-a", "a-", "a.b", "a/b", "US-EAST-1", "a" * 64, "us-east-1\n", "é", None, 1, b"a"]
)
def test_other_values_are_not_a_region(region: Any) -> None:
    with pytest.raises(ConfigError, match=r"^region="):
        check_region(region)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://kinesis.example.com", "https://kinesis.example.com"),
        ("https://kinesis.example.com/", "https://kinesis.example.com"),
        ("https://kinesis.example.com:8443", "https://kinesis.example.com:8443"),
        ("HTTPS://Kinesis.Example.com", "HTTPS://Kinesis.Example.com"),
        ("http://localhost:4567", "http://localhost:4567"),
        ("http://kinesis.localhost:4567", "http://kinesis.localhost:4567"),
        ("http://127.0.0.1:4567", "http://127.0.0.1:4567"),
        ("http://127.1.2.3:4567", "http://127.1.2.3:4567"),
        ("http://[::1]:4567", "http://[::1]:4567"),
    ],
)
def test_endpoint_is_a_scheme_a_host_and_a_port(url: str, kept: str) -> None:
    assert check_endpoint_url("endpoint_url", url, allow_http=False) == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kinesis",
        "localhost:4567",
        "ftp://host",
        "https://",
        "https://:443",
        "https://host/path",
        "https://host?a=b",
        "https://host#a",
        *[f"https://host{end}" for end in ("?", "/?", "#", "/#", "?#", "/?#", "//", "/?/", " ", "\t", "?\n")],
        " https://host",
        "\thttps://host",
        "https://ho\nst",
        "https://host:99999",
        "https://host:port",
        "https://[::1",
        "https://ho st",
        "https://ho\tst",
        "https://host\\evil",
        "https://h\u00f6st",
        "https://host%2f",
        "https://host\nX: y",
        "//host",
        None,
        1,
        b"https://host",
    ],
)
def test_other_values_are_not_an_endpoint(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"^endpoint_url="):
        check_endpoint_url("endpoint_url", url, allow_http=True)


@pytest.mark.parametrize(
    "url",
    ["https://user@host", "https://user:canary@host", "https://:canary@host", "https://@host", "https://host\\@evil"],
)
def test_endpoint_with_a_user_is_refused_unshown(url: str) -> None:
    with pytest.raises(ConfigError, match="must not contain a user name or a password") as caught:
        check_endpoint_url("endpoint_url", url, allow_http=True)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://kinesis.example.com",
        "http://10.0.0.1:4567",
        "http://0.0.0.0:1",
        "http://127.0.0.1.example.com",
        "http://[::2]",
    ],
)
def test_plain_http_to_another_machine_must_be_allowed(url: str) -> None:
    with pytest.raises(ConfigError, match="allow_http=True"):
        check_endpoint_url("endpoint_url", url, allow_http=False)
    assert check_endpoint_url("endpoint_url", url, allow_http=True) == url


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://kinesis.us-east-1.amazonaws.com", "kinesis.us-east-1.amazonaws.com"),
        ("https://host:443", "host"),
        ("http://host:80", "host"),
        ("http://host:443", "host:443"),
        ("http://127.0.0.1:4567", "127.0.0.1:4567"),
        ("http://[::1]:4567", "[::1]:4567"),
        ("https://[::1]", "[::1]"),
        ("https://Kinesis.Example.com", "kinesis.example.com"),
    ],
)
def test_host_header_has_the_port_unless_it_is_the_schemes_own(url: str, host: str) -> None:
    assert host_header(url) == host


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.255.0.1", "::1"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.example.com", "notlocalhost", "128.0.0.1", "::2", "0.0.0.0", "10.0.0.1"]
)
def test_other_hosts_are_not(host: str) -> None:
    assert not is_loopback(host)

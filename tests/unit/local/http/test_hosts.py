"""Host headers: which are ours."""

from __future__ import annotations

import pytest

from kinstream.local.http.hosts import Hosts


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:1", "a.localhost", "127.9.9.9", "[::1]", "[::1]:80", "kinesis:80"]
)
@pytest.mark.parametrize("remote", [False, True])
def test_names_of_this_machine_are_accepted(host: str, remote: bool) -> None:
    assert Hosts("127.0.0.1", remote=remote, names=["kinesis"]).accepts(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":",
        ":80",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
        "notlocalhost",
        "kinesis.x",
        "a@localhost",
        "[",
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_other_names_are_refused(host: str, remote: bool) -> None:
    assert not Hosts("127.0.0.1", remote=remote, names=["kinesis"]).accepts(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80"])
def test_addresses_are_accepted_if_remote_clients_are_allowed(host: str) -> None:
    assert not Hosts("127.0.0.1", remote=False, names=[]).accepts(host)
    assert Hosts("0.0.0.0", remote=True, names=[]).accepts(host)


@pytest.mark.parametrize(
    ("host", "url_host"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
    ],
)
def test_url_has_an_address_of_the_server(host: str, url_host: str) -> None:
    assert Hosts(host, remote=True, names=[]).url_host == url_host

"""Clients that may call the server, and accepted host names."""

from __future__ import annotations

import socket

import pytest
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.errors import ConfigError
from kinstream.local import Server


def status(server: Server, host: str) -> int:
    raw = Raw(Endpoint("hosts", server.url))
    return raw.send(raw.sign("ListStreams", b"{}", extra={"Host": host}), b"{}")[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "10.0.0.1"])
def test_address_reachable_by_other_machines_must_be_allowed(host: str) -> None:
    with pytest.raises(ConfigError, match="allow_remote"):
        Server(host=host)


@pytest.mark.parametrize("host", ["example.com", "kinesis", "127.0.0.1:80", "[::1]", "*"])
def test_host_that_is_not_an_address_is_refused(host: str) -> None:
    for allowed in (False, True):
        with pytest.raises(ConfigError, match="host="):
            Server(host=host, allow_remote=allowed)


def test_remote_server_accepts_addresses_its_machine_and_configured_names() -> None:
    with Server(host="0.0.0.0", allow_remote=True, host_names=["kinesis", "Kinesis.Test"], quotas=False) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        for host in ("kinesis", "KINESIS:4567", "kinesis.test", "192.0.2.7:80", "[2001:db8::1]:4567", "localhost"):
            assert status(server, host) == 200, host
        assert status(server, socket.gethostname()) == 200
        for host in ("example.com", "kinesis.example.com", "evil-kinesis", "192.0.2.7.example.com", ""):
            assert status(server, host) == 403, host


def test_loopback_server_accepts_configured_names() -> None:
    with Server(host_names=["kinesis"], quotas=False) as server:
        assert status(server, "kinesis:80") == 200
        for host in ("example.com", "192.0.2.7", "10.0.0.1:80"):
            assert status(server, host) == 403, host


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_server_listens_on_ipv6() -> None:
    with Server(host="::1", tls_port=0) as server:
        assert server.url == f"http://[::1]:{server.port}"
        client = Endpoint("six", str(server.tls_url)).boto3(verify=str(server.ca_file))
        assert client.list_streams()["StreamNames"] == []


@pytest.mark.parametrize("names", ["kinesis", ["a b"], [""], ["-a"], ["a" * 64], ["http://a"], [5]])
def test_invalid_host_name_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="host_names"):
        Server(host_names=names)

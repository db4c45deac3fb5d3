"""The certificate: created at the first start, stored with the data, readable by its owner only, renewed before it expires."""

from __future__ import annotations

import socket
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from tests.contract.servers.reach import Endpoint

from kinstream.errors import ConfigError
from kinstream.local import Server
from kinstream.local.http.certificate import RENEWED, VALID, Certificate

DAY = 86400.0


def leaf(server: Server, name: str = "localhost") -> bytes:
    """Return the certificate that a server shows, as a client sees it that checks everything."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", server.tls_port or 0), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
        assert shown
        return shown


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_certificate_is_for_this_machine(name: str) -> None:
    with Server(tls_port=0) as server:
        leaf(server, name)
        with pytest.raises(ssl.SSLCertVerificationError):
            leaf(server, "example.com")


def test_certificate_has_the_configured_names() -> None:
    with Server(host="127.0.0.2", tls_port=0, host_names=["kinesis"]) as server:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        for name in ("kinesis", "127.0.0.2"):
            with (
                socket.create_connection(("127.0.0.2", server.tls_port or 0), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=name),
            ):
                pass


def test_certificate_is_stored_with_the_data(tmp_path: Path) -> None:
    shown = set()
    for _ in range(2):
        with Server(tls_port=0, data_dir=tmp_path) as server:
            shown.add(leaf(server))
            assert server.ca_file == tmp_path / "tls" / "ca.pem"
    assert len(shown) == 1
    assert (tmp_path / "tls" / "ca.pem").exists()


def test_certificate_without_a_data_folder_is_deleted_with_the_server() -> None:
    server = Server(tls_port=0)
    with server:
        file = Path(str(server.ca_file))
        assert file.exists()
    assert not file.parent.exists()
    assert server.ca_file is None


def test_key_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with Server(tls_port=0, data_dir=tmp_path):
        assert stat.S_IMODE((tmp_path / "tls" / "server.pem").stat().st_mode) == 0o600
    with Server(tls_port=0) as server:
        assert server.ca_file
        assert stat.S_IMODE(server.ca_file.parent.stat().st_mode) == 0o700


def test_key_of_the_authority_is_not_stored(tmp_path: Path) -> None:
    Certificate(tmp_path, [], 0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "server.pem"]
    assert b"PRIVATE" not in (tmp_path / "ca.pem").read_bytes()
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    assert certificate.public_key() != authority.public_key()


def read(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "ca.pem").read_bytes(), (folder / "server.pem").read_bytes()


def test_certificate_is_renewed_before_it_expires(tmp_path: Path) -> None:
    Certificate(tmp_path, [], 0.0)
    first = read(tmp_path)
    last = (VALID - RENEWED).total_seconds() - 2 * DAY
    Certificate(tmp_path, [], last)
    assert read(tmp_path) == first
    Certificate(tmp_path, [], last + 2 * DAY)
    second = read(tmp_path)
    assert set(second).isdisjoint(first)
    Certificate(tmp_path, [], 1e9)
    assert set(read(tmp_path)).isdisjoint(second)


def test_certificate_from_the_future_is_replaced(tmp_path: Path) -> None:
    Certificate(tmp_path, [], 1e9)
    first = read(tmp_path)
    Certificate(tmp_path, [], 1e8)
    assert set(read(tmp_path)).isdisjoint(first)


def test_certificate_that_lacks_a_name_is_replaced(tmp_path: Path) -> None:
    Certificate(tmp_path, ["kinesis"], 0.0)
    first = read(tmp_path)
    Certificate(tmp_path, [], 0.0)
    assert read(tmp_path) == first
    Certificate(tmp_path, ["kinesis", "192.0.2.1"], 0.0)
    assert read(tmp_path) != first


@pytest.mark.parametrize("damage", ["ca.pem", "server.pem", "swapped", "readable", "key", "gone"])
def test_files_that_do_not_match_are_replaced(tmp_path: Path, damage: str) -> None:
    Certificate(tmp_path, [], 0.0)
    other = tmp_path / "other"
    Certificate(other, [], 0.0)
    server = tmp_path / "server.pem"
    if damage == "swapped":
        (other / "server.pem").replace(server)
    elif damage == "readable":
        server.chmod(0o644)
    elif damage == "key":
        certificate, key = (
            server.read_bytes().split(b"-----BEGIN PRIVATE")[0],
            read(other)[1].split(b"-----BEGIN PRIVATE")[1],
        )
        server.write_bytes(certificate + b"-----BEGIN PRIVATE" + key)
    elif damage == "gone":
        (tmp_path / "ca.pem").unlink()
    else:
        (tmp_path / damage).write_bytes(b"nonsense")
    before = server.read_bytes()
    Certificate(tmp_path, [], 0.0).context()
    assert server.read_bytes() != before
    assert stat.S_IMODE(server.stat().st_mode) == 0o600


def test_unusable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    with pytest.raises(ConfigError, match="certificate"):
        Server(tls_port=0, data_dir=tmp_path).start()


def test_old_tls_versions_are_refused(tmp_path: Path) -> None:
    assert Certificate(tmp_path, [], 0.0).context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_server_without_tls_has_no_certificate(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path) as server:
        assert (server.tls_url, server.tls_port, server.ca_file) == (None, None, None)
    assert not (tmp_path / "tls").exists()


def test_tls_port_in_use_is_reported_and_leaves_no_socket_open() -> None:
    with Server(tls_port=0) as server:
        with pytest.raises(ConfigError, match=rf"tls_port={server.tls_port}: cannot listen"):
            Server(tls_port=server.tls_port).start()
        for wrong in (-1, 65536, "1"):
            with pytest.raises(ConfigError, match="tls_port"):
                Server(tls_port=wrong)  # type: ignore[arg-type]


def test_server_with_tls_restarts(tmp_path: Path) -> None:
    server = Server(tls_port=0, data_dir=tmp_path)
    for _ in range(3):
        with server:
            client = Endpoint("tls", str(server.tls_url)).boto3(verify=str(server.ca_file))
            assert client.list_streams()["StreamNames"] == []

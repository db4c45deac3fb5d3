"""TLS certificate of the local server: self-issued for the names of this machine, and renewed before it expires.

A new certificate authority signs one certificate, and its private key is then discarded. A client that trusts `ca.pem`
therefore trusts this one certificate only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kinstream.errors import ConfigError

NAMES = ("localhost", "127.0.0.1", "::1")
"""Names and addresses in every certificate."""

VALID = timedelta(days=397)
"""Validity of a certificate: the maximum that clients accept (CA/Browser Forum, baseline requirements)."""

RENEWED = timedelta(days=30)
"""Remaining validity below which a certificate is renewed at the next start."""

ALPN = ("h2", "http/1.1")

_AHEAD = timedelta(days=1)
"""Time by which the validity begins in the past, for clients whose clock is slow."""


class Certificate:
    """A certificate with its key in a folder, reused if it is valid or else created.

    Args:
        folder: Folder of `ca.pem`, for clients, and of `server.pem`, which contains the key and is readable by its owner only.
        names: Additional host names and addresses.
        now: Seconds since 1970, by the system clock, because clients validate a certificate with theirs.

    Raises:
        ConfigError: The folder is not writable.
    """

    def __init__(self, folder: Path, names: Collection[str], now: float) -> None:
        folder = folder.absolute()  # clients have other working directories
        self.ca_file: Path = folder / "ca.pem"
        self._server_file = folder / "server.pem"
        wanted = sorted({*NAMES, *names})
        moment = datetime.fromtimestamp(now, UTC)
        try:
            if not self._is_valid(wanted, moment):
                folder.mkdir(parents=True, exist_ok=True)
                self._create(wanted, moment)
        except OSError as error:
            raise ConfigError(f"data_dir: cannot store a certificate in {folder}: {error.strerror}") from error

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings of a listening socket: TLS 1.2 or later, and HTTP/2 for clients that support it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(ALPN)
        context.load_cert_chain(self._server_file)
        return context

    def _is_valid(self, names: list[str], now: datetime) -> bool:
        """Return True if the files match each other, the names and the time. Unreadable files are not valid either."""
        try:
            ca = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            pem = self._server_file.read_bytes()
            leaf = x509.load_pem_x509_certificate(pem)
            key = load_pem_private_key(pem, None)
            leaf.verify_directly_issued_by(ca)
            covered = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return (
            key.public_key() == leaf.public_key()
            and set(_general(names)) <= set(covered)
            and all(c.not_valid_before_utc <= now < c.not_valid_after_utc - RENEWED for c in (ca, leaf))
            and (sys.platform == "win32" or self._server_file.stat().st_mode & 0o077 == 0)
        )

    def _create(self, names: list[str], now: datetime) -> None:
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = _name("kinstream local authority")
        ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        ca = (
            _dated(now)
            .subject_name(ca_name)
            .issuer_name(ca_name)
            .public_key(ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(ca_id, critical=False)
            .sign(ca_key, SHA256())
        )
        leaf = (
            _dated(now)
            .subject_name(_name("kinstream local"))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName(_general(names)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False)
            .sign(ca_key, SHA256())
        )
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(self.ca_file, ca.public_bytes(Encoding.PEM), 0o644)
        _write(self._server_file, leaf.public_bytes(Encoding.PEM) + secret, 0o600)


def _dated(now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _AHEAD)
        .not_valid_after(now - _AHEAD + VALID)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general(names: Collection[str]) -> list[x509.GeneralName]:
    """Return names and addresses as X.509 general names."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file atomically, so that no process sees a partial file or a key with wrong permissions."""
    new_file = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        new_file.unlink()
    with open(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123, created with its mode
        file.write(content)
    new_file.replace(path)

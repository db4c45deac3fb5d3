"""The TLS certificate of a local Kinesis: made by ourselves, for this machine's names, and renewed before it expires.

An authority is made, signs one certificate and is forgotten: its key is never written down, so whoever trusts `ca.pem`
trusts this one certificate and nothing else.
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
"""What every certificate is for."""

VALID = timedelta(days=397)
"""How long a certificate is good: no longer than clients take one for (CA/Browser Forum, baseline requirements)."""

RENEWED = timedelta(days=30)
"""A certificate that has less left than this is made anew at the next start."""

ALPN = ("h2", "http/1.1")

_AHEAD = timedelta(days=1)
"""So long ago it became valid, for clients whose clock is slow."""


class Certificate:
    """A certificate with its key, in a folder: read if it is there and still good, else made.

    Args:
        folder: Where `ca.pem`, for clients, and `server.pem`, with the key and for its owner alone, are kept.
        names: Further host names and addresses that it must be for.
        now: Seconds since 1970. Clients hold a certificate against their own time, so it is the machine's.

    Raises:
        ConfigError: The folder cannot be used.
    """

    def __init__(self, folder: Path, names: Collection[str], now: float) -> None:
        folder = folder.absolute()  # clients have other working directories
        self.ca_file: Path = folder / "ca.pem"
        self._server_file = folder / "server.pem"
        wanted = sorted({*NAMES, *names})
        moment = datetime.fromtimestamp(now, UTC)
        try:
            if not self._good(wanted, moment):
                folder.mkdir(parents=True, exist_ok=True)
                self._make(wanted, moment)
        except OSError as error:
            raise ConfigError(f"data: cannot keep a certificate in {folder}: {error.strerror}") from error

    def context(self) -> ssl.SSLContext:
        """Return what a listening socket needs: TLS 1.2 or later, HTTP/2 for clients that can."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(ALPN)
        context.load_cert_chain(self._server_file)
        return context

    def _good(self, names: list[str], now: datetime) -> bool:
        """Return whether the files fit each other, the names and the time. Whatever else they are, they are not good."""
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

    def _make(self, names: list[str], now: datetime) -> None:
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
    """Return names and addresses as a certificate has them."""
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
    """Put a whole file in the place of an old one: nobody sees half of it, or a key that others may read."""
    fresh = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123, born with its mode
        file.write(content)
    fresh.replace(path)

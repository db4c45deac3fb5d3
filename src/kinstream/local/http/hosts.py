"""The address to listen on, and the accepted Host headers."""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Iterable

from kinstream.config import text
from kinstream.errors import ConfigError

_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*", re.ASCII)


class Hosts:
    """The listen address of a server, and the names by which clients may address it.

    A web page can resolve its own name to this machine ("DNS rebinding"), and its requests then come from a browser on this
    machine. Their Host header has the name of the page, so only known names are accepted. If other machines may connect, every
    IP address is accepted too, because DNS rebinding requires a name.

    Args:
        host: Address to listen on, or "localhost".
        remote: True to allow other than loopback addresses.
        names: Additional names to accept.

    Raises:
        ConfigError: `host` is not a valid address, or not a loopback address without `remote`, or a name is invalid.
    """

    def __init__(self, host: str, *, remote: bool, names: Iterable[str]) -> None:
        self.address: str = _address(text("host", host), remote=remote)
        if isinstance(names, str) or not isinstance(names, Iterable):
            given = "a string" if isinstance(names, str) else type(names).__name__
            raise ConfigError(f"host_names: must be a list of names, not {given}")
        self.names: frozenset[str] = frozenset(_name(name) for name in names)
        self._remote = remote
        self._accepted_names = self.names | ({socket.gethostname().lower()} if remote else set())

    @property
    def url_host(self) -> str:
        """Return the host of the server's URL, for clients on this machine."""
        if self.address == "0.0.0.0":  # noqa: S104, this only compares
            return "127.0.0.1"
        if self.address == "::":
            return "[::1]"
        return f"[{self.address}]" if ":" in self.address else self.address

    def bind(self, field: str, port: int) -> socket.socket:
        """Return a listening socket.

        Raises:
            ConfigError: The port cannot be used. The message names `field`.
        """
        # asyncio disables Nagle's algorithm only if the protocol is given. Otherwise each response is delayed by 40 ms.
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if sys.platform != "win32":  # on Windows it would allow a second server on the same port
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.address, port))
            bound.listen(256)
        except OSError as error:
            bound.close()
            raise ConfigError(f"{field}={port}: cannot listen on {self.address}: {error.strerror}") from error
        return bound

    def accepts(self, header: str) -> bool:
        """Return True if a Host header is accepted."""
        name, _, port = header.rpartition(":")
        name = (name if port.isdecimal() else header).strip("[]").lower()
        if name == "localhost" or name.endswith(".localhost") or name in self._accepted_names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._remote


def _address(host: str, *, remote: bool) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"host={host!r}: must be an IP address or localhost") from None
    if not (address.is_loopback or remote):
        raise ConfigError(
            f"host={host!r}: must be a loopback address unless allow_remote is set. Any client that can reach the port and "
            "has the keys would have full access"
        )
    return str(address)


def _name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name.lower()):
        raise ConfigError(f"host_names: {name!r} is not a valid host name")
    return name.lower()

"""Hosts: the address to listen on, and the Host headers that are let in."""

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
    """By which names a server is called.

    A web page can let its own name lead to this machine ("DNS rebinding"), and its requests then come from the reader's own
    browser; but their Host header has the page's name. So a name is let in only if it is known. On a server that others may
    reach every address is let in too: no page can have one that is not its own.

    Args:
        host: The address to listen on, or "localhost".
        remote: Whether it may be another than a loopback address.
        names: Further names that are let in.

    Raises:
        ConfigError: `host` is no address, or not this machine's alone; or a name is none.
    """

    def __init__(self, host: str, *, remote: bool, names: Iterable[str]) -> None:
        self.address: str = _address(text("host", host), remote=remote)
        if isinstance(names, str):
            raise ConfigError("host_names: must be a list of names, not text")
        self.names: frozenset[str] = frozenset(_name(name) for name in names)
        self._remote = remote
        self._known = self.names | ({socket.gethostname().lower()} if remote else set())

    @property
    def reached_at(self) -> str:
        """Return the host of the server's URL, for clients on this machine."""
        if self.address == "0.0.0.0":  # noqa: S104, it is told apart
            return "127.0.0.1"
        if self.address == "::":
            return "[::1]"
        return f"[{self.address}]" if ":" in self.address else self.address

    def bind(self, field: str, port: int) -> socket.socket:
        """Return a listening socket.

        Raises:
            ConfigError: The port cannot be used; the message names `field`.
        """
        # asyncio switches Nagle's delay off only where the protocol is named: without it each answer waits 40 ms.
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if sys.platform != "win32":  # there, it lets a second server take the port over
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.address, port))
            bound.listen(256)
        except OSError as error:
            bound.close()
            raise ConfigError(f"{field}={port}: cannot listen on {self.address}: {error.strerror}") from error
        return bound

    def lets_in(self, header: str) -> bool:
        """Return whether a Host header is one of ours."""
        name, _, port = header.rpartition(":")
        name = (name if port.isdecimal() else header).strip("[]").lower()
        if name == "localhost" or name.endswith(".localhost") or name in self._known:
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
            f"host={host!r}: must be a loopback address, or allow_remote must be set: anybody who reaches the port and "
            "knows the keys could use the server"
        )
    return str(address)


def _name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name.lower()):
        raise ConfigError(f"host_names: {name!r} is no host name")
    return name.lower()

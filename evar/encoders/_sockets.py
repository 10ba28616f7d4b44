"""A guard that refuses network sockets while an encoder is checked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def watch_sockets() -> Iterator[list[str]]:
    """Refuse every network socket inside a `with` block, and list the attempts; local (unix) sockets stay allowed.

    Example:
        >>> with watch_sockets() as opened:
        ...     try:
        ...         socket.socket()
        ...     except OSError:
        ...         print(opened)
        ['a network socket']
    """
    opened: list[str] = []
    real_socket, real_lookup = socket.socket, socket.getaddrinfo
    local = getattr(socket, "AF_UNIX", None)

    class Refused(real_socket):  # type: ignore[valid-type, misc]
        def __new__(cls, family: int = -1, *args: Any, **kwargs: Any) -> Any:
            if local is not None and family == local:
                return real_socket(family, *args, **kwargs)
            opened.append("a network socket")
            raise OSError("an encoder must not open a network socket")

    def refuse_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(f"host {host!r}")
        raise OSError(f"an encoder must not look up a host, got {host!r}")

    socket.socket, socket.getaddrinfo = Refused, refuse_lookup  # type: ignore[misc]
    try:
        yield opened
    finally:
        socket.socket, socket.getaddrinfo = real_socket, real_lookup  # type: ignore[misc]

"""Run a module with its network closed: ``python closed_network.py RECORD MODULE ARGUMENTS``.

Every attempt to reach something beyond this machine's own sockets fails, and its place is written to the file RECORD, so that an
attempt is caught too whose error a library swallows.
"""

from __future__ import annotations

import runpy
import socket
import sys
import traceback
from typing import Any, NoReturn

_NETWORK = (socket.AF_INET, socket.AF_INET6)


def close_network(record: str) -> None:
    """Let every connection and every look-up of a name fail, and write it down."""

    def fail(what: str) -> NoReturn:
        with open(record, "a", encoding="utf-8") as stream:
            stream.write(f"=== {what}\n" + "".join(traceback.format_stack(limit=60)[:-2]))
        raise OSError(f"the network is closed: {what}")

    def guarded(name: str) -> Any:
        original = getattr(socket.socket, name)

        def stand_in(self: socket.socket, *arguments: Any) -> Any:
            return fail(f"{name} {arguments[-1:]}") if self.family in _NETWORK else original(self, *arguments)

        return stand_in

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        setattr(socket.socket, name, guarded(name))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
        setattr(socket, name, lambda *arguments, _name=name, **_: fail(f"{_name} {arguments}"))


if __name__ == "__main__":
    close_network(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

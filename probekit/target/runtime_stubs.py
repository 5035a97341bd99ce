"""Finds the gdb stubs that QEMU's monitor has opened since QEMU was started (``gdbserver tcp::1234``).

Its command line does not name them. The sockets that a QEMU process listens on, and that its command line does not
name, are candidates. Nothing is sent to them, because one may just as well be a serial port of the guest. QEMU itself
knows: in ``query-chardev`` a stub has the label ``gdb`` (``gdbserver_start()`` in QEMU's gdbstub).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from probekit.errors import ProbekitError

__all__ = ("ask_for_stub", "listening", "unnamed")

_TIMEOUT_S: Final = 1.0  # a QMP socket serves one client: another one may have it
_FIRST_VNC_PORT: Final = 5900
_DISPLAY: Final = re.compile(r":([0-9]{1,4})(?:,|$)")
_FILENAME: Final = re.compile(r"(?:disconnected:)?(unix|tcp|telnet):([^,]+)")
_LABEL: Final = "gdb"


def listening(process: psutil.Process) -> frozenset[str]:
    """Return the addresses that a process listens on: ``tcp:PORT``, ``unix:PATH``; none when they cannot be seen."""
    try:
        connections: Sequence[Any] = process.net_connections(kind="all")
    except psutil.Error:
        return frozenset()
    found: set[str] = set()
    for one in connections:
        if one.status == psutil.CONN_LISTEN:
            found.add(f"tcp:{one.laddr.port}")
        elif isinstance(one.laddr, str) and one.laddr.startswith("/"):
            found.add(f"unix:{one.laddr}")
    return frozenset(found)


def unnamed(addresses: Iterable[str], argv: Sequence[str]) -> frozenset[str]:
    """Return the addresses that a QEMU command line does not name. VNC displays are named by port minus 5900."""
    text = "\n".join(argv).replace(",,", ",")
    numbers = {int(number) for number in re.findall(r"[0-9]{1,5}", text)}
    displays = {_FIRST_VNC_PORT + int(number) for word in argv for number in _DISPLAY.findall(word)}

    def named(address: str) -> bool:
        kind, _, rest = address.partition(":")
        return Path(rest).name in text if kind == "unix" else int(rest) in numbers | displays

    return frozenset(address for address in addresses if not named(address))


def ask_for_stub(qmp: Iterable[str]) -> str | None:
    """Ask a QEMU by its QMP sockets where its gdb stub listens. Returns None when it has none, or does not answer."""
    for path in qmp:
        try:
            from probekit.target.qmp import Qmp  # slow to import: asyncio

            with Qmp(path, timeout=_TIMEOUT_S) as connection:
                return stub_address(connection.execute("query-chardev"))
        except ProbekitError:
            continue
    return None


def stub_address(chardevs: Any) -> str | None:
    """Return ``tcp:PORT`` or ``unix:PATH`` of the stub in an answer to ``query-chardev``; None when it has none."""
    for one in chardevs if isinstance(chardevs, list) else []:
        if not isinstance(one, dict) or one.get("label") != _LABEL:
            continue
        match = _FILENAME.match(str(one.get("filename", "")))
        if match is None:
            return None
        if match[1] == "unix":
            return f"unix:{match[2]}"
        port = match[2].rpartition(":")[2]
        return f"tcp:{port}" if port.isdecimal() else None
    return None

"""Set breakpoints and watchpoints through gdb, and keep account of them."""

from __future__ import annotations

from typing import Final, assert_never

from probekit.errors import UnsupportedError
from probekit.target.api import BreakKind
from probekit.target.gdb_process import GdbProcess, Record

__all__ = ("GdbBreakpoints",)

# The member of a stop record that names a watchpoint, by the stop's reason.
_WATCH_RECORDS: Final = {
    "watchpoint-trigger": "wpt",
    "read-watchpoint-trigger": "hw-rwpt",
    "access-watchpoint-trigger": "hw-awpt",
}
_C_TYPES: Final = {1: "char", 2: "short", 4: "int", 8: "long"}


class GdbBreakpoints:
    """The breakpoints that are set in one gdb."""

    def __init__(self, gdb: GdbProcess) -> None:
        self._gdb = gdb
        # gdb's number of each, by kind, address and size.
        self._numbers: dict[tuple[BreakKind, int, int], str] = {}

    def set(self, addr: int, kind: BreakKind, size: int) -> None:
        """Set one; nothing happens when it is set. Raises :class:`UnsupportedError`, :class:`TargetError`."""
        key = (kind, addr, size)
        if key in self._numbers:
            return
        match kind:
            case "software":
                answer = self._gdb.command(f"-break-insert *{addr:#x}")["bkpt"]
            case "hardware":
                answer = self._gdb.command(f"-break-insert -h *{addr:#x}")["bkpt"]
            case "watch_write" | "watch_read" | "watch_access":
                if size not in _C_TYPES:
                    raise UnsupportedError(f"no watchpoint of {size} bytes", feature="watchpoint size")
                flag = {"watch_write": "", "watch_read": "-r ", "watch_access": "-a "}[kind]
                found = self._gdb.command(f'-break-watch {flag}"*(unsigned {_C_TYPES[size]} *) {addr:#x}"')
                answer = next(iter(found.values()))
            case _ as never:
                assert_never(never)
        self._numbers[key] = str(answer["number"])

    def clear(self, addr: int, kind: BreakKind, size: int) -> None:
        """Clear one; nothing happens when it is not set. Raises :class:`TargetError`."""
        number = self._numbers.get((kind, addr, size))
        if number is not None:
            self._gdb.command(f"-break-delete {number}")
            del self._numbers[(kind, addr, size)]

    def clear_all(self) -> None:
        """Clear every one. Raises :class:`TargetError`."""
        for kind, addr, size in list(self._numbers):
            self.clear(addr, kind, size)

    def is_watch(self, reason: str) -> bool:
        """Tell whether a stop's reason is a watchpoint."""
        return reason in _WATCH_RECORDS

    def watched_address(self, stop: Record) -> int | None:
        """Return the address of the watchpoint that made a stop, or None when it is not one of these."""
        number = str(stop.get(_WATCH_RECORDS[stop["reason"]], {}).get("number", ""))
        return next((addr for (_, addr, _), n in self._numbers.items() if n == number), None)

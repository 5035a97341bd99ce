"""The subroutines: one function for each, in a table by name.

A subroutine gets its arguments as registers hold them and the :class:`CallEnvironment` that
knows memory and state. What it cannot do is a :class:`SubroutineFault`, which aborts the clause.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from probekit.buffers.layout import FaultKind
from probekit.interp import jsontext, text
from probekit.interp.state import ProgramState, Value
from probekit.lang.arith import signed64
from probekit.records import record

__all__ = ("CallEnvironment", "SubroutineFault", "call")


class SubroutineFault(Exception):
    """The clause faults. ``value``: the word at fault."""

    def __init__(self, kind: FaultKind, value: int = 0) -> None:
        super().__init__(kind.name)
        self.kind = kind
        self.value = value


@record
class CallEnvironment:
    """``progenyof``: whether the process that fired the probe descends from another; ``speculation``: a free one.

    ``stack``: so many return addresses, 8 bytes each.
    """

    state: ProgramState
    progenyof: Callable[[int], bool]
    speculation: Callable[[], int]
    stack: Callable[[int], bytes]


_ADDRESSES = ("stack", "ustack", "jstack")


def call(name: str, args: list[Value], callee: CallEnvironment) -> Value:
    """The subroutine's value. Strings are cut to the size that strings have; addresses of callers are no text."""
    value = _CALLS[name](callee, *args)
    if isinstance(value, bytes) and name not in _ADDRESSES:
        return value.split(b"\0", 1)[0][: callee.state.program.string_size - 1]
    return signed64(value) if isinstance(value, int) else value


# Memory.


def _alloca(callee: CallEnvironment, size: int) -> int:
    return callee.state.memory.scratch(size)


def _bcopy(callee: CallEnvironment, source: int, target: int, size: int) -> int:
    memory = callee.state.memory
    if size < 0:
        raise SubroutineFault(FaultKind.BADADDR, source)
    data = memory.read(source, size)
    if size and not memory.in_scratch(target, size):
        raise SubroutineFault(FaultKind.BADADDR, target)
    memory.write(target, data)
    return 0


def _no_user(_callee: CallEnvironment, addr: int, *_rest: int) -> int:
    raise SubroutineFault(FaultKind.BADADDR, addr)


def _no_user_text(_callee: CallEnvironment, addr: int, *_rest: int) -> bytes:
    raise SubroutineFault(FaultKind.BADADDR, addr)


def _no_user_second(_callee: CallEnvironment, _first: int, addr: int, *_rest: int) -> int:
    raise SubroutineFault(FaultKind.BADADDR, addr)


# Strings.


def _charat(callee: CallEnvironment, string: bytes, index: int) -> int:
    if not 0 <= index < callee.state.program.string_size:
        raise SubroutineFault(FaultKind.BADADDR, index)
    byte = string[index] if index < len(string) else 0
    return byte - 256 if byte > 127 else byte


def _strchr(_callee: CallEnvironment, string: bytes, char: int) -> bytes:
    at = string.find(char & 0xFF) if char & 0xFF else -1
    return string[at:] if at >= 0 else b""


def _strrchr(_callee: CallEnvironment, string: bytes, char: int) -> bytes:
    at = string.rfind(char & 0xFF) if char & 0xFF else -1
    return string[at:] if at >= 0 else b""


def _strstr(_callee: CallEnvironment, string: bytes, part: bytes) -> bytes:
    at = string.find(part)
    return string[at:] if at >= 0 else b""


def _strtok(callee: CallEnvironment, *args: bytes) -> bytes:
    state = callee.state
    if len(args) == 1 and state.token is None:
        return b""
    string = args[0] if len(args) == 2 else state.token or b""
    found = text.strtok(string, args[-1])
    if found is None:
        state.token = None
        return b""
    token, state.token = found
    return token


def _base(base: int) -> int:
    if not 2 <= base <= 36:
        raise SubroutineFault(FaultKind.ILLOP)
    return base


def _lltostr(_callee: CallEnvironment, value: int, base: int = 10) -> bytes:
    return text.lltostr(value, _base(base))


def _strtoll(_callee: CallEnvironment, string: bytes, base: int = 10) -> int:
    return text.strtoll(string, _base(base))


# Network.


def _swap(size: int) -> Callable[[CallEnvironment, int], int]:
    def swapped(_callee: CallEnvironment, value: int) -> int:
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        return int.from_bytes(data, "big")

    return swapped


def _inet_ntoa(callee: CallEnvironment, addr: int) -> bytes:
    return ".".join(map(str, callee.state.memory.read(addr, 4))).encode()


def _inet_ntoa6(callee: CallEnvironment, addr: int) -> bytes:
    import socket  # slow to import, and hardly ever needed

    return socket.inet_ntop(socket.AF_INET6, callee.state.memory.read(addr, 16)).encode()


def _inet_ntop(callee: CallEnvironment, family: int, addr: int) -> bytes:
    match family:
        case 2:
            return _inet_ntoa(callee, addr)
        case 10 | 26:
            return _inet_ntoa6(callee, addr)
        case _:
            raise SubroutineFault(FaultKind.ILLOP)


_LINKS = {1: 6, 32: 20}
"""Hardware types to the bytes of their addresses: Ethernet, InfiniBand."""


def _link_ntop(callee: CallEnvironment, kind: int, addr: int) -> bytes:
    if kind not in _LINKS:
        raise SubroutineFault(FaultKind.ILLOP)
    return callee.state.memory.read(addr, _LINKS[kind]).hex(":").encode()


# The rest.


def _rand(_callee: CallEnvironment) -> int:
    return int.from_bytes(os.urandom(4), "little", signed=True)


_CALLS: dict[str, Callable[..., Any]] = {
    "alloca": _alloca,
    "basename": lambda _c, path: text.basename(path),
    "bcopy": _bcopy,
    "charat": _charat,
    "cleanpath": lambda _c, path: text.cleanpath(path),
    "copyin": _no_user,
    "copyinstr": _no_user_text,
    "copyinto": _no_user,
    "copyout": _no_user_second,
    "copyoutstr": _no_user_second,
    "d_path": _no_user_text,
    "dirname": lambda _c, path: text.dirname(path),
    "getmajor": lambda _c, dev: dev >> 20 & 0xFFF,
    "getminor": lambda _c, dev: dev & 0xFFFFF,
    "htonl": _swap(4),
    "htonll": _swap(8),
    "htons": _swap(2),
    "index": lambda _c, string, part, start=0: text.index(string, part, start),
    "inet_ntoa": _inet_ntoa,
    "inet_ntoa6": _inet_ntoa6,
    "inet_ntop": _inet_ntop,
    "json": lambda _c, string, path: jsontext.find(string, path),
    "jstack": lambda _c, _frames: b"",
    "link_ntop": _link_ntop,
    "lltostr": _lltostr,
    "mutex_owned": _no_user,
    "mutex_owner": _no_user,
    "mutex_type_adaptive": _no_user,
    "mutex_type_spin": _no_user,
    "ntohl": _swap(4),
    "ntohll": _swap(8),
    "ntohs": _swap(2),
    "pcap": _no_user,
    "progenyof": lambda callee, pid: int(callee.progenyof(pid)),
    "rand": _rand,
    "rindex": lambda _c, string, part, start=None: text.rindex(string, part, start),
    "rw_iswriter": _no_user,
    "rw_read_held": _no_user,
    "rw_write_held": _no_user,
    "speculation": lambda callee: callee.speculation(),
    "stack": lambda callee, frames: callee.stack(frames),
    "strchr": _strchr,
    "strjoin": lambda _c, a, b: a + b,
    "strlen": lambda _c, string: len(string),
    "strrchr": _strrchr,
    "strstr": _strstr,
    "strtok": _strtok,
    "strtoll": _strtoll,
    "substr": lambda _c, string, start, length=None: text.substr(string, start, length),
    "tolower": lambda _c, string: string.lower(),
    "toupper": lambda _c, string: string.upper(),
    "ustack": lambda _c, _frames: b"",
}

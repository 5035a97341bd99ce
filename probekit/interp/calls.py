"""Call subroutines: one function for each, in a table by name.

A subroutine gets its arguments as registers hold them, and the :class:`CallEnvironment` with memory and state. What it
cannot do is a :class:`OperationFault`, which aborts the clause.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from probekit.buffers.layout import FaultKind
from probekit.interp import json_text, strings
from probekit.interp.state import ProgramState, Value
from probekit.lang.arith import signed64
from probekit.records import record

__all__ = ("CallEnvironment", "OperationFault", "call_subroutine")


class OperationFault(Exception):
    """An operation or subroutine cannot be done, so the clause faults."""

    def __init__(self, kind: FaultKind, value: int = 0) -> None:
        super().__init__(kind.name)
        self.kind = kind
        """Why."""
        self.value = value
        """The word at fault."""


@record
class CallEnvironment:
    """The program's state and the facts of one firing, for the subroutines that its clause calls."""

    state: ProgramState
    """The program's state, with its memory."""
    progenyof: Callable[[int], bool]
    """Says whether the process that fired the probe descends from another one."""
    speculation: Callable[[], int]
    """Gives the number of a free speculation, 0 when there is none."""
    stack: Callable[[int], bytes]
    """Gives at most so many return addresses, 8 bytes each."""


_STACK_CALLS = ("stack", "ustack", "jstack")


def call_subroutine(name: str, args: list[Value], env: CallEnvironment) -> Value:
    """Return the value of a subroutine. Strings are cut to the size that strings have, but the bytes of stacks are not.

    Raises :class:`OperationFault`, :class:`BadAddress` and :class:`NoScratch`.
    """
    value = _CALLS[name](env, *args)
    if isinstance(value, bytes) and name not in _STACK_CALLS:
        return value.split(b"\0", 1)[0][: env.state.program.string_size - 1]
    return signed64(value) if isinstance(value, int) else value


# Memory.


def _alloca(env: CallEnvironment, size: int) -> int:
    return env.state.memory.allocate_scratch(size)


def _bcopy(env: CallEnvironment, source: int, target: int, size: int) -> int:
    memory = env.state.memory
    if size < 0:
        raise OperationFault(FaultKind.BADADDR, source)
    data = memory.read(source, size)
    if size and not memory.in_scratch(target, size):
        raise OperationFault(FaultKind.BADADDR, target)
    memory.write(target, data)
    return 0


def _no_user(_env: CallEnvironment, addr: int, *_rest: int) -> int:
    """Raise the fault of reading user memory, which the host does not have."""
    raise OperationFault(FaultKind.BADADDR, addr)


def _no_user_string(_env: CallEnvironment, addr: int, *_rest: int) -> bytes:
    raise OperationFault(FaultKind.BADADDR, addr)


def _no_user_target(_env: CallEnvironment, _first: int, addr: int, *_rest: int) -> int:
    raise OperationFault(FaultKind.BADADDR, addr)


# Strings.


def _charat(env: CallEnvironment, string: bytes, index: int) -> int:
    if not 0 <= index < env.state.program.string_size:
        raise OperationFault(FaultKind.BADADDR, index)
    byte = string[index] if index < len(string) else 0
    return byte - 256 if byte > 127 else byte


def _setchar(env: CallEnvironment, string: bytes, index: int, char: int) -> bytes:
    """Return the string with another character at a place. A place after its end is not part of it."""
    if not 0 <= index < env.state.program.string_size:
        raise OperationFault(FaultKind.BADADDR, index)
    if index > len(string):
        return string
    return (string[:index] + bytes((char & 0xFF,)) + string[index + 1 :]).split(b"\0", 1)[0]


def _strchr(_env: CallEnvironment, string: bytes, char: int) -> bytes:
    at = string.find(char & 0xFF) if char & 0xFF else -1
    return string[at:] if at >= 0 else b""


def _strrchr(_env: CallEnvironment, string: bytes, char: int) -> bytes:
    at = string.rfind(char & 0xFF) if char & 0xFF else -1
    return string[at:] if at >= 0 else b""


def _strstr(_env: CallEnvironment, string: bytes, part: bytes) -> bytes:
    at = string.find(part)
    return string[at:] if at >= 0 else b""


def _strtok(env: CallEnvironment, *args: bytes) -> bytes:
    state = env.state
    if len(args) == 1 and state.strtok_rest is None:
        return b""
    string = args[0] if len(args) == 2 else state.strtok_rest or b""
    found = strings.strtok(string, args[-1])
    if found is None:
        state.strtok_rest = None
        return b""
    token, state.strtok_rest = found
    return token


def _checked_base(base: int) -> int:
    """Return a base of 2 to 36; any other is a fault."""
    if not 2 <= base <= 36:
        raise OperationFault(FaultKind.ILLOP)
    return base


def _lltostr(_env: CallEnvironment, value: int, base: int = 10) -> bytes:
    return strings.lltostr(value, _checked_base(base))


def _strtoll(_env: CallEnvironment, string: bytes, base: int = 10) -> int:
    return strings.strtoll(string, _checked_base(base))


# Network.


def _swap_bytes(size: int) -> Callable[[CallEnvironment, int], int]:
    """Return a function that reverses the lowest ``size`` bytes of an integer."""

    def swapped(_env: CallEnvironment, value: int) -> int:
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        return int.from_bytes(data, "big")

    return swapped


def _inet_ntoa(env: CallEnvironment, addr: int) -> bytes:
    return ".".join(map(str, env.state.memory.read(addr, 4))).encode()


def _inet_ntoa6(env: CallEnvironment, addr: int) -> bytes:
    import socket  # slow to import, and hardly ever needed

    return socket.inet_ntop(socket.AF_INET6, env.state.memory.read(addr, 16)).encode()


def _inet_ntop(env: CallEnvironment, family: int, addr: int) -> bytes:
    match family:
        case 2:
            return _inet_ntoa(env, addr)
        case 10 | 26:
            return _inet_ntoa6(env, addr)
        case _:
            raise OperationFault(FaultKind.ILLOP)


_LINK_ADDRESS_SIZES = {1: 6, 32: 20}
"""Bytes of an address by hardware type (``ARPHRD_*``): Ethernet, InfiniBand."""


def _link_ntop(env: CallEnvironment, kind: int, addr: int) -> bytes:
    if kind not in _LINK_ADDRESS_SIZES:
        raise OperationFault(FaultKind.ILLOP)
    return env.state.memory.read(addr, _LINK_ADDRESS_SIZES[kind]).hex(":").encode()


# The rest.


def _rand(_env: CallEnvironment) -> int:
    return int.from_bytes(os.urandom(4), "little", signed=True)


_CALLS: dict[str, Callable[..., Any]] = {
    "alloca": _alloca,
    "basename": lambda _env, path: strings.basename(path),
    "bcopy": _bcopy,
    "charat": _charat,
    "cleanpath": lambda _env, path: strings.cleanpath(path),
    "copyin": _no_user,
    "copyinstr": _no_user_string,
    "copyinto": _no_user,
    "copyout": _no_user_target,
    "copyoutstr": _no_user_target,
    "d_path": _no_user_string,
    "dirname": lambda _env, path: strings.dirname(path),
    "getmajor": lambda _env, dev: dev >> 20 & 0xFFF,
    "getminor": lambda _env, dev: dev & 0xFFFFF,
    "htonl": _swap_bytes(4),
    "htonll": _swap_bytes(8),
    "htons": _swap_bytes(2),
    "index": lambda _env, string, part, start=0: strings.index(string, part, start),
    "inet_ntoa": _inet_ntoa,
    "inet_ntoa6": _inet_ntoa6,
    "inet_ntop": _inet_ntop,
    "json": lambda _env, string, path: json_text.find_value(string, path),
    "jstack": lambda _env, _frames: b"",
    "link_ntop": _link_ntop,
    "lltostr": _lltostr,
    "mutex_owned": _no_user,
    "mutex_owner": _no_user,
    "mutex_type_adaptive": _no_user,
    "mutex_type_spin": _no_user,
    "ntohl": _swap_bytes(4),
    "ntohll": _swap_bytes(8),
    "ntohs": _swap_bytes(2),
    "pcap": _no_user,
    "progenyof": lambda env, pid: int(env.progenyof(pid)),
    "rand": _rand,
    "rindex": lambda _env, string, part, start=None: strings.rindex(string, part, start),
    "rw_iswriter": _no_user,
    "rw_read_held": _no_user,
    "rw_write_held": _no_user,
    "setchar": _setchar,
    "speculation": lambda env: env.speculation(),
    "stack": lambda env, frames: env.stack(frames),
    "strchr": _strchr,
    "strjoin": lambda _env, a, b: a + b,
    "strlen": lambda _env, string: len(string),
    "strrchr": _strrchr,
    "strstr": _strstr,
    "strtok": _strtok,
    "strtoll": _strtoll,
    "substr": lambda _env, string, start, length=None: strings.substr(string, start, length),
    "tolower": lambda _env, string: string.lower(),
    "toupper": lambda _env, string: string.upper(),
    "ustack": lambda _env, _frames: b"",
}

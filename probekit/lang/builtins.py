"""The names that D itself defines: variables, functions, aggregating functions.

One table each. An entry that is not ``ready`` is part of D and refused by name;
registering a name twice is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from probekit.lang.types import INT, INT64, TYPE_NAMES, UINT64, IntType, StringType

__all__ = (
    "ARGS",
    "FUNCTIONS",
    "VARIABLES",
    "BuiltinFunction",
    "BuiltinVariable",
    "FunctionKind",
    "register",
)

FunctionKind = Literal["action", "aggregating", "subroutine"]

ARGS = 10
"""``arg0`` .. ``arg9``."""


@dataclass(frozen=True, slots=True)
class BuiltinVariable:
    """A built-in variable. ``type`` None: known, not implemented yet."""

    name: str
    type: IntType | StringType | None = None


@dataclass(frozen=True, slots=True)
class BuiltinFunction:
    """A built-in function. ``least``/``most``: how many arguments (``most`` None: any number)."""

    name: str
    kind: FunctionKind
    least: int = 0
    most: int | None = None
    ready: bool = False
    records: bool = False


_T = TypeVar("_T", BuiltinVariable, BuiltinFunction)


def register(entries: Iterable[_T]) -> dict[str, _T]:
    """A table by name; a name twice is a bug in the table."""
    table: dict[str, _T] = {}
    for entry in entries:
        if entry.name in table:
            raise ValueError(f"built-in {entry.name} is registered twice")
        table[entry.name] = entry
    return table


_NAME = StringType(256)

VARIABLES: dict[str, BuiltinVariable] = register(
    (
        *(BuiltinVariable(f"arg{i}", INT64) for i in range(ARGS)),
        BuiltinVariable("cpu", INT),
        BuiltinVariable("epid", TYPE_NAMES["uint_t"]),
        BuiltinVariable("execname", StringType(16)),
        BuiltinVariable("id", TYPE_NAMES["uint_t"]),
        BuiltinVariable("pid", TYPE_NAMES["pid_t"]),
        BuiltinVariable("probefunc", _NAME),
        BuiltinVariable("probemod", _NAME),
        BuiltinVariable("probename", _NAME),
        BuiltinVariable("probeprov", _NAME),
        BuiltinVariable("tid", TYPE_NAMES["id_t"]),
        BuiltinVariable("timestamp", UINT64),
        *(
            BuiltinVariable(name)
            for name in (
                *("args", "caller", "curcpu", "curlwpsinfo", "curpsinfo", "curthread", "cwd", "errno", "execargs"),
                *("gid", "ipl", "jailname", "jid", "ppid", "regs", "root", "stackdepth", "ucaller", "uid", "uregs"),
                *("ustackdepth", "vtimestamp", "walltimestamp", "zonename"),
            )
        ),
    )
)


def _later(kind: FunctionKind, *names: str, records: bool = False) -> list[BuiltinFunction]:
    return [BuiltinFunction(name, kind, records=records) for name in names]


FUNCTIONS: dict[str, BuiltinFunction] = register(
    (
        # Aggregating functions.
        BuiltinFunction("avg", "aggregating", 1, 1, ready=True),
        BuiltinFunction("count", "aggregating", 0, 0, ready=True),
        BuiltinFunction("max", "aggregating", 1, 1, ready=True),
        BuiltinFunction("min", "aggregating", 1, 1, ready=True),
        BuiltinFunction("quantize", "aggregating", 1, 2, ready=True),
        BuiltinFunction("sum", "aggregating", 1, 1, ready=True),
        *_later("aggregating", "llquantize", "lquantize", "stddev"),
        # Actions that record data.
        BuiltinFunction("exit", "action", 1, 1, ready=True, records=True),
        BuiltinFunction("printf", "action", 1, None, ready=True, records=True),
        BuiltinFunction("trace", "action", 1, 1, ready=True, records=True),
        *_later("action", "func", "jstack", "mod", "print", "printa", "printm", "stack", "sym", records=True),
        *_later("action", "tracemem", "uaddr", "ufunc", "umod", "ustack", "usym", records=True),
        # Actions on aggregations, on speculations, on the machine.
        *_later("action", "clear", "denormalize", "normalize", "setopt", "trunc"),
        *_later("action", "commit", "discard", "speculate"),
        *_later("action", "breakpoint", "chill", "freopen", "ftruncate", "panic", "pcap", "raise", "stop", "system"),
        *_later("action", "copyout", "copyoutstr"),
        # Subroutines.
        *_later("subroutine", "alloca", "basename", "bcopy", "cleanpath", "copyin", "copyinstr", "copyinto"),
        *_later("subroutine", "d_path", "ddi_pathname", "dirname", "getf", "getmajor", "getminor", "htonl", "htonll"),
        *_later("subroutine", "htons", "index", "inet_ntoa", "inet_ntoa6", "inet_ntop", "json", "link_ntop"),
        *_later("subroutine", "lltostr", "memref", "memstr", "msgdsize", "msgsize", "mutex_owned", "mutex_owner"),
        *_later("subroutine", "mutex_type_adaptive", "mutex_type_spin", "ntohl", "ntohll", "ntohs", "progenyof"),
        *_later("subroutine", "rand", "rindex", "rw_iswriter", "rw_read_held", "rw_write_held", "speculation"),
        *_later("subroutine", "strchr", "strjoin", "strlen", "strrchr", "strstr", "strtok", "strtoll", "substr"),
        *_later("subroutine", "sx_exclusive_held", "sx_isexclusive", "sx_shared_held", "tolower", "toupper"),
    )
)

"""List the names that D itself defines: variables, functions, aggregating functions.

The constants are in :mod:`probekit.lang.constants`. Each kind has one table; registering a name twice is an error. A
function's prototype is data: its result, its parameters, and how many of the last parameters may be missing. None as a
parameter's type is DTrace's ``@``: any type, which the function itself checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

from probekit.lang.types import (
    CHAR,
    INT,
    INT64,
    SIZE_T,
    TYPE_NAMES,
    UINT64,
    VOID,
    VOID_POINTER,
    PointerType,
    StringType,
    StructType,
    SymbolType,
    Type,
)
from probekit.records import record

__all__ = (
    "ARGS",
    "DEFAULT_FRAMES",
    "DESTRUCTIVE",
    "FUNCTIONS",
    "VARIABLES",
    "BuiltinFunction",
    "BuiltinVariable",
    "FunctionKind",
    "register",
)

FunctionKind = Literal["action", "aggregating", "subroutine"]

DEFAULT_FRAMES = {"stack": 20, "ustack": 100, "jstack": 50}
"""How many frames are recorded when neither the call nor an option says it."""

ARGS = 10
"""How many there are of ``arg0`` ... ``arg9``."""


@record
class BuiltinVariable:
    """A built-in variable."""

    name: str
    type: Type | None = None
    """None for an array, which only its elements give a type, and for one that has no meaning here."""


@record
class BuiltinFunction:
    """A built-in function."""

    name: str
    kind: FunctionKind
    result: Type = VOID
    """The type of its value; ``void`` for an action."""
    params: tuple[Type | None, ...] = ()
    """The types of its parameters; None for any type."""
    optional: int = 0
    """How many of the last parameters may be missing."""
    variadic: bool = False
    """More arguments may follow; the function checks them."""
    known: bool = True
    """False for one that needs a kernel other than Linux."""


_T = TypeVar("_T", BuiltinVariable, BuiltinFunction)


def register(entries: Iterable[_T]) -> dict[str, _T]:
    """Make a table by name. Raises :class:`ValueError` for a name that is there twice."""
    table: dict[str, _T] = {}
    for entry in entries:
        if entry.name in table:
            raise ValueError(f"built-in {entry.name} is registered twice")
        table[entry.name] = entry
    return table


_NAME = StringType(256)
_UINT = TYPE_NAMES["uint_t"]
_UINT32 = TYPE_NAMES["uint32_t"]
_ADDR = TYPE_NAMES["uintptr_t"]

VARIABLES: dict[str, BuiltinVariable] = register(
    (
        *(BuiltinVariable(f"arg{i}", INT64) for i in range(ARGS)),
        BuiltinVariable("args"),
        BuiltinVariable("caller", _ADDR),
        BuiltinVariable("cpu", INT),
        BuiltinVariable("curabi", StringType(16)),
        BuiltinVariable("curthread", PointerType(StructType("struct", "task_struct"))),
        BuiltinVariable("cwd", _NAME),
        BuiltinVariable("epid", _UINT),
        BuiltinVariable("errno", INT),
        BuiltinVariable("execargs", _NAME),
        BuiltinVariable("execname", StringType(16)),
        BuiltinVariable("gid", TYPE_NAMES["gid_t"]),
        BuiltinVariable("id", _UINT),
        BuiltinVariable("ipl", _UINT),
        BuiltinVariable("jailname"),
        BuiltinVariable("jid"),
        BuiltinVariable("pid", TYPE_NAMES["pid_t"]),
        BuiltinVariable("ppid", TYPE_NAMES["pid_t"]),
        BuiltinVariable("probefunc", _NAME),
        BuiltinVariable("probemod", _NAME),
        BuiltinVariable("probename", _NAME),
        BuiltinVariable("probeprov", _NAME),
        BuiltinVariable("regs"),
        BuiltinVariable("root", _NAME),
        BuiltinVariable("stackdepth", _UINT32),
        BuiltinVariable("tid", TYPE_NAMES["id_t"]),
        BuiltinVariable("timestamp", UINT64),
        BuiltinVariable("ucaller", UINT64),
        BuiltinVariable("uid", TYPE_NAMES["uid_t"]),
        BuiltinVariable("uregs"),
        BuiltinVariable("ustackdepth", _UINT32),
        BuiltinVariable("vtimestamp", UINT64),
        BuiltinVariable("walltimestamp", INT64),
        BuiltinVariable("zonename", _NAME),
    )
)


def _sub(name: str, result: Type, *params: Type | None, optional: int = 0) -> BuiltinFunction:
    return BuiltinFunction(name, "subroutine", result, params, optional)


def _act(name: str, *params: Type | None, result: Type = VOID, variadic: bool = False) -> BuiltinFunction:
    return BuiltinFunction(name, "action", result, params, variadic=variadic)


def _agg(name: str, *params: Type | None, variadic: bool = False) -> BuiltinFunction:
    return BuiltinFunction(name, "aggregating", VOID, params, variadic=variadic)


_TEXT = PointerType(CHAR)
_STRING = StringType()
_DEV = TYPE_NAMES["dev_t"]
_INT32 = TYPE_NAMES["int32_t"]
_PATH = PointerType(StructType("struct", "path"))
_MUTEX = PointerType(StructType("struct", "mutex"))
_RWLOCK = PointerType(StructType("struct", "rwlock"))
_THREAD = PointerType(StructType("struct", "task_struct"))
_UINT16 = TYPE_NAMES["uint16_t"]

_FUNCTIONS: tuple[BuiltinFunction, ...] = (
    # Aggregating functions.
    _agg("avg", None),
    _agg("count"),
    _agg("llquantize", None, _INT32, _INT32, _INT32, _INT32, variadic=True),
    _agg("lquantize", None, _INT32, _INT32, variadic=True),
    _agg("max", None),
    _agg("min", None),
    _agg("quantize", None, variadic=True),
    _agg("stddev", None),
    _agg("sum", None),
    # Actions.
    _act("breakpoint"),
    _act("chill", INT),
    _act("clear", variadic=True),
    _act("commit", INT),
    _act("copyout", VOID_POINTER, _ADDR, SIZE_T),
    _act("copyoutstr", _TEXT, _ADDR, SIZE_T),
    _act("denormalize", variadic=True),
    _act("discard", INT),
    _act("exit", INT),
    _act("freopen", None, variadic=True),
    _act("ftruncate"),
    _act("func", _ADDR, result=SymbolType("func")),
    _act("jstack", variadic=True, result=SymbolType("stack")),
    _act("mod", _ADDR, result=SymbolType("mod")),
    _act("normalize", variadic=True),
    _act("panic"),
    _act("pcap", VOID_POINTER, INT),
    _act("print", None),
    _act("printa", None, variadic=True),
    _act("printf", None, variadic=True),
    _act("raise", INT),
    _act("setopt", _TEXT, variadic=True),
    _act("speculate", INT),
    _act("stack", variadic=True, result=SymbolType("stack")),
    _act("stop"),
    _act("sym", _ADDR, result=SymbolType("sym")),
    _act("system", None, variadic=True),
    _act("trace", None),
    _act("tracemem", None, SIZE_T, variadic=True),
    _act("trunc", variadic=True),
    _act("uaddr", _ADDR, result=SymbolType("uaddr")),
    _act("ufunc", _ADDR, result=SymbolType("ufunc")),
    _act("umod", _ADDR, result=SymbolType("umod")),
    _act("ustack", variadic=True, result=SymbolType("stack")),
    _act("usym", _ADDR, result=SymbolType("usym")),
    # Subroutines.
    _sub("alloca", VOID_POINTER, SIZE_T),
    _sub("basename", _STRING, _TEXT),
    _sub("bcopy", VOID, VOID_POINTER, VOID_POINTER, SIZE_T),
    _sub("cleanpath", _STRING, _TEXT),
    _sub("copyin", VOID_POINTER, _ADDR, SIZE_T),
    _sub("copyinstr", _STRING, _ADDR, SIZE_T, optional=1),
    _sub("copyinto", VOID, _ADDR, SIZE_T, VOID_POINTER),
    _sub("d_path", _STRING, _PATH),
    _sub("dirname", _STRING, _TEXT),
    _sub("getmajor", TYPE_NAMES["major_t"], _DEV),
    _sub("getminor", TYPE_NAMES["minor_t"], _DEV),
    _sub("htonl", _UINT32, _UINT32),
    _sub("htonll", UINT64, UINT64),
    _sub("htons", _UINT16, _UINT16),
    _sub("index", INT, _TEXT, _TEXT, INT, optional=1),
    _sub("inet_ntoa", _STRING, PointerType(TYPE_NAMES["ipaddr_t"])),
    _sub("inet_ntoa6", _STRING, PointerType(TYPE_NAMES["in6_addr_t"])),
    _sub("inet_ntop", _STRING, INT, VOID_POINTER),
    _sub("json", _STRING, _TEXT, _TEXT),
    _sub("link_ntop", _STRING, INT, VOID_POINTER),
    _sub("lltostr", _STRING, INT64, INT, optional=1),
    _sub("mutex_owned", INT, _MUTEX),
    _sub("mutex_owner", _THREAD, _MUTEX),
    _sub("mutex_type_adaptive", INT, _MUTEX),
    _sub("mutex_type_spin", INT, _MUTEX),
    _sub("ntohl", _UINT32, _UINT32),
    _sub("ntohll", UINT64, UINT64),
    _sub("ntohs", _UINT16, _UINT16),
    _sub("progenyof", INT, TYPE_NAMES["pid_t"]),
    _sub("rand", INT),
    _sub("rindex", INT, _TEXT, _TEXT, INT, optional=1),
    _sub("rw_iswriter", INT, _RWLOCK),
    _sub("rw_read_held", INT, _RWLOCK),
    _sub("rw_write_held", INT, _RWLOCK),
    _sub("speculation", INT),
    _sub("strchr", _STRING, _TEXT, CHAR),
    _sub("strjoin", _STRING, _TEXT, _TEXT),
    _sub("strlen", SIZE_T, _TEXT),
    _sub("strrchr", _STRING, _TEXT, CHAR),
    _sub("strstr", _STRING, _TEXT, _TEXT),
    _sub("strtok", _STRING, _TEXT, _TEXT),
    _sub("strtoll", INT64, _TEXT, INT, optional=1),
    _sub("substr", _STRING, _TEXT, INT, INT, optional=1),
    _sub("tolower", _STRING, _TEXT),
    _sub("toupper", _STRING, _TEXT),
    # Functions that need another kernel.
    *(
        BuiltinFunction(name, "subroutine", known=False)
        for name in (
            *("ddi_pathname", "getf", "memref", "memstr", "msgdsize", "msgsize", "printm"),
            *("sx_exclusive_held", "sx_isexclusive", "sx_shared_held"),
        )
    ),
)

FUNCTIONS: dict[str, BuiltinFunction] = register(_FUNCTIONS)

DESTRUCTIVE = frozenset(
    ("breakpoint", "chill", "copyout", "copyoutstr", "freopen", "panic", "raise", "stop", "system", "pcap")
)
"""Actions that change the system under observation: they need ``-w``."""

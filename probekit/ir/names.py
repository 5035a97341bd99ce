"""List what the IR knows by name: the built-in variables and the subroutines, with the kinds of their values.

BUILTINS["execname"]   ->  BuiltinInfo("string", size=16)
CALLS["strlen"]        ->  CallInfo("int", ("string",))
"""

from __future__ import annotations

from probekit.ir.ops import Kind
from probekit.records import record

__all__ = ("BUILTINS", "CALLS", "BuiltinInfo", "CallInfo")


@record
class BuiltinInfo:
    """A built-in variable."""

    kind: Kind
    """What its register holds."""
    size: int = 8
    """Bytes of a string with its NUL, else 8."""
    per_probe: bool = False
    """True when the probe alone decides the value, so that it is a constant of each site."""
    by_routine: bool = False
    """True for a string that a routine makes where it is read; it is as long as strings may be."""
    bits: int = 64
    """The width of an integer's D type."""
    signed: bool = True
    """True when an integer's D type is signed."""


BUILTINS: dict[str, BuiltinInfo] = {
    "caller": BuiltinInfo("int", signed=False),
    "cpu": BuiltinInfo("int", bits=32),
    "curabi": BuiltinInfo("string", size=16),
    "curthread": BuiltinInfo("int", signed=False),
    "cwd": BuiltinInfo("string", size=256, by_routine=True),
    "epid": BuiltinInfo("int", bits=32, signed=False),
    "errno": BuiltinInfo("int", bits=32),
    "execargs": BuiltinInfo("string", size=256, by_routine=True),
    "execname": BuiltinInfo("string", size=16),
    "gid": BuiltinInfo("int", bits=32, signed=False),
    "id": BuiltinInfo("int", per_probe=True, bits=32, signed=False),
    "ipl": BuiltinInfo("int", bits=32, signed=False),
    "percpu_offset": BuiltinInfo("int", signed=False),
    "pid": BuiltinInfo("int", bits=32),
    "ppid": BuiltinInfo("int", bits=32),
    "probefunc": BuiltinInfo("string", size=256, per_probe=True),
    "probemod": BuiltinInfo("string", size=256, per_probe=True),
    "probename": BuiltinInfo("string", size=256, per_probe=True),
    "probeprov": BuiltinInfo("string", size=256, per_probe=True),
    "root": BuiltinInfo("string", size=256, by_routine=True),
    "stackdepth": BuiltinInfo("int", bits=32, signed=False),
    "tid": BuiltinInfo("int", bits=32),
    "timestamp": BuiltinInfo("int", signed=False),
    "ucaller": BuiltinInfo("int", signed=False),
    "uid": BuiltinInfo("int", bits=32, signed=False),
    "ustackdepth": BuiltinInfo("int", bits=32, signed=False),
    "vtimestamp": BuiltinInfo("int", signed=False),
    "walltimestamp": BuiltinInfo("int"),
    "zonename": BuiltinInfo("string", size=256),
}
"""The built-ins of the IR; ``arg0`` to ``arg9`` are :class:`probekit.ir.ops.LoadArg`.

``percpu_offset`` has no name in D: added to the address of a per-CPU symbol, it gives this CPU's variable.
"""


@record
class CallInfo:
    """A subroutine."""

    kind: Kind
    """The kind of its value."""
    args: tuple[Kind, ...] = ()
    """The kinds of its arguments."""
    optional: int = 0
    """How many of the last arguments may be missing."""


_I: Kind = "int"
_S: Kind = "string"

CALLS: dict[str, CallInfo] = {
    "alloca": CallInfo(_I, (_I,)),
    "basename": CallInfo(_S, (_S,)),
    "bcopy": CallInfo(_I, (_I, _I, _I)),
    "charat": CallInfo(_I, (_S, _I)),
    "cleanpath": CallInfo(_S, (_S,)),
    "copyin": CallInfo(_I, (_I, _I)),
    "copyinstr": CallInfo(_S, (_I, _I), 1),
    "copyinto": CallInfo(_I, (_I, _I, _I)),
    "copyout": CallInfo(_I, (_I, _I, _I)),
    "copyoutstr": CallInfo(_I, (_I, _I, _I)),
    "d_path": CallInfo(_S, (_I,)),
    "dirname": CallInfo(_S, (_S,)),
    "getmajor": CallInfo(_I, (_I,)),
    "getminor": CallInfo(_I, (_I,)),
    "htonl": CallInfo(_I, (_I,)),
    "htonll": CallInfo(_I, (_I,)),
    "htons": CallInfo(_I, (_I,)),
    "index": CallInfo(_I, (_S, _S, _I), 1),
    "inet_ntoa": CallInfo(_S, (_I,)),
    "inet_ntoa6": CallInfo(_S, (_I,)),
    "inet_ntop": CallInfo(_S, (_I, _I)),
    "json": CallInfo(_S, (_S, _S)),
    "jstack": CallInfo(_S, (_I,)),
    "link_ntop": CallInfo(_S, (_I, _I)),
    "lltostr": CallInfo(_S, (_I, _I), 1),
    "mutex_owned": CallInfo(_I, (_I,)),
    "mutex_owner": CallInfo(_I, (_I,)),
    "mutex_type_adaptive": CallInfo(_I, (_I,)),
    "mutex_type_spin": CallInfo(_I, (_I,)),
    "ntohl": CallInfo(_I, (_I,)),
    "ntohll": CallInfo(_I, (_I,)),
    "ntohs": CallInfo(_I, (_I,)),
    "pcap": CallInfo(_I, (_I, _I)),
    "progenyof": CallInfo(_I, (_I,)),
    "rand": CallInfo(_I),
    "rindex": CallInfo(_I, (_S, _S, _I), 1),
    "rw_iswriter": CallInfo(_I, (_I,)),
    "rw_read_held": CallInfo(_I, (_I,)),
    "rw_write_held": CallInfo(_I, (_I,)),
    "setchar": CallInfo(_S, (_S, _I, _I)),
    "speculation": CallInfo(_I),
    "stack": CallInfo(_S, (_I,)),
    "strchr": CallInfo(_S, (_S, _I)),
    "strjoin": CallInfo(_S, (_S, _S)),
    "strlen": CallInfo(_I, (_S,)),
    "strrchr": CallInfo(_S, (_S, _I)),
    "strstr": CallInfo(_S, (_S, _S)),
    "strtok": CallInfo(_S, (_S, _S), 1),
    "strtoll": CallInfo(_I, (_S, _I), 1),
    "substr": CallInfo(_S, (_S, _I, _I), 1),
    "tolower": CallInfo(_S, (_S,)),
    "toupper": CallInfo(_S, (_S,)),
    "ustack": CallInfo(_S, (_I,)),
}
"""The subroutines. D lacks two: ``charat`` gives a character of a string, ``setchar`` a string with one replaced."""

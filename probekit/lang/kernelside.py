"""What a program may ask of a guest's kernel: types, enumerators, symbols, the arguments of probes.

    struct task_struct        ->  tagged("struct", "task_struct")
    vmlinux`pid_t             ->  typedef("vmlinux`pid_t")
    `jiffies                  ->  symbol("`jiffies")
    args[0]                   ->  arguments(description)

The checker asks :class:`KernelSide`, which answers in D's own types. Behind it is
either :class:`NoKernel`, which knows nothing and remembers that it was asked, or
:class:`probekit.lang.kerneltypes.KernelTypes`, which converts what a :class:`KernelSource` has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from probekit.records import record

if TYPE_CHECKING:
    from probekit.kernel.c_types import CEnum, CType
    from probekit.lang.types import EnumType, StructType, Type
    from probekit.probe.names import ProbeDescription

__all__ = (
    "KernelSide",
    "KernelSource",
    "NoKernel",
    "ProbeArguments",
    "SourceProbe",
    "SourceSymbol",
    "Symbol",
    "SymbolPlace",
    "TagKind",
    "Unknown",
    "scoped_name",
)

TagKind = Literal["struct", "union", "enum"]
SymbolPlace = Literal["data", "function", "percpu"]
"""``percpu``: the address is to be added to the CPU's own offset."""


@record
class Unknown:
    """A probe whose arguments have no known types. ``reason``: a sentence's end."""

    reason: str


@record
class SourceProbe:
    """A probe's name and the types of its ``args[]``; ``registers``: how many of them are passed in registers."""

    name: str
    types: tuple[CType, ...] | Unknown
    registers: int


@record
class SourceSymbol:
    """A kernel symbol. ``type``: of the variable, or the function's prototype; None when nothing tells it."""

    addr: int
    place: SymbolPlace
    type: CType | None


class KernelSource(Protocol):
    """The guest's kernel as :mod:`probekit.kernel.c_types`. ``module``: None for anywhere, the kernel itself first.

    Every method may raise :class:`probekit.errors.SymbolError` where the guest's data makes no sense.
    """

    @property
    def lacking(self) -> str:
        """Why there are no types at all, as a sentence; empty when there are."""
        ...

    def tagged(self, kind: TagKind, name: str, module: str | None) -> CType | None: ...

    def typedef(self, name: str, module: str | None) -> CType | None: ...

    def enumerator(self, name: str) -> tuple[int, CEnum] | None: ...

    def symbol(self, name: str, module: str | None) -> SourceSymbol | None: ...

    def prototypes(self, description: ProbeDescription) -> Iterator[SourceProbe]:
        """Each probe that matches."""
        ...


@record
class Symbol:
    """A kernel symbol for the checker. ``type`` None: nothing tells what it is."""

    addr: int
    place: SymbolPlace
    type: Type | None


@record
class ProbeArguments:
    """One probe and the types of its ``args[]``; ``registers`` as in :class:`SourceProbe`."""

    probe: str
    types: tuple[Type, ...] | Unknown
    registers: int = 6


class KernelSide(Protocol):
    """See the module. A name may have a module and a backquote before it."""

    @property
    def lacking(self) -> str: ...

    def tagged(self, kind: TagKind, name: str) -> StructType | EnumType | None: ...

    def typedef(self, name: str) -> Type | None: ...

    def is_type(self, name: str) -> bool:
        """Whether a word of the script names a type of the kernel."""
        ...

    def enumerator(self, name: str) -> tuple[int, EnumType] | None: ...

    def symbol(self, name: str) -> Symbol | None: ...

    def arguments(self, description: ProbeDescription) -> Iterator[ProbeArguments] | None:
        """The probes that match; None when that cannot be known here."""
        ...


def scoped_name(name: str) -> tuple[str | None, str]:
    """``module`name`` apart; the module is None when there is none, or an empty one, before the backquote."""
    module, quote, rest = name.partition("`")
    return (module or None, rest) if quote else (None, name)


class NoKernel:
    """A program without a guest. ``asked``: something was looked for here that a kernel might have had."""

    lacking = ""

    def __init__(self) -> None:
        self.asked = False

    def tagged(self, kind: TagKind, name: str) -> None:
        """Nothing."""
        self.asked = True

    def typedef(self, name: str) -> None:
        """Nothing."""
        self.asked = True

    def is_type(self, name: str) -> bool:
        """Nothing is."""
        self.asked = True
        return False

    def enumerator(self, name: str) -> None:
        """Nothing."""
        self.asked = True

    def symbol(self, name: str) -> None:
        """Nothing."""
        self.asked = True

    def arguments(self, description: ProbeDescription) -> None:
        """Not to be known."""
        self.asked = True

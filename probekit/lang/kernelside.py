"""Define what the checker asks the guest's kernel for: types, enumerators, symbols, the arguments of probes.

    struct task_struct        ->  tagged("struct", "task_struct")
    vmlinux`pid_t             ->  typedef("vmlinux`pid_t")
    `jiffies                  ->  symbol("`jiffies")
    args[0]                   ->  arguments(description)

The checker asks a :class:`KernelSide`, which answers in D's own types. There are two: :class:`NoKernel` knows
nothing and remembers that it was asked; :class:`probekit.lang.kerneltypes.KernelTypes` converts the answers of a
:class:`KernelSource`, which reads the guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from probekit.lang.types import EnumType, StructType, Type
from probekit.probe.names import ProbeDescription
from probekit.records import record

# Not an import circle: without a guest nothing of probekit.kernel is imported, so that the start is quick.
if TYPE_CHECKING:
    from probekit.kernel.c_types import CEnum, CType

__all__ = (
    "KernelSide",
    "KernelSource",
    "NoKernel",
    "ProbeArguments",
    "SourceProbe",
    "SourceSymbol",
    "SymbolPlace",
    "TagKind",
    "TypedSymbol",
    "Unknown",
    "scoped_name",
)

TagKind = Literal["struct", "union", "enum"]
SymbolPlace = Literal["data", "function", "percpu"]
"""What lies at the address. For ``percpu`` the CPU's own offset must be added to it."""


@record
class Unknown:
    """The arguments of a probe have no known types."""

    reason: str
    """Why, as the end of a sentence."""


@record
class SourceProbe:
    """One probe and the types of its ``args[]``, as kernel types."""

    name: str
    types: tuple[CType, ...] | Unknown
    registers: int
    """How many of the arguments are passed in registers."""


@record
class SourceSymbol:
    """One kernel symbol, with a kernel type."""

    addr: int
    """Its address; for ``percpu`` the part of it that all CPUs share."""
    place: SymbolPlace
    type: CType | None
    """Of the variable, or the function's prototype; None when it is not known."""


class KernelSource(Protocol):
    """The guest's kernel in the types of :mod:`probekit.kernel.c_types`.

    A method with ``module`` searches everywhere when that is None, the kernel itself first. Every method may raise
    :class:`probekit.errors.SymbolError` where the guest's data makes no sense.
    """

    @property
    def lacking(self) -> str:
        """Explain, as a sentence, why there are no types at all; empty when there are."""
        ...

    def tagged(self, kind: TagKind, name: str, module: str | None) -> CType | None:
        """Find ``struct name``, ``union name`` or ``enum name``."""
        ...

    def typedef(self, name: str, module: str | None) -> CType | None:
        """Find a typedef."""
        ...

    def enumerator(self, name: str) -> tuple[int, CEnum] | None:
        """Find an enumerator: its value and its enumeration."""
        ...

    def symbol(self, name: str, module: str | None) -> SourceSymbol | None:
        """Find a symbol."""
        ...

    def prototypes(self, description: ProbeDescription) -> Iterator[SourceProbe]:
        """Yield each probe that matches."""
        ...


@record
class TypedSymbol:
    """One kernel symbol, with a D type."""

    addr: int
    """Its address; for ``percpu`` the part of it that all CPUs share."""
    place: SymbolPlace
    type: Type | None
    """None when it is not known."""


@record
class ProbeArguments:
    """One probe and the types of its ``args[]``, as D types."""

    probe: str
    types: tuple[Type, ...] | Unknown
    registers: int = 6
    """How many of the arguments are passed in registers."""


class KernelSide(Protocol):
    """The kernel as the checker asks it. A name may begin with a module and a backquote."""

    @property
    def lacking(self) -> str:
        """Explain, as a sentence, why there are no types at all; empty when there are."""
        ...

    def tagged(self, kind: TagKind, name: str) -> StructType | EnumType | None:
        """Find ``struct name``, ``union name`` or ``enum name``."""
        ...

    def typedef(self, name: str) -> Type | None:
        """Find a typedef."""
        ...

    def is_type(self, name: str) -> bool:
        """Tell whether a word of the script names a type of the kernel."""
        ...

    def enumerator(self, name: str) -> tuple[int, EnumType] | None:
        """Find an enumerator: its value and its enumeration."""
        ...

    def symbol(self, name: str) -> TypedSymbol | None:
        """Find a symbol."""
        ...

    def arguments(self, description: ProbeDescription) -> Iterator[ProbeArguments] | None:
        """Yield each probe that matches; None when the probes are not known here."""
        ...


def scoped_name(name: str) -> tuple[str | None, str]:
    """Split ``module`name``. The module is None when there is no backquote, or nothing before it."""
    module, quote, rest = name.partition("`")
    return (module or None, rest) if quote else (None, name)


class NoKernel:
    """The kernel of a program that is compiled without a guest."""

    lacking = ""

    def __init__(self) -> None:
        self.asked = False
        """Whether the program has named something that a kernel might have known."""

    def tagged(self, kind: TagKind, name: str) -> None:
        """Find nothing."""
        self.asked = True

    def typedef(self, name: str) -> None:
        """Find nothing."""
        self.asked = True

    def is_type(self, name: str) -> bool:
        """Answer that the word names no type."""
        self.asked = True
        return False

    def enumerator(self, name: str) -> None:
        """Find nothing."""
        self.asked = True

    def symbol(self, name: str) -> None:
        """Find nothing."""
        self.asked = True

    def arguments(self, description: ProbeDescription) -> None:
        """Answer that the probes are not known."""
        self.asked = True

"""A kernel to compile against: BTF made by code, a few symbols, a few probes; no guest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CEnum, CFunction, CType
from probekit.lang.kernelside import SourceProbe, SourceSymbol, TagKind, Unknown
from probekit.probe.names import ProbeDescription, ProbeName
from tests.kernel.fakes import BtfWriter

__all__ = ("FakeKernel", "compiled", "sample")

BASE = 0xFFFFFFFF81000000


def sample() -> bytes:
    """A small world of every kind of type that a kernel has."""
    w = BtfWriter()
    integer, char, long_ = w.int("int", 4), w.int("char", 1, signed=False), w.int("long unsigned int", 8, signed=False)
    uint = w.int("unsigned int", 4, signed=False)
    byte = w.int("unsigned char", 1, signed=False)
    huge = w.int("__int128", 16)
    w.raw("pid_t", 8, 0, integer)
    comm, letters, dots = w.array(char, 16), w.ptr(char), w.array(char, 0)
    nothing = w.ptr(0)
    low = w.struct("", 8, [("low", integer, 0), ("flag_a", uint, 32, 1), ("flag_b", uint, 33, 3)])
    either = w.struct("", 8, [("", low, 0), ("whole", long_, 0)], union=True)
    colour = w.raw(
        "colour", 6, 3, 4, *(x for n, v in (("RED", 0), ("GREEN", 5), ("BLACK", 6)) for x in (w.string(n), v))
    )
    tiny = w.raw("tiny", 6, 1, 1, w.string("SMALL"), 3)
    wide = w.raw("wide", 19, 1, 8, w.string("BIG"), 1, 2)
    lost = w.raw("lost", 7, 0, 0)
    lost_pointer = w.ptr(lost)
    task = w.next_id() + 4
    pointer = w.ptr(task)
    callback = w.ptr(w.raw("", 13, 1, integer, w.string("t"), pointer))
    ops = w.struct("ops", 16, [("call", callback, 0), ("lost", lost_pointer, 64)])
    made = w.struct(
        "task",
        112,
        [
            ("next", pointer, 0),
            ("comm", comm, 64),
            ("", either, 192),
            ("pid", 7, 256),
            ("colour", colour, 288),
            ("ops", ops, 320),
            ("size", tiny, 448),
            ("wide", wide, 512),
            ("name", letters, 576),
            ("big", huge, 640),
            ("packed", uint, 796, 7),
            ("usage", byte, 808),
            ("tail", dots, 896),
        ],
    )
    assert made == task
    w.struct("point", 8, [("x", integer, 0), ("y", integer, 32)])
    point = w.next_id() - 1
    vector = w.struct("vector", 24, [("at", w.array(integer, 6), 0)])
    w.func("do_it", integer, [("task", pointer), ("n", uint)])
    w.func("do_more", integer, [("other", pointer), ("count", uint)])
    w.func("differs", 0, [("name", letters)])
    w.func("by_value", nothing, [("p", point), ("v", vector), ("last", long_), *[(f"x{i}", integer) for i in range(6)]])
    w.raw("running", 14, 0, pointer, 1)
    w.raw("counters", 14, 0, vector, 1)
    return w.data()


@dataclass
class FakeKernel:
    """A :class:`probekit.lang.kernelside.KernelSource`. ``data``: its BTF, None for a kernel without."""

    data: bytes | None = field(default_factory=sample)
    lacking: str = ""

    def __post_init__(self) -> None:
        self.btf = Btf(self.data) if self.data is not None else None
        if self.btf is None:
            self.lacking = "this kernel carries no types (BTF)"
        self.symbols = {
            "running": SourceSymbol(0x2000, "percpu", self._find("var", "running")),
            "counters": SourceSymbol(0x3000, "percpu", self._find("var", "counters")),
            "ticks": SourceSymbol(BASE + 0x100, "data", None),
            "hidden": SourceSymbol(0x1000, "percpu", None),
            "do_it": SourceSymbol(BASE, "function", self._find("func", "do_it")),
            "assembly": SourceSymbol(BASE + 0x40, "function", None),
        }
        if self.btf is not None:
            self.symbols["first"] = SourceSymbol(BASE + 0x200, "data", self._find("struct", "task"))

    def _find(self, kind, name: str) -> CType | None:
        return self.btf.find(kind, name) if self.btf is not None else None

    def tagged(self, kind: TagKind, name: str, module: str | None) -> CType | None:
        return self._find(kind, name) if module in (None, "vmlinux") else None

    def typedef(self, name: str, module: str | None) -> CType | None:
        return self._find("typedef", name) if module in (None, "vmlinux") else None

    def enumerator(self, name: str) -> tuple[int, CEnum] | None:
        return self.btf.enumerator(name) if self.btf is not None else None

    def symbol(self, name: str, module: str | None) -> SourceSymbol | None:
        return self.symbols.get(name) if module in (None, "vmlinux") else None

    def prototypes(self, description: ProbeDescription) -> Iterator[SourceProbe]:
        for function in ("assembly", "by_value", "differs", "do_it", "do_more"):
            name = ProbeName("fbt", "vmlinux", function, "entry")
            if not description.matches(name):
                continue
            proto = self._find("func", function)
            types = (
                tuple(p.type for p in proto.params) if isinstance(proto, CFunction) else Unknown("it is not in the BTF")
            )
            yield SourceProbe(str(name), types, 6)


def compiled(text: str, kernel: FakeKernel | None = None) -> Program:
    """A script compiled against a kernel."""
    return compile_program(text, allow_bare=True, kernel=kernel or FakeKernel())

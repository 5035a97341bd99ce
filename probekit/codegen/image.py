"""The shared code of one enabling, assembled at its address: routines first, then a thunk for each clause list.

Site stubs come behind it; they are the business of ``enabling``, which knows the sites.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from probekit.buffers.layout import TableStore
from probekit.codegen import runtime
from probekit.codegen.context import Context, ProbeKind
from probekit.codegen.frame import plan_frame
from probekit.codegen.routines import Routines
from probekit.codegen.thunk import thunk
from probekit.ir.ops import Aggregate, Program
from probekit.isa.assemble import assemble

__all__ = ("Image", "ThunkKey", "build_image")

ThunkKey = tuple[ProbeKind, tuple[int, ...]]
"""What decides a thunk: the kind of site and the clauses, in order."""

_ALIGN = 16


@dataclass(frozen=True, slots=True)
class Image:
    """``code`` belongs at ``addr``; ``thunks``: the address of each."""

    addr: int
    code: bytes
    thunks: Mapping[ThunkKey, int]


class _Writer:
    """Code laid one piece after another, each aligned, filled with INT3."""

    def __init__(self, addr: int) -> None:
        self.addr = addr
        self.code = bytearray()

    @property
    def here(self) -> int:
        self.code += b"\xcc" * (-len(self.code) % _ALIGN)  # int3
        return self.addr + len(self.code)

    def add(self, code: bytes) -> None:
        self.code += code


def _routines(writer: _Writer, context: Context) -> Routines:
    def place(text: str) -> int:
        addr = writer.here
        writer.add(assemble(text, addr))
        return addr

    return Routines(
        reserve=place(runtime.reserve(context.layout)),
        copy=place(runtime.COPY),
        compare=place(runtime.COMPARE),
        find={s.agg: place(runtime.find(s, context)) for s in context.layout.stores if isinstance(s, TableStore)},
    )


def build_image(program: Program, keys: Iterable[ThunkKey], context: Context, addr: int) -> Image:
    """Assemble everything that the sites share. Raises :class:`probekit.errors.UnsupportedError` by feature."""
    writer = _Writer(addr)
    thunks: dict[ThunkKey, int] = {}
    wanted = sorted(set(keys))
    if wanted:
        routines = _routines(writer, context)
        for kind, numbers in wanted:
            clauses = [program.clauses[n] for n in numbers]
            aggs = {o.agg for c in clauses for b in c.blocks for o in b.ops if isinstance(o, Aggregate)}
            key_words = max((program.aggregations[a].key_words for a in aggs), default=0)
            frame = plan_frame(clauses, kind, program.variables, key_words)
            at = writer.here
            writer.add(thunk(clauses, kind, context, frame, routines, at))
            thunks[kind, numbers] = at
    return Image(addr=addr, code=bytes(writer.code), thunks=thunks)

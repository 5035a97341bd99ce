"""Assemble the shared code of one enabling at its address: routines first, then a thunk for each clause list.

Site stubs come after it. ``enabling`` makes them, because it knows the sites.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from probekit.buffers.layout import TableStore
from probekit.codegen.context import CodegenContext
from probekit.codegen.frame import Frame, plan_frame
from probekit.codegen.reg_alloc import FiringKind
from probekit.codegen.runtime import (
    assoc_arrays,
    clock,
    core,
    destructive,
    json_text,
    loads,
    net_addresses,
    numbers,
    paths,
    scratch,
    speculation,
    stack,
    string_search,
    strings,
    task_paths,
    thread_locals,
)
from probekit.codegen.runtime.agg_tables import agg_find
from probekit.codegen.runtime.registry import Routine, agg_find_name, merge_tables
from probekit.codegen.thunk import thunk_text
from probekit.codegen.verify import MAX_IMAGE, CodeLayout
from probekit.errors import UnsupportedError
from probekit.ir.ops import Program
from probekit.isa.assemble import assemble

__all__ = ("CodeImage", "ThunkKey", "build_image")

ThunkKey = tuple[FiringKind, tuple[int, ...]]
"""What decides a thunk: the kind of site, and the indexes of the clauses in order."""

_ALIGN = 16
_MODULES = (
    assoc_arrays,
    clock,
    core,
    destructive,
    json_text,
    loads,
    net_addresses,
    numbers,
    paths,
    scratch,
    speculation,
    stack,
    string_search,
    strings,
    task_paths,
    thread_locals,
)


@dataclass(frozen=True, slots=True)
class CodeImage:
    """The assembled code of one enabling."""

    addr: int
    """Address that the code is made for."""
    code: bytes
    """The code."""
    thunks: Mapping[ThunkKey, int]
    """Address of each thunk."""
    layout: CodeLayout
    """What the verifier has to know."""


class _CodeWriter:
    """Appends pieces of code, each aligned; the gaps are INT3."""

    def __init__(self, addr: int) -> None:
        self.addr = addr
        self.code = bytearray()

    def next_addr(self) -> int:
        """Pad the code, and return the address of the next piece."""
        self.code += b"\xcc" * (-len(self.code) % _ALIGN)  # int3
        return self.addr + len(self.code)

    def add(self, code: bytes) -> None:
        """Append a piece."""
        self.code += code


class _RoutinePlacer:
    """Gives the address of a routine; at the first call it puts the routine into the image, after those it calls."""

    def __init__(self, writer: _CodeWriter, context: CodegenContext) -> None:
        self._writer = writer
        self._context = context
        self._table = routine_table(context)
        self.placed: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        if name not in self.placed:
            text = self._table[name](self._context, self)
            self.placed[name] = self._writer.next_addr()
            self._writer.add(assemble(text, self.placed[name]))
        return self.placed[name]


def routine_table(context: CodegenContext) -> dict[str, Routine]:
    """Return every routine by name, the look-ups of this enabling's tables among them."""
    stores = (store for store in context.layout.stores if isinstance(store, TableStore))
    return merge_tables(
        *(module.ROUTINES for module in _MODULES),
        {agg_find_name(store.agg): _agg_find_routine(store) for store in stores},
    )


def _agg_find_routine(store: TableStore) -> Routine:
    return lambda context, _address_of: agg_find(store, context)


def build_image(program: Program, keys: Iterable[ThunkKey], context: CodegenContext, addr: int) -> CodeImage:
    """Assemble everything that the sites share, for ``addr``. ``keys``: the thunks that are needed.

    Raises :class:`UnsupportedError`, with the feature's name, for what this kernel or the code generator does not have.
    """
    writer = _CodeWriter(addr)
    placer = _RoutinePlacer(writer, context)
    texts: dict[ThunkKey, str] = {}
    frames: dict[ThunkKey, Frame] = {}
    for kind, members in sorted(set(keys)):
        clauses = [program.clauses[n] for n in members]
        # The text names the routines that the thunk needs, so all of them are in place before the first thunk.
        frames[kind, members] = frame = plan_frame(clauses, kind, program, measured=context.layout.costs is not None)
        texts[kind, members] = thunk_text(clauses, kind, context, frame, placer)
    thunks: dict[ThunkKey, int] = {}
    for key, text in texts.items():
        thunks[key] = writer.next_addr()
        writer.add(assemble(text, thunks[key]))
    code = bytes(writer.code)
    if len(code) > MAX_IMAGE:
        raise UnsupportedError(
            f"the program makes {len(code):,} bytes of code in the guest, more than the {MAX_IMAGE:,} it may have",
            feature="size",
            hint="split it into several programs",
        )
    records = {thunks[key]: frame.record for key, frame in frames.items()}
    return CodeImage(addr=addr, code=code, thunks=thunks, layout=CodeLayout(addr, code, placer.placed, records))

"""The shared code of one enabling, assembled at its address: routines first, then a thunk for each clause list.

Site stubs come behind it; they are the business of ``enabling``, which knows the sites.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from probekit.buffers.layout import TableStore
from probekit.codegen.context import Context
from probekit.codegen.frame import Frame, plan_frame
from probekit.codegen.reg_alloc import ProbeKind
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
from probekit.codegen.runtime.agg_tables import find
from probekit.codegen.runtime.registry import Routine, find_name, joined
from probekit.codegen.thunk import thunk_text
from probekit.codegen.verify import MAX_IMAGE, CodeLayout
from probekit.errors import UnsupportedError
from probekit.ir.ops import Program
from probekit.isa.assemble import assemble

__all__ = ("CodeImage", "ThunkKey", "build_image")

ThunkKey = tuple[ProbeKind, tuple[int, ...]]
"""What decides a thunk: the kind of site and the clauses, in order."""

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
    """``code`` belongs at ``addr``; ``thunks``: the address of each; ``layout``: what a verifier has to know."""

    addr: int
    code: bytes
    thunks: Mapping[ThunkKey, int]
    layout: CodeLayout


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


class _Placer:
    """Routines laid into an image when somebody asks for one, those that it calls itself before it."""

    def __init__(self, writer: _Writer, context: Context) -> None:
        self._writer = writer
        self._context = context
        self._table = routine_table(context)
        self.placed: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        if name not in self.placed:
            text = self._table[name](self._context, self)
            self.placed[name] = self._writer.here
            self._writer.add(assemble(text, self.placed[name]))
        return self.placed[name]


def routine_table(context: Context) -> dict[str, Routine]:
    """Every routine by name, the look-ups of this enabling's tables among them."""
    stores = (store for store in context.layout.stores if isinstance(store, TableStore))
    return joined(
        *(module.ROUTINES for module in _MODULES),
        {find_name(store.agg): _finder(store) for store in stores},
    )


def _finder(store: TableStore) -> Routine:
    return lambda context, _at: find(store, context)


def build_image(program: Program, keys: Iterable[ThunkKey], context: Context, addr: int) -> CodeImage:
    """Assemble everything that the sites share. Raises :class:`probekit.errors.UnsupportedError` by feature."""
    writer = _Writer(addr)
    routines = _Placer(writer, context)
    texts: dict[ThunkKey, str] = {}
    frames: dict[ThunkKey, Frame] = {}
    for kind, members in sorted(set(keys)):
        clauses = [program.clauses[n] for n in members]
        # Its text names the routines that it needs, so all of them are in place before the first thunk.
        frames[kind, members] = frame = plan_frame(clauses, kind, program, measured=context.layout.costs is not None)
        texts[kind, members] = thunk_text(clauses, kind, context, frame, routines)
    thunks: dict[ThunkKey, int] = {}
    for key, text in texts.items():
        thunks[key] = writer.here
        writer.add(assemble(text, thunks[key]))
    code = bytes(writer.code)
    if len(code) > MAX_IMAGE:
        raise UnsupportedError(
            f"the program makes {len(code):,} bytes of code in the guest, more than the {MAX_IMAGE:,} it may have",
            feature="size",
            hint="split it into several programs",
        )
    records = {thunks[key]: frame.record for key, frame in frames.items()}
    return CodeImage(addr=addr, code=code, thunks=thunks, layout=CodeLayout(addr, code, routines.placed, records))

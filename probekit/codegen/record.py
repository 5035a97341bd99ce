"""Write the code that frames a record: its room in the ring, its header, its fields, and how it is finished.

open     take room in the ring and write the header; with no room, drop the clause
field    write a field
close    do what stop(), exit(), panic() and speculations ask; publish the record by moving the ring's head
faults   abandon the open record, and write a fault record in its place
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from signal import SIGSTOP

from probekit.buffers.actions import Commit, Discard, Exit, RecordField, RecordPlan, Speculate
from probekit.buffers.layout import FAULT_WORDS, RECORD_HEADER, FaultKind, HeaderWord
from probekit.codegen.demand import action_routine, calls_panic, calls_stop
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import FRAME_SITE
from probekit.codegen.memory import load_memory
from probekit.codegen.runtime.core import header
from probekit.errors import InternalError
from probekit.ir.ops import Clause, Emit, EmitMem, Reg

__all__ = ("FaultLabels", "RecordEmitter")

_STORE_LOW = {1: "mov byte ptr {}, al", 2: "mov word ptr {}, ax", 4: "mov dword ptr {}, eax"}

FaultLabels = Mapping[tuple[FaultKind | None, int, int], str]
"""The label of each fault, by the kind (None: in ``edx``), the actions begun before, and the operation's index."""


class RecordEmitter:
    """Writes the code that frames the record of one clause.

    ``slot``: the offset from ``rsp`` of the word that holds the open record's address. ``label``: what the clause's
    labels begin with. ``leave``: the label where the firing ends.
    """

    def __init__(self, clause: Clause, emit: EmitContext, *, slot: int, label: str, leave: str) -> None:
        self._clause = clause
        self._emit = emit
        self._record_address = f"qword ptr [rsp + {slot:#x}]"
        self._label = label
        self._leave = leave

    @property
    def _always_records(self) -> bool:
        """True when no predicate stands between the clause's start and its record."""
        return self._clause.body == 0

    @property
    def _exits(self) -> bool:
        """True when the clause calls ``exit()``."""
        record = self._clause.record
        return record is not None and any(isinstance(action, Exit) for action in record.actions)

    @property
    def _plan(self) -> RecordPlan:
        if self._clause.record is None:
            raise InternalError("a clause that emits fields has no record plan")
        return self._clause.record

    def prepare(self) -> Iterator[str]:
        """Note that no record is open yet, where a predicate may prevent one."""
        if self._clause.record is not None and not self._always_records:
            yield f"mov {self._record_address}, 0"

    def open(self) -> Iterator[str]:
        """Take room in the ring for the record and write its header. With no room, drop the whole clause."""
        if self._clause.record is None:
            return
        size = RECORD_HEADER.size + self._clause.record.size
        yield f"mov ecx, {size:#x}"
        yield self._emit.call_routine("reserve")
        yield "test rax, rax"
        yield f"jz {self._label}_end"
        yield f"mov {self._record_address}, rax"
        yield from self._header(size)
        yield "mov dword ptr [rdi + 0x14], 0"

    def _header(self, size: int) -> Iterator[str]:
        """Write the header of the record at rax; rdi is its address after that."""
        yield "mov rdi, rax"
        yield f"mov dword ptr [rdi], {size:#x}"
        yield f"mov dword ptr [rdi + 4], {self._clause.index:#x}"
        yield "rdtsc"
        yield "mov dword ptr [rdi + 8], eax"
        yield "mov dword ptr [rdi + 0xc], edx"
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield "mov dword ptr [rdi + 0x10], eax"

    def field(self, op: Emit) -> Iterator[str]:
        """Write a value to its field."""
        field = self._plan.fields[op.field]
        match field.kind:
            case "probe":
                pass  # the consumer knows the probe by its site
            case "stack":
                yield from self._stack(field, op.src)
            case "string":
                yield from self._string(field, op.src)
            case _:
                yield from self._integer(op.field, field, op.src)
        self._emit.operands.in_rax = None

    def _stack(self, field: RecordField, src: Reg) -> Iterator[str]:
        yield from self._emit.operands.load_first("rsi", src)
        yield f"mov rdi, {self._record_address}"
        yield f"add rdi, {RECORD_HEADER.size + field.offset:#x}"
        yield f"mov ecx, {field.size // 8:#x}"
        yield self._emit.call_routine("copy_frames")

    def _integer(self, index: int, field: RecordField, src: Reg) -> Iterator[str]:
        yield from self._emit.operands.load_first("rax", src)
        yield f"mov rdi, {self._record_address}"
        target = f"[rdi + {RECORD_HEADER.size + field.offset:#x}]"
        yield _STORE_LOW.get(field.size, "mov qword ptr {}, rax").format(target)
        if routine := action_routine(index, self._plan):
            yield from ("mov rsi, rax", self._emit.call_routine(routine), f"jb {self._emit.fault_label(None)}")

    def _string(self, field: RecordField, src: Reg) -> Iterator[str]:
        offset = RECORD_HEADER.size + field.offset
        yield from self._emit.operands.load_first("rsi", src)
        yield f"mov rdi, {self._record_address}"
        if field.size == 16 and src in self._emit.operands.allocation.padded:
            yield from ("mov rax, qword ptr [rsi]", "mov rcx, qword ptr [rsi + 8]")
            yield f"mov qword ptr [rdi + {offset:#x}], rax"
            yield f"mov qword ptr [rdi + {offset + 8:#x}], rcx"
        else:
            yield f"add rdi, {offset:#x}"
            yield f"mov ecx, {field.size:#x}"
            yield self._emit.call_routine("copy_padded")

    def memory_field(self, op: EmitMem) -> Iterator[str]:
        """Copy memory to its field."""
        field = self._plan.fields[op.field]
        target = (f"mov rdi, {self._record_address}", f"add rdi, {RECORD_HEADER.size + field.offset:#x}")
        if field.size:
            yield from load_memory(op.addr, target, field.size, self._emit)
        self._emit.operands.in_rax = None

    def close(self) -> Iterator[str]:
        """Publish the open record, if there is one, by moving the head past it after all of it is written.

        After ``exit()`` nothing fires any more: no later clause of this firing, no other CPU.
        """
        yield f"{self._label}_return:"
        record = self._clause.record
        if record is None:
            return
        if not self._always_records:
            yield f"cmp {self._record_address}, 0"
            yield f"je {self._label}_end"
        if calls_stop(record):
            yield from (
                f"mov esi, {SIGSTOP:#x}",
                self._emit.call_routine("send_signal"),
                f"jb {self._emit.fault_label(None)}",
            )
        yield from _speculative_actions(record, self._record_address, self._emit, f"{self._label}_end")
        yield f"add {header(HeaderWord.HEAD)}, {RECORD_HEADER.size + record.size:#x}"
        if calls_panic(record):
            yield self._emit.call_routine("panic")
        if self._exits:
            yield f"mov rcx, {self._emit.context.activity:#x}"
            yield "mov qword ptr [rcx], 1"
            yield f"jmp {self._leave}"

    def faults(self, labels: FaultLabels) -> Iterator[str]:
        """Abandon the open record, and write a record of which fault it was and where in the clause."""
        if not labels:
            return
        scratch = self._emit.context.scratch.temp
        word, position, kind_word = (self._emit.scratch_operand(scratch + offset) for offset in (0, 8, 16))
        size = RECORD_HEADER.size + FAULT_WORDS.size
        if not self._exits:
            yield f"jmp {self._label}_end"
        for (kind, actions, index), label in labels.items():
            yield f"{label}:"
            if kind is not None:
                yield f"mov edx, {kind:#x}"
            if kind is FaultKind.DIVZERO:
                yield "xor eax, eax"
            yield f"mov rcx, {actions << 32 | index:#x}"
            yield f"jmp {self._label}_fault"
        yield f"{self._label}_fault:"
        yield from (f"mov qword ptr {word}, rax", f"mov qword ptr {position}, rcx", f"mov dword ptr {kind_word}, edx")
        yield f"inc {header(HeaderWord.FAULTS)}"
        yield f"mov ecx, {size:#x}"
        yield self._emit.call_routine("reserve")
        yield "test rax, rax"
        yield f"jz {self._label}_end"
        yield from self._header(size)
        yield from (f"mov eax, dword ptr {kind_word}", "mov dword ptr [rdi + 0x14], eax")
        first = RECORD_HEADER.size
        yield from (f"mov rax, qword ptr {word}", f"mov qword ptr [rdi + {first:#x}], rax")
        yield from (f"mov rax, qword ptr {position}", "mov ecx, eax", "shr rax, 32")
        yield from (f"mov qword ptr [rdi + {first + 8:#x}], rax", "shl ecx, 2")
        yield f"mov qword ptr [rdi + {first + 16:#x}], rcx"
        yield f"add {header(HeaderWord.HEAD)}, {size:#x}"


def _speculative_actions(record: RecordPlan, record_address: str, emit: EmitContext, lost: str) -> Iterator[str]:
    """Write the code that commits, discards or marks a record as speculative, before the record is published.

    ``record_address``: the operand that holds the record's address; ``lost``: the label for a record that nobody will
    ever see. The number in a commit or discard becomes what ``speculation_end`` has to tell the host.
    """
    for action in record.actions:
        if not isinstance(action, Commit | Discard | Speculate):
            continue
        offset, narrow = _speculation_field(record, action)
        number = f"{'dword' if narrow else 'qword'} ptr [rdi + {offset:#x}]"
        yield f"mov rdi, {record_address}"
        yield f"{'movsxd' if narrow else 'mov'} rax, {number}"
        if isinstance(action, Speculate):
            yield emit.call_routine("speculation_active")
            yield f"jne {lost}"
        else:
            yield emit.call_routine("speculation_end")
            yield f"mov rdi, {record_address}"
            yield f"mov {number}, {'eax' if narrow else 'rax'}"


def _speculation_field(record: RecordPlan, action: Commit | Discard | Speculate) -> tuple[int, bool]:
    """Return the offset in the record of the number that an action names, and whether it has 4 bytes, not 8."""
    field = record.fields[action.field]
    if field.size not in (4, 8):
        raise InternalError("the number of a speculation has neither 4 nor 8 bytes")
    return RECORD_HEADER.size + field.offset, field.size == 4

"""Read the records of journal format 1, which an earlier release wrote, as records of format 2.

Format 1 described calls and the recovery table in notes::

    NOTE "call: free 0xffffc90000010000"     before CALL_STARTED_V1, the call that it describes
    NOTE "returned: 0x0"                     before CALL_DONE
    NOTE "the recovery table is in the guest", "the recovery table is wiped"

and its ALLOCATED and CALL_STARTED had one field more each (``detail``, ``raw``), which
recovery never needed. The magic tells the formats apart, so a note of format 2 that reads
like one of these stays a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from probekit.patch.journal_payloads import (
    CallResult,
    decode_allocation,
    decode_call,
    decode_facts,
    decode_note,
    encode_call,
    encode_call_done,
    encode_call_result,
    encode_facts,
    encode_table,
    encode_table_wiped,
)
from probekit.patch.journal_records import Kind, Record, RecordError

__all__ = ("translate",)

_CALL = "call: "
_RETURNED = "returned: "
_TABLE = "the recovery table is in the guest"
_WIPED = "the recovery table is wiped"


def _number(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError as error:
        raise RecordError(f"an old note has {word!r} in the place of a number") from error


def _decimal(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise RecordError(f"an old note has {word!r} in the place of a size")
    return int(word)


def _name(word: str) -> str:
    return word


_OPERANDS: Mapping[str, Sequence[Callable[[str], int | str]]] = {
    "allocate": (_name, _decimal),
    "free": (_number,),
    "hold": (_number,),
    "release": (_number,),
    "hook": (_name, _number),
    "unhook": (_name, _number),
}
"""How the words after each purpose's name in a note are read."""


def translate(records: Iterable[Record]) -> list[Record]:
    """Return records of format 2 that say the same as ``records``. Raises :class:`RecordError`."""
    translator = _Translator()
    return [new for old in records for new in translator.take(old)]


class _Translator:
    """Translates one record after another, and remembers what notes said about the records after them."""

    def __init__(self) -> None:
        self._purpose: list[int | str] = ["other"]
        """Purpose of the next call, by its note."""
        self._rsp: int | None = None
        """The ``rsp`` of the last call."""
        self._code: int | None = None
        """Address of the executable memory, where the recovery table's header stood."""

    def take(self, old: Record) -> list[Record]:
        """Return the records of format 2, perhaps none, that say what one record of format 1 says."""
        step = _STEPS.get(old.kind)
        return [old] if step is None else step(self, old.payload)

    def note(self, payload: bytes) -> list[Record]:
        text = decode_note(payload)
        if text.startswith(_CALL):
            self._purpose = _purpose(text.removeprefix(_CALL))
            return []
        if text.startswith(_RETURNED):
            result = CallResult(self._last_call(), _number(text.removeprefix(_RETURNED)))
            return [Record(Kind.CALL_RETURNED, encode_call_result(result))]
        if text == _TABLE:
            if self._code is None:
                raise RecordError("an old journal has a recovery table and no executable memory")
            return [Record(Kind.TABLE_WRITTEN, encode_table(self._code))]
        if text == _WIPED:
            return [Record(Kind.TABLE_WIPED, encode_table_wiped())]
        return [Record(Kind.NOTE, payload)]

    def call_started(self, payload: bytes) -> list[Record]:
        facts = decode_facts(payload, "vcpu", "raw", "regs", "return_addr", "rsp")
        del facts["raw"]
        call = decode_call(encode_facts(facts | {"purpose": self._purpose}))
        self._purpose, self._rsp = ["other"], call.rsp
        return [Record(Kind.CALL_STARTED, encode_call(call))]

    def call_done(self, payload: bytes) -> list[Record]:
        decode_facts(payload)
        return [Record(Kind.CALL_DONE, encode_call_done(self._last_call()))]

    def allocated(self, payload: bytes) -> list[Record]:
        facts = decode_facts(payload, "kind", "addr", "size", "detail")
        del facts["detail"]
        new = encode_facts(facts)
        memory = decode_allocation(new)
        if memory.kind == "exec":
            self._code = memory.addr
        return [Record(Kind.ALLOCATED, new)]

    def refused(self, _: bytes) -> list[Record]:
        raise RecordError("a record of a kind that its format does not have")

    def _last_call(self) -> int:
        if self._rsp is None:
            raise RecordError("an old journal has the end of a call that never began")
        return self._rsp


_STEPS: Mapping[int, Callable[[_Translator, bytes], list[Record]]] = {
    Kind.NOTE: _Translator.note,
    Kind.CALL_STARTED_V1: _Translator.call_started,
    Kind.CALL_DONE: _Translator.call_done,
    Kind.ALLOCATED: _Translator.allocated,
    Kind.CALL_STARTED: _Translator.refused,
    Kind.CALL_RETURNED: _Translator.refused,
    Kind.TABLE_WRITTEN: _Translator.refused,
    Kind.TABLE_WIPED: _Translator.refused,
}
"""How each kind of record that differs is translated. All other kinds are the same in both formats."""


def _purpose(text: str) -> list[int | str]:
    """Return the words of a purpose, as :func:`probekit.patch.journal_payloads.decode_purpose` takes them."""
    words = text.split()
    if not words:
        return ["other"]
    name, *operands = words
    readers = _OPERANDS.get(name)
    if readers is None or len(operands) != len(readers):
        raise RecordError(f"an old note has the unknown purpose {text!r}")
    return [name, *(read(word) for read, word in zip(readers, operands, strict=True))]

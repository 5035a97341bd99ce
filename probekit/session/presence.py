"""Tell whether what a journal lists is still in this guest, by the stamps of its memory.

A journal of this boot may list what is no longer there: another probekit recovered the guest, from the recovery table
in its memory, or a snapshot from before the trace was loaded. Somebody else may have memory at the same addresses now,
and other bytes at the same sites. What decides is the stamp at the end of each allocation
(:mod:`probekit.guest.linux`): nothing is freed, unregistered or written whose memory has another one.

==============================  =================================  ==================================================
memory that the journal lists   sites                              what a recovery does
==============================  =================================  ==================================================
has our stamps                  our jumps                          restores them, unregisters, frees
has our stamps                  original bytes                     unregisters, frees
has our stamps                  somebody else's bytes              leaves those; keeps memory and journal, says so
not mapped, or another stamp    original, or somebody else's       changes nothing, ends the journal
not mapped, or another stamp    our jumps                          restores them and says what memory may be left;
                                                                   the next recovery ends the journal
has our stamps, the table is    any                                frees memory that no table lists, ends the journal:
wiped, not by this journal                                         the recovery that wiped it has a journal of the rest
some has our stamps             any                                as in the first three rows, with only that memory;
                                                                   if no table lists that memory, as in the row above
none listed, text listed        any                                as in the first three rows: no memory can be proved
==============================  =================================  ==================================================

Which journal is taken for what is in the guest:

==========================  =====================  ====================================================================
journal on this host        table in the guest     what is undone
==========================  =====================  ====================================================================
of another boot             any                    nothing: the journal is removed
of this boot                none, wiped, foreign   what the journal lists and the stamps prove
of this boot                its own                the same, and what the table lists although the journal has noted
                                                   its end since: a snapshot from within the trace was loaded
none                        any of this boot       what the table lists; a new journal is made of it first
none                        none                   nothing, except borrowed tasks that wait in a landing
==========================  =====================  ====================================================================

A table stands until the last registrations are about to be given back. So whatever its journal says was undone while
it stands can be undone again without harm.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from probekit.guest.linux import STAMP_SIZE, Allocation, stamp_of
from probekit.patch.edits import EditSet, TextMemory
from probekit.patch.recovery_table import HEADER_SIZE, read_header
from probekit.session.journal_log import JournalLog

__all__ = ("Presence", "Whereabouts", "find_whereabouts")


class Presence(Enum):
    """Whether what a journal lists is in the guest."""

    HERE = "here"
    """Its memory is ours, or there is none by which to tell."""
    GONE = "gone"
    """None of its memory is ours, and no text leads there."""
    CONTRADICTORY = "contradictory"
    """None of its memory has our stamp, and text leads there all the same."""


class Whereabouts(NamedTuple):
    """What :func:`find_whereabouts` has found."""

    presence: Presence
    missing: tuple[Allocation, ...]
    """Listed memory that is not ours in this guest."""
    original: int
    """How many sites have their original bytes. Counted only unless the journal is here."""


def find_whereabouts(text: TextMemory, log: JournalLog) -> Whereabouts:
    """Compare what ``log`` lists with the guest, which is stopped. Changes nothing."""
    stamped = [item for item in log.allocations if item.stamp is not None]
    missing = _missing(text, log, stamped) if log.token else ()
    wiped = _missing_by_table(text, log)
    main = [item for item in stamped if item.addr not in log.after_table]
    if not wiped and (not main or any(item not in missing for item in main)):
        return Whereabouts(Presence.HERE, missing, 0)
    late = [item.addr for item in stamped if item.addr in log.after_table and item not in missing and log.token]
    original = leading = 0
    for batch in log.batches:
        edits = EditSet(batch.edits)
        for edit, found in zip(edits.edits, edits.read(text), strict=True):
            original += found == edit.old
            leading += found == edit.new and len(edit.new) > 1  # one byte is an INT3, which may be a kprobe's
    presence = Presence.CONTRADICTORY if leading else Presence.GONE
    return Whereabouts(presence, tuple(item for item in log.allocations if item.addr not in late), original)


def _missing(text: TextMemory, log: JournalLog, stamped: list[Allocation]) -> tuple[Allocation, ...]:
    """Return the allocations that do not have our stamp.

    The process may have died before it wrote the last stamp. The kernel has zeroed that memory, except for
    executable memory, whose contents say nothing.
    """
    expected = stamp_of(log.token)
    found = text.read_many([(item.addr + item.size - STAMP_SIZE, STAMP_SIZE) for item in stamped])
    missing: list[Allocation] = []
    for item, stamp in zip(stamped, found, strict=True):
        unwritten = item.addr not in log.stamped and (stamp == bytes(STAMP_SIZE) or item.kind == "exec")
        if stamp is None or (stamp != expected and not unwritten):
            missing.append(item)
    return tuple(missing)


def _missing_by_table(text: TextMemory, log: JournalLog) -> tuple[Allocation, ...]:
    """Return all memory if the recovery table should stand and does not, else none.

    Another recovery has wiped it: what it had not given back then is in its own journal.
    """
    addr = log.table_addr
    if addr is None:
        return ()
    page = text.read_many([(addr, HEADER_SIZE)])[0]
    return log.allocations if page is None or read_header(page) is None else ()

"""Restores a guest that a killed probekit left changed: from its journal, or from the recovery table in the guest.

Every journal is checked against the live guest first. If the guest has rebooted since, its journal is only removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from probekit.guest.borrowed import borrowed_tasks
from probekit.guest.find_facts import find_guest_facts
from probekit.guest.health import check_status, has_panicked, panic_error
from probekit.guest.kernel_text import KernelText
from probekit.guest.stack_search import SLEEPER_LIMIT
from probekit.kernel.kernel import Kernel
from probekit.kernel.open_kernel import open_kernel
from probekit.patch.journal import remove_journal
from probekit.patch.journal_state import JournalState, load
from probekit.session.identity import boot_cookie, target_key
from probekit.session.journal_log import JournalLog, journals_of, new_journal
from probekit.session.lock import acquire
from probekit.session.opening import AttachOptions, open_target
from probekit.session.signals import Interrupts
from probekit.session.table_scan import adopt_tables, find_tables
from probekit.session.undo import Recovered, undo_journal
from probekit.target.api import Target

__all__ = ("Recovered", "recover")

_CALL_S = 0.2  # seconds in which a guest call of a process that was killed returns


def recover(spec: str, options: AttachOptions | None = None, *, limit: float = SLEEPER_LIMIT) -> Recovered:
    """Restore the guest at ``spec`` from every journal that names it. Raises :class:`probekit.errors.ProbekitError`.

    A guest that somebody has paused stays paused: its text is restored, and what needs a guest that runs is left.
    ``limit``: seconds to wait until no task is inside our code. If one stays longer, the memory is not freed.
    """
    options = options or AttachOptions()
    with acquire(target_key(spec)) as lock, Interrupts(options.answer) as interrupts:
        states = journals_of(spec)
        with interrupts.interruptible():
            opened = open_target(spec, options, lock)
        target = opened.target
        try:
            check_status(target)
            with interrupts.interruptible():
                kernel = open_kernel(
                    target, symbols_file=options.symbols, cache=options.cache, progress=options.progress
                )
            if has_panicked(kernel.find, kernel.address_space.read_many):
                raise panic_error()
            cookie = boot_cookie(kernel)
            text = KernelText(target, kernel.address_space, kernel.symbol("init_task"))
            states = adopt_tables(find_tables(target, kernel), text, target_key(spec), cookie, states)
            states += adopt_calls(target, cookie, states, lambda: new_journal(spec, kernel, cookie, 0))
            with interrupts.waiting("restoring the guest"):
                return _recover_all(target, kernel, states, limit) if states else Recovered()
        finally:
            opened.close()


def adopt_calls(
    target: Target, cookie: bytes, known: Sequence[JournalState], new_log: Callable[[], JournalLog]
) -> list[JournalState]:
    """Make a journal of each borrowed task that waits in a landing, and whose call is in no journal here.

    ``cookie``: of this boot. The guest is stopped before and after.
    """
    calls = [(call.rsp, call.regs) for state in known for call in state.calls if state.header.cookie == cookie]
    waiting = [call for call in borrowed_tasks(target) if (call.rsp, call.regs) not in calls]
    if not waiting and not calls and not target.paused:  # a call may not have returned yet
        target.resume()
        time.sleep(_CALL_S)
        target.stop()
        waiting = borrowed_tasks(target)
    states: list[JournalState] = []
    for call in waiting:
        log = new_log()
        try:
            log.call_started(call)
        finally:
            log.close(keep=True)
        states.append(load(log.path))
    return states


def _recover_all(target: Target, kernel: Kernel, states: list[JournalState], limit: float) -> Recovered:
    cookie = boot_cookie(kernel)
    text = KernelText(target, kernel.address_space, kernel.symbol("init_task"))
    total = Recovered(journals=len(states))
    for state in reversed(states):
        if state.header.cookie != cookie:
            remove_journal(state.path)
            total = _add(total, Recovered(rebooted=1))
            continue
        total = _add(total, undo_journal(target, text, state, lambda: find_guest_facts(kernel), limit=limit))
    return total


def _add(a: Recovered, b: Recovered) -> Recovered:
    return Recovered(
        journals=a.journals,
        restored=a.restored + b.restored,
        already=a.already + b.already,
        freed=a.freed + b.freed,
        tasks=a.tasks + b.tasks,
        rebooted=a.rebooted + b.rebooted,
        gone=a.gone + b.gone,
        problems=a.problems + b.problems,
    )

"""Put a guest right after a probekit that was killed: from its journal, or from the table that it left in the guest.

Every journal is checked against the live guest first. The journal of a guest that was rebooted since is only put away.
"""

from __future__ import annotations

from probekit.guest.health import check_status, has_panicked, panic_error
from probekit.guest.residents import LIMIT
from probekit.guest.survey import gather_guest
from probekit.guest.text import KernelText
from probekit.kernel.kernel import Kernel
from probekit.kernel.open_kernel import open_kernel
from probekit.patch.journal_state import JournalState
from probekit.session.identity import boot_cookie, target_key
from probekit.session.journal_log import journals_of
from probekit.session.lock import acquire
from probekit.session.opening import AttachOptions, open_target
from probekit.session.signals import Interrupts
from probekit.session.table_scan import adopt_tables
from probekit.session.undo import Recovered, undo_journal
from probekit.target.api import Target

__all__ = ("Recovered", "recover")


def recover(spec: str, options: AttachOptions | None = None, *, limit: float = LIMIT) -> Recovered:
    """Restore the guest at ``spec`` from every journal that names it. Raises :class:`probekit.errors.ProbekitError`.

    A guest that somebody has paused stays paused: its text is restored, and what needs a guest that runs is left.
    ``limit``: seconds to wait until nobody is inside our code; its memory stays after that.
    """
    options = options or AttachOptions()
    with acquire(target_key(spec)) as lock, Interrupts():
        states = journals_of(spec)
        opened = open_target(spec, options, lock)
        target = opened.target
        try:
            check_status(target)
            kernel = open_kernel(target, symbols_file=options.symbols, cache=options.cache, progress=options.progress)
            if has_panicked(kernel.find, kernel.address_space.read_many):
                raise panic_error()
            states += adopt_tables(target, kernel, boot_cookie(kernel), states)
            return _recover_all(target, kernel, states, limit) if states else Recovered()
        finally:
            opened.close()


def _recover_all(target: Target, kernel: Kernel, states: list[JournalState], limit: float) -> Recovered:
    cookie = boot_cookie(kernel)
    text = KernelText(target, kernel.address_space, kernel.symbol("init_task"))
    total = Recovered(journals=len(states))
    for state in reversed(states):
        if state.header.cookie != cookie:
            state.path.unlink(missing_ok=True)
            total = _add(total, Recovered(rebooted=1))
            continue
        total = _add(total, undo_journal(target, text, state, lambda: gather_guest(kernel), limit=limit))
    return total


def _add(a: Recovered, b: Recovered) -> Recovered:
    return Recovered(
        journals=a.journals,
        restored=a.restored + b.restored,
        already=a.already + b.already,
        freed=a.freed + b.freed,
        tasks=a.tasks + b.tasks,
        rebooted=a.rebooted + b.rebooted,
        problems=a.problems + b.problems,
    )

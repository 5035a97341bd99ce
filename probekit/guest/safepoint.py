"""Reach a safe point in a live guest, call kernel functions there, and give everything back.

    with SafePoint(target, call_points) as point:    # guest runs until some task is at a candidate
        page = point.call(vzalloc, 4096)             # guest runs inside vzalloc, comes back, is stopped again
                                                     # the task goes on as if nothing had happened

A call borrows the stopped task: its registers are saved, RIP is set to the
function, and the return address on its own stack is the *landing*, where our
breakpoint stands (:mod:`probekit.guest.call_points`). The function may sleep and
the task may come back on another vCPU, so we recognise its return by its stack
pointer and not by its vCPU.
Linux kernels are built without a red zone, so no memory below the stack pointer is in
use. We leave 256 bytes free all the same, and describe the call below them
(:mod:`probekit.guest.borrowed`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol

from probekit.errors import Cancelled, GuestError, GuestPaused, JournalError, MachineRan, SafePointTimeout, TargetError
from probekit.guest.borrowed import BORROWED_SIZE, CALL_ROOM, encode_borrowed
from probekit.guest.call_points import CallPoints, unchanged_landing
from probekit.guest.calls import GENERAL_REGISTERS, CallPurpose, GuestCall, OtherCall, is_pointer
from probekit.guest.health import check_status
from probekit.guest.memory import PauseClock
from probekit.guest.watched_run import WatchedRun
from probekit.target.api import Regs, StopReason, Target, Vcpu

__all__ = ("CallLog", "NoCallLog", "SafePoint", "finish_call", "returned_on")

_ARGS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_IF = 0x200
_DF_TF = 0x500
_SLICE = 0.1  # seconds between two looks at whether the user wants to stop
_CALL_SLICE = 0.5  # seconds between two looks at QMP's events during a guest call
_LONG_SLICE = 1.0  # the same, in a call, while somebody has paused the guest
_TRIES = 50  # each takes a few milliseconds of a guest that somebody sets running all the time
_OTHER = OtherCall()


class CallLog(Protocol):
    """Is informed of every borrowed task before its registers change, so that a later run can give it back.

    A later run can tell whether the guest function has been called. While the borrowed task still has its own
    registers it has not; after the function has returned, the log has the note of :meth:`call_returned`.
    """

    @property
    def token(self) -> bytes:
        """The token of the journal, for the stamp of its memory; empty where memory gets no stamp."""
        ...

    def call_started(self, call: GuestCall) -> None:
        """Note that the task is about to be borrowed."""
        ...

    def call_returned(self, rsp: int, value: int) -> None:
        """Note what the call with this ``rsp`` returned. Its task still has the registers of the call."""
        ...

    def call_done(self, rsp: int) -> None:
        """Note that the task of the call with this ``rsp`` has its own registers again."""
        ...


class NoCallLog:
    """Keeps nothing. It is for tests, and for uses that only read."""

    token = b""

    def call_started(self, call: GuestCall) -> None:
        """Keep nothing."""

    def call_returned(self, rsp: int, value: int) -> None:
        """Keep nothing."""

    def call_done(self, rsp: int) -> None:
        """Keep nothing."""


def finish_call(
    target: Target,
    vcpu: Vcpu,
    saved: Mapping[str, int],
    *,
    landing: int,
    rsp: int,
    done: Callable[[], None],
    left: bytes = b"",
) -> None:
    """Put a borrowed task's own registers back on the vCPU where it returned to ``landing`` with ``rsp``.

    Then wipe what its stack says of the call, which would be taken for a task that is still inside. ``left``: what to
    leave there. ``done``: notes that the task has its registers; it is called after them, also when wiping fails.
    Raises :class:`MachineRan`, with nothing written, when somebody let the guest run and it may be elsewhere.
    """
    regs = target.regs(vcpu)
    if (regs["rip"], regs["rsp"]) != (landing, rsp):
        raise MachineRan(f"{target.name}: somebody let the guest run, and a borrowed task went to another vCPU")
    target.set_regs(vcpu, regs.replace(**{name: saved[name] for name in GENERAL_REGISTERS}))
    wiped = bytes(8) + left.ljust(BORROWED_SIZE, b"\0")
    try:
        if regs.foreign_runs is None:
            target.write(rsp - 8, wiped)
        else:
            with suppress(MachineRan):  # the task has gone on and writes over it
                target.write_once(rsp - 8, wiped, regs.foreign_runs)
    finally:
        done()


def returned_on(target: Target, landing: int, rsp: int) -> Vcpu | None:
    """Return the vCPU where a borrowed task is at the landing after its call; None while the call goes on."""
    for vcpu in target.vcpus():
        regs = target.regs(vcpu)
        # Without the breakpoint it loops in the landing's one instruction: it is seen nowhere else.
        if regs["rip"] == landing and regs["rsp"] == rsp and not regs.in_user_mode:
            return vcpu
    return None


def _assume_alive(_: bool) -> None:
    """Assume that the guest still runs."""


class SafePoint:
    """Stops a task at a safe point, and calls functions with it. A context manager; it leaves the guest stopped."""

    def __init__(
        self,
        target: Target,
        call_points: CallPoints,
        *,
        log: CallLog | None = None,
        timeout: float = 20.0,
        cancelled: Callable[[], bool] = lambda: False,
        clock: PauseClock | None = None,
        alive: Callable[[bool], None] = _assume_alive,
    ) -> None:
        """Prepare, but change nothing in the guest until the ``with`` begins.

        ``call_points``: where a task may be borrowed, and where its calls return to. ``log``: see :class:`CallLog`.
        ``timeout``: seconds until entering raises :class:`SafePointTimeout`.
        ``cancelled``: called while waiting; entering raises :class:`Cancelled` when it returns True. It is not
        called inside a guest call, so a borrowed task is given back first, unless somebody has paused the guest.
        ``clock``: counts every pause.
        ``alive``: raises :class:`GuestGone` when the guest has rebooted or died. Called while waiting, with True when
        the guest is stopped and with False when it runs.
        """
        self._target = target
        self._candidates = dict(call_points.candidates)
        self._landings = call_points.landings
        self._log: CallLog = log or NoCallLog()
        self._timeout = timeout
        self._cancelled = cancelled
        self._guest = WatchedRun(target, clock, alive)
        self._vcpu: Vcpu = 0
        self._saved: dict[str, int] = {}
        self._foreign_runs: int | None = None
        self._borrowed = False

    def __enter__(self) -> SafePoint:
        if not self._candidates:
            raise GuestError(
                "no function of this kernel is known to be a safe place for a call",
                hint="the kernel's symbols may be incomplete: give them with --symbols",
            )
        if self._target.running:
            self._target.stop()
        check_status(self._target)
        if self._target.paused:
            raise GuestPaused("calling a function of its kernel")
        self._seek()
        return self

    def _seek(self) -> None:
        """Let the guest run until a task can be borrowed. It is stopped afterwards."""
        try:
            for addr in self._candidates:
                self._target.set_breakpoint(addr)
            self._vcpu, regs = self._reach()
        finally:
            for addr in self._candidates:
                self._target.clear_breakpoint(addr)
        self._saved = {name: regs[name] for name in GENERAL_REGISTERS}
        self._foreign_runs = regs.foreign_runs

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A task that is still inside a call cannot be given back. Its log entry stays, for `probekit recover`.
        if self._borrowed or self._target.running:
            return
        self._guest.end_pause()  # the caller lets the guest run next

    def call(self, function: int, *args: int, timeout: float = 60.0, purpose: CallPurpose = _OTHER) -> int:
        """Call a guest function with at most six integer arguments. Returns RAX, unsigned. ``purpose``: for the log.

        Raises :class:`GuestError` when it does not return in ``timeout`` seconds; the task is then still inside.
        """
        if len(args) > len(_ARGS):
            raise ValueError("at most six arguments go in registers")
        for _ in range(_TRIES):
            try:
                return self._call(function, args, timeout, purpose)
            except MachineRan:
                if self._borrowed:
                    raise
                self._seek()  # the task that we had has gone on
        raise GuestError("somebody lets the guest run again and again while probekit has it stopped")

    def _call(self, function: int, args: Sequence[int], timeout: float, purpose: CallPurpose) -> int:
        """Call a guest function once. Raises :class:`MachineRan`, with nothing changed, when the task has gone on."""
        landing = unchanged_landing(self._target.read_many, self._landings)
        frame = (self._saved["rsp"] - CALL_ROOM) & ~15
        changes = dict(zip(_ARGS, (a & (1 << 64) - 1 for a in args), strict=False))
        regs = self._target.regs(self._vcpu).replace(
            **changes, rip=function, rsp=frame - 8, rax=0, eflags=(self._saved["eflags"] | _IF) & ~_DF_TF
        )
        call = GuestCall(self._vcpu, self._saved, landing, frame, purpose)
        self._log.call_started(call)
        self._borrowed = True
        try:
            self._write_slot(frame - 8, landing.to_bytes(8, "little") + encode_borrowed(call))
            self._target.set_breakpoint(landing)
        except TargetError:
            self._keep_task(frame)
            raise
        try:
            self._send(regs, frame)
            result = self._await_return(function, landing, frame, timeout)
        finally:
            if not _runs(self._target):
                self._target.clear_breakpoint(landing)
        self._log.call_returned(frame, result)
        self._give_back(function, landing, frame, timeout)
        return result

    @property
    def token(self) -> bytes:
        """The token of the log's journal (:attr:`CallLog.token`)."""
        return self._log.token

    def write(self, addr: int, data: bytes) -> None:
        """Write guest memory of ours. The guest is stopped between two calls."""
        self._target.write(addr, data)

    def _write_slot(self, addr: int, data: bytes) -> None:
        """Write below the task's stack pointer, unless the task has gone on, which may need that memory now."""
        if self._foreign_runs is None:
            self._target.write(addr, data)
        else:
            self._target.write_once(addr, data, self._foreign_runs)

    def _give_back(self, function: int, landing: int, frame: int, timeout: float) -> None:
        """Give the task its own registers. It loops at the landing if somebody lets the guest run, and is found again.

        Raises :class:`GuestError` when that does not succeed: its log entry stays, for ``recover``.
        """

        def done() -> None:
            self._borrowed = False
            self._log.call_done(frame)

        for _ in range(_TRIES):
            try:
                finish_call(self._target, self._vcpu, self._saved, landing=landing, rsp=frame, done=done)
                return
            except MachineRan:
                self._target.set_breakpoint(landing)
                try:
                    self._await_return(function, landing, frame, timeout)
                finally:
                    if not _runs(self._target):
                        self._target.clear_breakpoint(landing)
        raise GuestError("somebody let the guest run again and again while probekit gave a borrowed task back")

    def _send(self, regs: Regs, frame: int) -> None:
        """Give the task the registers of a call. When the stub refuses, find out whether the task has its own still."""
        try:
            self._target.set_regs(self._vcpu, regs)
        except MachineRan:
            self._keep_task(frame)
            raise
        except TargetError:
            with suppress(TargetError):
                now = self._target.regs(self._vcpu)
                if all(now[name] == value for name, value in self._saved.items()):
                    self._keep_task(frame)
            raise

    def _keep_task(self, frame: int) -> None:
        """Note that a call was not begun, as the task has its own registers. The caller then raises its first error."""
        self._borrowed = False
        with suppress(JournalError):
            self._log.call_done(frame)

    def call_pointer(self, function: int, *args: int, what: str, purpose: CallPurpose = _OTHER) -> int:
        """Call a function that returns a pointer; raises :class:`GuestError` for NULL and error pointers.

        ``what``: names the memory in the error.
        """
        value = self.call(function, *args, purpose=purpose)
        if not is_pointer(value):
            raise GuestError(
                f"the guest kernel could not allocate {what} (returned {value:#x})",
                hint="the guest may be short of memory; enable fewer probes or lower -x aggsize and bufsize",
            )
        return value

    def _reach(self) -> tuple[Vcpu, Regs]:
        deadline = time.monotonic() + self._timeout
        self._guest.begin()
        while True:
            stop = self._guest.run(_SLICE)
            if stop is None and self._target.paused:
                deadline = time.monotonic() + self._timeout  # nobody can come here meanwhile
            if stop is None and (self._cancelled() or time.monotonic() > deadline):
                stop = self._target.stop()  # a task that arrives at this very moment serves as well as any other
                found = self._at_candidate(stop)
                if found is None and self._cancelled():
                    raise Cancelled("interrupted while waiting for a safe point in the guest")
                if found is None:
                    break
                return found
            if stop is None:
                stop = self._guest.look()
            found = self._at_candidate(stop) if stop is not None else None
            if found is not None:
                return found
        raise SafePointTimeout(
            f"no task of the guest reached a system call or a kernel worker in {self._timeout:g} s",
            seconds=self._timeout,
            hint="run something in the guest (any system call will do), or raise the limit with -x safepoint=60s",
        )

    def _at_candidate(self, stop: StopReason) -> tuple[Vcpu, Regs] | None:
        """Return the vCPU whose task can be borrowed, or None. Move a task with interrupts off past its candidate."""
        self._guest.check(stop)
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            if regs["rip"] in self._candidates and not regs.in_user_mode:
                if regs["eflags"] & _IF:
                    return vcpu, regs
                with suppress(MachineRan):  # then it stops here again
                    self._pass(vcpu, regs)
        return None

    def _await_return(self, function: int, landing: int, frame: int, timeout: float) -> int:
        deadline, left = time.monotonic() + timeout, timeout
        self._guest.begin()
        while left > 0 and time.monotonic() < deadline:
            stop = self._guest.run(min(left, _LONG_SLICE if self._target.paused else _CALL_SLICE))
            if stop is None and self._target.paused and not self._cancelled():
                deadline, left = time.monotonic() + timeout, timeout  # the call goes on when the guest does
                continue
            if stop is None:
                left -= _CALL_SLICE
                stop = self._guest.look()
            if stop is None:
                continue
            self._guest.check(stop)
            vcpu = returned_on(self._target, landing, frame)
            if vcpu is not None:
                self._vcpu = vcpu
                return self._target.regs(vcpu)["rax"]
        if self._target.running:
            self._target.stop()
        raise GuestError(
            f"the guest function at {function:#x} did not return in {timeout:g} s",
            hint="the borrowed guest task is still inside it; `probekit recover` gives it back when it returns",
        )

    def _pass(self, vcpu: Vcpu, regs: Regs) -> None:
        """Move a task past the pad under our breakpoint. A pad has no effect, so skipping it is harmless."""
        self._target.set_regs(vcpu, regs.replace(rip=regs["rip"] + self._candidates[regs["rip"]]))


def _runs(target: Target) -> bool:
    return target.running

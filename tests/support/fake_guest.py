"""A whole guest without a processor: a kernel whose functions can be called, and which notices what would kill it.

Its memory may only be freed when nothing leads into it any more: no text, no timer, no tracepoint, no list of trap
handlers or reader of one, no callback that is to come, and no reader that the kernel was not asked to wait for. A
task that was borrowed must go on with its own registers. What breaks such a rule is a :class:`GuestCrash`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from probekit.errors import TargetError, TargetLost
from probekit.guest.call_points import LANDING
from probekit.guest.calls import GENERAL_REGISTERS
from probekit.guest.tracepoints import CALL_ENTRY_SIZE
from probekit.patch.recovery_table import HEADER_SIZE, read_header
from probekit.target.api import BreakKind, Regs, StopReason
from tests.support.failures import Failures, Killed
from tests.support.fake_guest_facts import (
    CANDIDATE,
    CHAIN,
    CPU_OFFSETS,
    DATA,
    EXEC,
    EXEC_END,
    KERNEL,
    LAND,
    LINKS,
    MODULE,
    MODULES,
    PAD,
    PAGE,
    PERCPU,
    PROBES,
    RESIDENT,
    STACK_SIZE,
    STACKS,
    TASK_VCPUS,
    TEXT,
    TEXT_SIZE,
    TIMER,
    TRACEPOINT,
    USER,
    addresses,
)
from tests.support.fake_target import FakeTarget

__all__ = ("FakeGuest", "GuestCrash")

_BY_ADDRESS = {addr: name for name, addr in addresses.items()}
_MASK = (1 << 64) - 1


class GuestCrash(AssertionError):
    """What was done would have killed a guest, or left something in it that nobody knows of."""


def _regs(rip: int, rsp: int = 0x7FFF0000, **more: int) -> Regs:
    """What a vCPU has; below the kernel's half of memory it is in user mode."""
    values = {name: 0x100 + number for number, name in enumerate(GENERAL_REGISTERS)}
    return Regs(values | {"rip": rip, "rsp": rsp, "eflags": 0x202, "cs": 0x33 if rip < 1 << 47 else 0x10, **more}, b"")


@dataclass
class FakeGuest(FakeTarget):
    """Its kernel preempts itself, so that readers have to be waited for.

    ``stuck``: numbers of guest calls, from 0, that do not return yet. ``resident``: a vCPU stands in our code until
    all readers are gone. ``calls``: every function of the kernel that was called, and its arguments.
    """

    failures: Failures = field(default_factory=Failures)
    stuck: set[int] = field(default_factory=set)
    resident: bool = False
    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.crashes: list[str] = []
        self.breakpoints: set[int] = set()
        self.allocated: dict[int, tuple[str, int]] = {}
        self.timers: set[int] = set()
        self.notifiers: list[int] = []
        self.symbols: set[int] = set()
        self.holds = 0
        self.probes: dict[int, list[tuple[int, int]]] = {}
        self.time = 0
        self.waits: list[tuple[str, int, int]] = []
        """Callbacks to come: of which readers, the head, when it was asked for."""
        self.gone: dict[str, int] = {}
        """By kind of reader: all those of that time are gone."""
        self.last_way_in = -1
        """When somebody could last come to our code."""
        self.unsettled: dict[int, int] = {}
        """Structures that a reader of the list may hold on to that they were on, and when they were taken off."""
        text = bytearray(b"\x90" * TEXT_SIZE)  # nop
        text[CANDIDATE - TEXT : CANDIDATE - TEXT + 5] = PAD
        text[LAND - TEXT : LAND - TEXT + 2] = LANDING
        self.memory |= {TEXT: text, KERNEL: bytearray(0x800), STACKS: bytearray(4 * STACK_SIZE)}
        self._put(MODULES, MODULE + 8)
        self._put(MODULE + 8, MODULES)
        self._put(TRACEPOINT, PROBES)
        self.original = bytes(text)
        self.registers = {vcpu: _regs(USER) for vcpu in (*TASK_VCPUS, RESIDENT)}
        self.running = True
        self._arrived: dict[int, Regs] = {}
        self._interrupted: dict[int, Regs] = {}
        self._in_call: dict[int, int] = {}
        self._begun = 0

    def patch_original(self, addr: int, data: bytes) -> None:
        """Say what stands in the kernel's text before anybody comes."""
        self.memory[TEXT][addr - TEXT : addr - TEXT + len(data)] = data
        self.original = bytes(self.memory[TEXT])

    def _crash(self, why: str) -> GuestCrash:
        self.crashes.append(why)
        return GuestCrash(why)

    # -- what a debugger does ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self.failures.dead:
            raise Killed
        if self.failures.lost:
            raise TargetLost("the connection to the stub is gone")

    def _step(self, name: str) -> None:
        refused = self.failures.step(name)
        self._look()
        if refused:
            raise TargetError(f"the stub refused: {name}")

    def reconnect(self, failures: Failures) -> None:
        """Another process connects: breakpoints of the first are gone, and the guest stands still."""
        self.failures = failures
        self.breakpoints.clear()
        self.running = False

    def read(self, addr: int, size: int) -> bytes:
        self._look()
        return super().read(addr, size)

    def write(self, addr: int, data: bytes) -> None:
        self._step("write")
        led = self._leads()
        super().write(addr, data)
        if led and not self._leads():
            self._way_out()

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        for addr, data in edits:
            self.write(addr, data)

    def regs(self, vcpu: int) -> Regs:
        self._look()
        if self.running:
            raise self._crash("registers of a guest that runs")
        return super().regs(vcpu)

    def set_regs(self, vcpu: int, regs: Regs) -> None:
        self._step("set registers")
        if self.running:
            raise self._crash("registers of a guest that runs")
        super().set_regs(vcpu, regs)

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self._step("set breakpoint")
        self.breakpoints.add(addr)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self._step("clear breakpoint")
        self.breakpoints.discard(addr)

    def stop(self, timeout: float = 10.0) -> StopReason:
        self._step("stop")
        self._pass_time()
        self.running = False
        return StopReason("interrupt", 2, 1, "T02")

    def resume(self) -> None:
        self._step("resume")
        if self.running:
            raise self._crash("it runs already")
        self.running = True
        for vcpu in TASK_VCPUS:
            if self.registers[vcpu]["rip"] == CANDIDATE:
                if self.registers[vcpu] != self._arrived[vcpu]:
                    raise self._crash("a task goes on with registers that are not its own")
                self.registers[vcpu] = _regs(USER)

    def wait(self, timeout: float) -> StopReason | None:
        self._look()
        if not self.running:
            raise self._crash("somebody waits for a guest that stands still")
        self._pass_time()
        at = next((vcpu for vcpu, now in self.registers.items() if now["rip"] in self.breakpoints), None)
        if at is None and CANDIDATE in self.breakpoints:
            at = self._arrive()
        if at is None:
            return None
        self.running = False
        return StopReason("breakpoint", 5, at, "T05")

    def monitor(self, command: str) -> str:
        return "VM status: paused (debug)"

    # -- what the guest does -----------------------------------------------------------------------------------------

    def _arrive(self) -> int | None:
        """Let a task come to the candidate, on a vCPU whose last task is not in a call of somebody's."""
        vcpu = next((vcpu for vcpu in TASK_VCPUS if self.registers[vcpu]["rip"] == USER), None)
        if vcpu is not None:
            now = _regs(CANDIDATE, STACKS + (vcpu + 1) * STACK_SIZE - 0x100, rbx=self.time)
            self.registers[vcpu] = self._arrived[vcpu] = now
        return vcpu

    def interrupt(self, vcpu: int) -> None:
        """Let an interrupt come on a vCPU, in whose handler it is found until the guest runs again."""
        now = self._interrupted[vcpu] = self.registers[vcpu]
        sp = now["rsp"] & ~15
        for number, name in enumerate(("ss", "rsp", "eflags", "cs", "rip"), 1):
            self._put(sp - 8 * number, now.values.get(name, 0x18))
        self.registers[vcpu] = now.replace(rip=TEXT + 0x900, rsp=sp - 0x60)

    def _pass_time(self) -> None:
        """Let calls return, and readers end."""
        if not self.running:
            return
        self.time += 1
        self.registers |= self._interrupted
        self._interrupted.clear()
        for vcpu in TASK_VCPUS:
            now = self.registers[vcpu]
            if self._is_function(now["rip"]) and self._returns(vcpu):
                self.registers[vcpu] = self._returned(now)
        for kind, head, begun in self.waits:
            self._put(head + 16, 1, 4)
            self._all_gone(kind, begun)
        self.waits.clear()
        self.resident = self.resident and self.gone.get("call_rcu", -1) <= self.last_way_in
        code = next((addr for addr, (kind, _) in self.allocated.items() if kind == "exec"), None)
        inside = self.resident and code is not None
        self.registers[RESIDENT] = _regs((code or 0) + 0x40, STACKS + 0x100) if inside else _regs(USER)

    def _is_function(self, addr: int) -> bool:
        return addr in _BY_ADDRESS or EXEC <= addr < EXEC_END

    def _returns(self, vcpu: int) -> bool:
        """Return whether the call on this vCPU is not one of those that are stuck."""
        if vcpu not in self._in_call:
            self._in_call[vcpu] = self._begun
            self._begun += 1
        if self._in_call[vcpu] in self.stuck:
            return False
        del self._in_call[vcpu]
        return True

    def _returned(self, now: Regs) -> Regs:
        """Return what a borrowed task looks like when the function that it was sent to has returned."""
        args = tuple(now[name] for name in ("rdi", "rsi", "rdx", "rcx", "r8", "r9"))
        name = _BY_ADDRESS.get(now["rip"], "batch")
        self.calls.append((name, args))
        value = getattr(self, "_" + name.lstrip("_"))(*args) or 0
        return now.replace(rip=self._word(now["rsp"]), rsp=now["rsp"] + 8, rax=value & _MASK, rcx=7, r11=7)

    def _bytes(self, addr: int, size: int) -> tuple[bytearray, int]:
        for start, data in self.memory.items():
            if start <= addr and addr + size <= start + len(data):
                return data, addr - start
        raise self._crash(f"the kernel uses memory that is gone, at {addr:#x}")

    def _word(self, addr: int) -> int:
        data, at = self._bytes(addr, 8)
        return int.from_bytes(data[at : at + 8], "little")

    def _put(self, addr: int, value: int, size: int = 8) -> None:
        data, at = self._bytes(addr, size)
        data[at : at + size] = value.to_bytes(size, "little")

    # memory

    def _take(self, kind: str, base: int, size: int) -> int:
        addr = base
        while addr in self.allocated:
            addr += 0x100000
        self.allocated[addr] = (kind, size)
        for place in self._places(kind, addr):
            self.memory[place] = bytearray(size)
        return addr

    def _places(self, kind: str, addr: int) -> list[int]:
        return [(addr + offset) & _MASK for offset in CPU_OFFSETS.values()] if kind == "percpu" else [addr]

    def _free(self, kind: str, addr: int) -> None:
        found, size = self.allocated.pop(addr, ("", 0))
        if found != kind:
            raise self._crash(f"{addr:#x} is freed as {kind} memory")
        inside = range(addr, addr + size)
        for what, places in self._held_places().items():
            if any(place in inside for place in places):
                raise self._crash(f"memory is freed that {what} leads to")
        if kind == "exec":
            self._free_code(inside)
        for place in self._places(kind, addr):
            del self.memory[place]

    def _free_code(self, inside: range) -> None:
        if self._leads() or any(self.probes.values()) or self.timers or self.notifiers:
            raise self._crash("executable memory is freed that the guest still comes to")
        if read_header(bytes(self.memory[inside.start][:HEADER_SIZE])) is not None:
            raise self._crash("a recovery table's header is freed with its memory")
        if any(self.gone.get(kind, -1) <= self.last_way_in for kind in ("call_rcu", "call_rcu_tasks")):
            raise self._crash("executable memory is freed and nobody has waited for readers")
        if any(now["rip"] in inside for now in self.registers.values()):
            raise self._crash("a vCPU is in executable memory that is freed")
        if self.unsettled:
            raise self._crash("executable memory is freed that a reader of a list may still call")

    def _held_places(self) -> dict[str, set[int]]:
        return {
            "a timer": self.timers,
            "a list of trap handlers": {*self.notifiers, *self.symbols},
            "a reader of such a list": set(self.unsettled),
            "a wait for readers": {head for _, head, _ in self.waits},
        }

    def _execmem_alloc(self, _kind: int, size: int, *_: int) -> int:
        return self._take("exec", EXEC, size)

    def _execmem_free(self, addr: int, *_: int) -> None:
        self._free("exec", addr)

    def _vzalloc(self, size: int, *_: int) -> int:
        return self._take("data", DATA, size)

    def _vfree(self, addr: int, *_: int) -> None:
        self._free("data", addr)

    def _alloc_percpu(self, size: int, *_: int) -> int:
        return self._take("percpu", PERCPU, size)

    def _free_percpu(self, addr: int, *_: int) -> None:
        self._free("percpu", addr)

    def _set_memory_rox(self, addr: int, pages: int, *_: int) -> None:
        if self.allocated[addr] != ("exec", pages * PAGE):
            raise self._crash("protection of what is not executable memory of ours")

    # readers

    def _leads(self) -> bool:
        """Return whether text leads to memory of ours."""
        return self.memory[TEXT] != self.original

    def _way_out(self) -> None:
        """Note that somebody may have come in until now."""
        self.last_way_in = self.time
        self.time += 1

    def _all_gone(self, kind: str, begun: int) -> None:
        """Note that nobody reads any more who had begun at that time."""
        self.gone[kind] = max(self.gone.get(kind, -1), begun)
        if kind == "call_rcu":
            self.unsettled = {addr: off for addr, off in self.unsettled.items() if off >= begun}

    def _take_off(self, addr: int) -> None:
        self.unsettled[addr] = self.time
        self.time += 1

    def _callback(self, kind: str, head: int) -> None:
        self._put(head + 8, 0x999)
        self.waits.append((kind, head, self.time))

    def _call_rcu(self, head: int, *_: int) -> None:
        self._callback("call_rcu", head)

    def _call_rcu_tasks(self, head: int, *_: int) -> None:
        self._callback("call_rcu_tasks", head)

    def _call_srcu(self, _domain: int, head: int, *_: int) -> None:
        self._callback("call_srcu", head)

    def _synchronize_rcu(self, *_: int) -> None:
        self._all_gone("call_rcu", self.time)

    def _synchronize_rcu_tasks(self, *_: int) -> None:
        self._all_gone("call_rcu_tasks", self.time)

    def _synchronize_srcu(self, *_: int) -> None:
        self._all_gone("call_srcu", self.time)

    # registrations

    def _register_die_notifier(self, block: int, *_: int) -> None:
        if block in self.notifiers:
            raise self._crash("a notifier is on its chain already")
        self._put(block + 8, self._word(CHAIN))
        self._put(CHAIN, block)
        self.notifiers.insert(0, block)

    def _unregister_die_notifier(self, block: int, *_: int) -> int:
        if block not in self.notifiers:
            return -2  # ENOENT
        self._put(CHAIN, self._word(block + 8))
        self.notifiers.remove(block)
        self._take_off(block)
        return 0

    def _bpf_ksym_add(self, symbol: int, *_: int) -> None:
        if symbol in self.symbols:
            raise self._crash("a symbol is on its list already")
        self.symbols.add(symbol)

    def _bpf_ksym_del(self, symbol: int, *_: int) -> None:
        if symbol in self.unsettled:
            raise self._crash("a symbol is taken off its list for the second time")
        if symbol in self.symbols:  # an empty list otherwise
            self.symbols.remove(symbol)
            self._put(symbol + LINKS + 8, 0xDEAD000000000122)  # LIST_POISON2
            self._take_off(symbol)

    def _try_module_get(self, module: int, *_: int) -> int:
        if module != MODULE:
            raise self._crash("a reference to what is no module")
        self.holds += 1
        return 1

    def _module_put(self, module: int, *_: int) -> None:
        self.holds -= 1
        if module != MODULE or self.holds < 0:
            raise self._crash("a reference to a module is given back that nobody has")

    def _hrtimer_setup(self, timer: int, function: int, *_: int) -> None:
        self._put(timer + 8, function)
        self._put(timer + 16, 0x888)

    def _hrtimer_start(self, timer: int, *_: int) -> None:
        self.timers.add(timer)

    def _hrtimer_cancel(self, timer: int, *_: int) -> None:
        if not self._word(timer + 16):
            raise self._crash("a timer is cancelled that was never set up")
        self.timers.discard(timer)

    def _tracepoint_register(self, tracepoint: int, function: int, data: int, *_: int) -> int:
        self.probes.setdefault(tracepoint, []).append((function, data))
        self._write_probes(tracepoint)
        return 0

    def _tracepoint_unregister(self, tracepoint: int, function: int, data: int, *_: int) -> int:
        if (function, data) not in self.probes.get(tracepoint, []):
            raise self._crash("a probe is unregistered that a tracepoint does not have")
        self.probes[tracepoint].remove((function, data))
        self._write_probes(tracepoint)
        self._way_out()
        return 0

    def _write_probes(self, tracepoint: int) -> None:
        for n, (function, data) in enumerate([*self.probes[tracepoint], (0, 0)]):
            self._put(PROBES + 16 * n, function)
            self._put(PROBES + 16 * n + 8, data)

    def _batch(self, begin: int, end: int, function: int, *_: int) -> int:
        """Do what our routine does that registers many probes at once."""
        act = getattr(self, f"_{_BY_ADDRESS[function]}")
        for at in range(begin, end, CALL_ENTRY_SIZE):
            act(*(self._word(at + 8 * n) for n in range(3)))
        return end - begin

    def _stack_trace_save_tsk(self, *_: int) -> int:
        return 0

    # -- what a test asks --------------------------------------------------------------------------------------------

    def borrowed(self) -> list[int]:
        """Return where calls return, as stack pointers, whose tasks were not given back."""
        found = []
        for vcpu in TASK_VCPUS:
            now = self.registers[vcpu]
            if now["rip"] == LAND:
                found.append(now["rsp"])
            elif self._is_function(now["rip"]):
                found.append(now["rsp"] + 8)
        return found

    def registered(self) -> set[tuple[str, int]]:
        """Return what the kernel has of ours: kind, and the address that tells it from others of its kind."""
        return {
            *(("timer", timer - TIMER) for timer in self.timers),
            *(("die_notifier", block) for block in self.notifiers),
            *(("bpf_ksym", symbol) for symbol in self.symbols),
            *(("tracepoint", tracepoint) for tracepoint, probes in self.probes.items() if probes),
            *([("module", MODULE)] if self.holds else []),
        }

    def changed(self) -> set[int]:
        """Return the addresses of text that is not as it was."""
        now = self.memory[TEXT]
        return {TEXT + n for n, byte in enumerate(self.original) if now[n] != byte}

    def check_clean(self) -> None:
        """See that nothing of ours is left, and that nothing has killed it."""
        if self.crashes:
            raise GuestCrash(self.crashes[0])
        left = (self.allocated, self.registered(), self.changed(), self.borrowed(), self.waits, self.breakpoints)
        if any(left):
            raise GuestCrash(f"left in the guest: {left}")

"""The watchdog's function, look by look: when it silences, when it lets the clauses speak again."""

from __future__ import annotations

import struct

from support.emulator import DATA, STUBS, TEXT, Emulator

from probekit.guest.watchdog import SILENT, WATCHDOG_SIZE, watchdog_code

WORDS = DATA + 0x100
START = TEXT + 0x800
TIMER = WORDS + 24


class Machine:
    """``activity``: what the clauses look at; ``heartbeat``: the host's word."""

    def __init__(self) -> None:
        self.code = watchdog_code(STUBS, words=WORDS, activity=DATA, start=START)
        self.data = bytes(0x200)
        self.started: dict[str, int] = {}

    @property
    def activity(self) -> int:
        return int(struct.unpack_from("<Q", self.data, 0)[0])

    def set(self, activity: int) -> None:
        self.data = struct.pack("<Q", activity) + self.data[8:]

    def send_heartbeat(self) -> None:
        (beat,) = struct.unpack_from("<Q", self.data, 0x100)
        self.data = self.data[:0x100] + struct.pack("<Q", beat + 1) + self.data[0x108:]

    def look(self, times: int = 1) -> int:
        for _ in range(times):
            machine = Emulator({STUBS: self.code, START: b"\x48\x89\xf8\xc3"}, self.data)  # mov rax, rdi; ret
            regs = {"rdi": TIMER, "rbx": 3, "rbp": 5, "r12": 7, "r13": 9, "r14": 11, "r15": 13}
            done = machine.run(STUBS, regs=regs)
            assert done.fault == 0 and START in done.visited
            assert all(done.regs[name] == value for name, value in regs.items() if name != "rdi")
            assert done.regs["rax"] == 0  # HRTIMER_NORESTART: it has been started anew already
            self.started = {name: done.regs[name] for name in ("rdi", "rsi", "rdx", "rcx")}
            self.data = done.data[:0x200]
        return self.activity


def test_it_fits_and_starts_itself_anew() -> None:
    machine = Machine()
    assert len(machine.code) <= WATCHDOG_SIZE
    machine.look()
    assert machine.started == {"rdi": TIMER, "rsi": 1_000_000_000, "rdx": 0, "rcx": 9}


def test_a_host_that_has_gone_is_noticed_and_one_that_comes_back_too() -> None:
    machine = Machine()
    machine.send_heartbeat()
    assert machine.look(5) == 0
    assert machine.look() == SILENT
    assert machine.look(20) == SILENT
    machine.send_heartbeat()
    assert machine.look() == 0
    assert machine.look(4) == 0
    assert machine.look() == SILENT


def test_a_host_that_is_there_never_is() -> None:
    machine = Machine()
    for _ in range(20):
        machine.send_heartbeat()
        assert machine.look(3) == 0


def test_what_exit_has_silenced_stays_silent() -> None:
    machine = Machine()
    machine.set(1)
    assert machine.look(9) == 1
    machine.send_heartbeat()
    assert machine.look() == 1

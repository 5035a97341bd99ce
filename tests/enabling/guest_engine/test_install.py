"""What is written before any CPU can reach it, and that a write which did not hold is noticed."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.install import write_code, write_table, write_trap_data
from probekit.errors import ConflictError, GuestError, InternalError
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from tests.support.fake_target import FakeTarget

CODE, DATA = 0xFFFFFFFFC0000000, 0xFFFFC90000000000


class Target(FakeTarget):
    """A fake one that can be stopped."""

    def stop(self) -> None:
        self.running = False


class Log:
    """A journal of so many bytes; ``headers``: where it was told that the table's header stands."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.headers: list[int] = []

    def contents(self) -> bytes:
        return b"j" * self.size

    def table_written(self, addr: int) -> None:
        self.headers.append(addr)


class Data:
    """Our data memory, which is live."""

    def __init__(self, target: FakeTarget) -> None:
        self.memory = self
        self.written: list[tuple[int, bytes]] = target.written
        self.bytes = target.memory[DATA]

    def write(self, addr: int, data: bytes) -> None:
        self.written.append((addr, data))
        self.bytes[addr - DATA : addr - DATA + len(data)] = data


def access(target: Target, log: Log | None = None) -> GuestAccess:
    anything: Any = target
    journal: Any = log
    facts: Any = None
    return GuestAccess(anything, anything, facts, journal, PauseClock(anything), 1.0, lambda: False)


def target(**options: Any) -> Target:
    return Target({CODE: bytearray(5 << 19), DATA: bytearray(0x4000)}, running=True, **options)


def test_code_is_written_in_short_pauses_and_read_back() -> None:
    guest = target()
    image = bytes(range(256)) * (9 << 10)
    write_code(access(guest), CODE + 64, image)
    assert guest.memory[CODE][64 : 64 + len(image)] == image and guest.running
    assert [len(data) for _, data in guest.written] == [1 << 20, 1 << 20, 1 << 18]


def test_code_that_does_not_read_back_is_an_error() -> None:
    guest = target(ignore=frozenset({CODE + (1 << 20)}))
    with pytest.raises(ConflictError, match="does not read back") as caught:
        write_code(access(guest), CODE, b"\x90" * (1 << 21))
    assert caught.value.addr == CODE + (1 << 20) and guest.running


def test_so_is_the_block_of_the_trap_handler() -> None:
    guest = target()
    write_trap_data(access(guest), DATA, b"block")
    assert guest.memory[DATA][:5] == b"block"
    with pytest.raises(GuestError, match="does not read back"):
        write_trap_data(access(target(ignore=frozenset({DATA}))), DATA, b"block")


def plan(offset: int) -> Any:
    class Plan:
        table = offset

    return Plan()


def test_the_header_of_the_table_comes_last_and_then_the_journal_says_that_it_stands() -> None:
    guest, log = target(), Log(100)
    data: Any = Data(guest)
    code, room = Allocation("exec", CODE, 0x1000), Allocation("data", DATA, 0x2000)
    write_table(access(guest, log), plan(0x1000), data, code=code, data=room)
    assert [addr for addr, _ in guest.written] == [DATA + 0x1000, CODE] and log.headers == [CODE]
    assert guest.memory[DATA][0x1000:0x1064] == b"j" * 100


def test_a_table_that_does_not_fit_is_never_begun() -> None:
    guest, log = target(), Log(0x1001)
    data: Any = Data(guest)
    with pytest.raises(InternalError):
        write_table(
            access(guest, log),
            plan(0x1000),
            data,
            code=Allocation("exec", CODE, 0x1000),
            data=Allocation("data", DATA, 0x2000),
        )
    assert guest.written == [] and log.headers == []

"""Scripted stubs, and one guest for each module that needs it, idle but for one busy loop of system calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from scripted_stub import Connect, ScriptedStub

from probekit.target.api import Target
from probekit.target.connect import connect as connect_target
from probekit.target.rsp import RspTarget
from vm.guest import Guest


@dataclass(frozen=True)
class Live:
    guest: Guest
    symbols: dict[str, int]

    def alive(self) -> bool:
        """The guest runs, and its console shows no trouble."""
        return self.guest.exec("true", timeout=30).status == 0 and not self.guest.console_problems()


_NAMES = "_text _etext jiffies __x64_sys_getppid __x64_sys_newuname linux_banner"


@pytest.fixture(scope="module")
def live(guest: Guest) -> Iterator[Live]:
    pattern = _NAMES.replace(" ", "|")
    lines = guest.check(f"grep -E ' ({pattern})$' /proc/kallsyms").splitlines()
    symbols = {name: int(addr, 16) for addr, _, name in (line.split() for line in lines if line.strip())}
    running = guest.spawn("while :; do uname -a >/dev/null; usleep 50000; done")
    yield Live(guest, symbols)
    running.stop("KILL")


@pytest.fixture(params=["rsp", "gdb"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(live: Live, transport: str) -> Iterator[Target]:
    made = connect_target(live.guest.gdb if transport == "rsp" else f"gdb:{live.guest.gdb}", timeout=10)
    yield made
    made.detach()
    assert live.alive()


@pytest.fixture
def stubs() -> Iterator[Callable[..., ScriptedStub]]:
    made: list[ScriptedStub] = []

    def make(**options: object) -> ScriptedStub:
        made.append(ScriptedStub(**options))
        return made[-1]

    yield make
    for stub in made:
        stub.close()


@pytest.fixture
def connect(stubs: Callable[..., ScriptedStub]) -> Connect:
    def make(*, timeout: float = 3.0, **options: object) -> tuple[RspTarget, ScriptedStub]:
        stub = stubs(**options)
        target = RspTarget(stub.stream, name="stub", timeout=timeout)
        target._session.link.timeout = timeout
        return target, stub

    return make

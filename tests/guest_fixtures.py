"""Live guests for tests: one boot for each kind, shared by all modules that take it, checked after every test.

    pytestmark = pytest.mark.guest              # both kernels of the matrix

    @only(PTI)                                  # or only some kinds
    def test_something(guest: Guest, probekit: Probekit) -> None: ...

A guest is unharmed when its kernel's text is byte for byte what it was (read from
its memory file after each test; through the stub, by a reader of the tests' own,
that of its modules after each module of tests and all of it before the guest is
stopped) and its console shows no trouble.
A guest that was harmed is not used again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pytest import PytestWarning

from probekit.session.recover import recover
from tests.live.snapshot import TextSnapshot
from tests.live.tool import Probekit
from tests.reporting import FAILED
from vm.errors import GuestNotReadyError
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

__all__ = ("K61", "K61RT", "K612", "KERNELS", "PTI", "PTI612", "SINGLE", "Kind", "only", "share")


@dataclass(frozen=True, slots=True)
class Kind:
    """What distinguishes one guest from another."""

    kernel: str
    append: str = ""
    tcg: str = "multi"

    def __str__(self) -> str:
        return "-".join(filter(None, (self.kernel, self.append.replace("=", "_"), "" if self.tcg == "multi" else "st")))

    def boot(self) -> Guest:
        """A new guest of this kind. One has been seen to stand still as its second CPU came up, before anything of
        ours was near it: such a guest is booted again, once, and that is said."""
        try:
            return self._start()
        except GuestNotReadyError as error:
            warnings.warn(PytestWarning(f"booted again: {error}"), stacklevel=2)
            return self._start()

    def _start(self) -> Guest:
        return Guest.start(kernel=self.kernel, append=self.append, tcg=self.tcg)  # type: ignore[arg-type]


K61 = Kind("6.1-cloud")
K612 = Kind("6.12-cloud")
PTI = Kind("6.1-cloud", append="pti=on")
PTI612 = Kind("6.12-cloud", append="pti=on")
K61RT = Kind("6.1-rt")
KERNELS = (K61, K612)
SINGLE = tuple(Kind(kind.kernel, tcg="single") for kind in KERNELS)
"""For tests that make the guest rewrite its own running code, which QEMU gets wrong at times when each vCPU has a
thread of its own (vm/README.md)."""


def share(guest: Guest, turns: int, kinds: Sequence[Kind] = KERNELS, *, together: int = 1) -> list[int]:
    """Return which of a number of turns a guest takes, where the kinds of guest share them.

    Six turns of two kinds: 0, 2, 4 for the first one and 1, 3, 5 for the second one; with two turns ``together``,
    0, 1, 4, 5 and 2, 3.
    """
    own = [kind.kernel for kind in kinds].index(guest.kernel)
    return [turn for turn in range(turns) if turn // together % len(kinds) == own]


def only(*kinds: Kind) -> pytest.MarkDecorator:
    """Run a test on these kinds of guest and not on the whole matrix."""
    return pytest.mark.parametrize("guest", kinds, indirect=True, ids=str, scope="module")


@dataclass
class _Shared:
    """A booted guest and how it looked at its first use."""

    guest: Guest
    text: KernelCode
    before: bytes
    snapshot: TextSnapshot
    reported: set[str] = field(default_factory=set)

    def changed_text(self) -> list[str]:
        """Differences of the kernel's own text, by its memory file. The guest may run."""
        return [f"{self.snapshot.kernel_start + at:#x}" for at in differences(self.before, self.text.read())[:20]]

    def new_problems(self) -> list[str]:
        """Console lines that report trouble, each once."""
        found = [line for line in self.guest.console_problems() if line not in self.reported]
        self.reported.update(found)
        return found


@dataclass
class GuestPool:
    """Booted guests by kind; at most ``most`` at a time, the longest unused goes first.

    ``harm``: what was changed in those that have gone.
    """

    most: int = 3
    guests: dict[Kind, _Shared] = field(default_factory=dict)
    harm: list[str] = field(default_factory=list)

    def take(self, kind: Kind) -> _Shared:
        """The guest of this kind, booted if need be."""
        shared = self.guests.pop(kind, None)
        if shared is None or not shared.guest.running():
            while len(self.guests) >= self.most:
                self.harm += self.drop(next(iter(self.guests)))
            guest = kind.boot()
            try:
                text = KernelCode.locate(guest)
                shared = _Shared(guest, text, text.read(), TextSnapshot.take(guest))
            except BaseException:
                guest.stop()
                raise
        self.guests[kind] = shared
        return shared

    def drop(self, kind: Kind) -> list[str]:
        """End it. What was changed in it, in words."""
        shared = self.guests.pop(kind, None)
        if shared is None:
            return []
        try:
            gone = not shared.guest.running() or shared.guest.panicked()
            return [] if gone else [f"{kind}: {change}" for change in shared.snapshot.changes(shared.guest)]
        finally:
            shared.guest.stop()


@pytest.fixture(scope="session")
def guest_pool() -> Iterator[GuestPool]:
    pool = GuestPool()
    yield pool
    for kind in list(pool.guests):
        pool.harm += pool.drop(kind)
    assert pool.harm == [], "guests were left changed"


@pytest.fixture(scope="module", params=KERNELS, ids=str)
def guest(request: pytest.FixtureRequest, guest_pool: GuestPool) -> Iterator[Guest]:
    """A guest of each kernel of the matrix, unharmed behind the module's tests."""
    shared = guest_pool.take(request.param)
    yield shared.guest
    harm = [] if shared.guest.panicked() else shared.snapshot.changes(shared.guest, kernel=False)
    harm += shared.guest.console_problems()
    if harm:
        guest_pool.drop(request.param)
    assert harm == [], f"the guest {shared.guest.name} was left changed"


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Behind each test that takes ``guest``: kernel text as it was, nothing new on the console."""
    if "guest" not in request.fixturenames or "guest_pool" not in request.fixturenames:
        yield
        return
    guest: Guest = request.getfixturevalue("guest")
    pool: GuestPool = request.getfixturevalue("guest_pool")
    yield
    kind, shared = next(((k, s) for k, s in pool.guests.items() if s.guest is guest), (None, None))
    if kind is None or shared is None:
        return
    if request.node.stash.get(FAILED, False) and guest.running() and not guest.panicked():
        recover(guest.gdb)  # what the failed test has left in the guest would fail all that follow
    harm = shared.changed_text() + shared.new_problems()
    if harm:
        # Let the next test begin from what is there now, or every one of them would fail for this one.
        shared.before = shared.text.read()
    assert harm == [], "the test left the guest changed"


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A symbol cache that all live tests share, and nobody else."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def homes(tmp_path: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This test's own state directory, for this process and in the environment for others."""
    wanted = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(cache_home)}
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PROBEKIT_TARGET", raising=False)
    return wanted


@pytest.fixture
def probekit(guest: Guest, homes: dict[str, str]) -> Iterator[Probekit]:
    """The command line, aimed at the guest."""
    tool = Probekit(guest.gdb, {**os.environ, **homes})
    yield tool
    tool.end_all()


@pytest.fixture
def tool(homes: dict[str, str]) -> Iterator[Callable[[str], Probekit]]:
    """The command line, aimed at a target of the test's choice."""
    made: list[Probekit] = []

    def make(spec: str) -> Probekit:
        made.append(Probekit(spec, {**os.environ, **homes}))
        return made[-1]

    yield make
    for one in made:
        one.end_all()

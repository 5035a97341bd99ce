"""Killed, or refused one system call, at points that spread over the whole life of a trace and of its recovery.

The points are counted in a whole run first, so that a long wait has no more of them than a short step. Then the guest
is recovered from the state directory of the process and from another one, in turns whichever comes first. After that
every byte of text is back, no memory is left, the guest lives, and its console is clean.

    pytest tests/live/test_faults.py --faults 300 --fault-seed 7
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.guest_fixtures import share
from tests.live.faulty import KINDS, STAGES
from tests.live.tool import Probekit, Result
from tests.live.work import our_memory
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest

LIMIT = 120.0
GUEST_ENGINE = (
    *("-n", "fbt::vfs_*: { @[probefunc, probename] = count(); @q[probename] = quantize(arg0); }"),
    *("-n", "kinst::vfs_read:, kinst::vfs_write: { @k = count(); }"),
    *("-n", "syscall::read:entry { printf(\"%d\", pid); }"),
    *("-n", "profile-97 { @p[pid] = count(); }"),
    *("-n", "tick-150ms { exit(0); }"),
)  # fmt: skip
STOP_ENGINE = ("--engine", "stop", "-n", "fbt::do_sys_openat2:entry { @ = count(); } tick-150ms { exit(0); }")


@pytest.fixture(scope="module", autouse=True)
def load(guest: Guest) -> Iterator[None]:
    running = guest.spawn("mixed 3600 2")
    yield
    running.stop("KILL")


@dataclass
class Bench:
    """A guest, two state directories, and the points of a whole run of each program."""

    guest: Guest
    here: Probekit
    other: Probekit
    folder: Path
    points: dict[tuple[str, ...], dict[str, int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.text = KernelCode.locate(self.guest)
        self.before = self.text.read()
        self.memory = our_memory(self.guest)

    def process(self, *own: str, program: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """Run probekit with points, and wait for its end."""
        command, rest = (program[:1], program[1:]) if program[0] == "recover" else ((), program)
        return subprocess.run(
            [sys.executable, "-m", "tests.live.faulty", *own, "--", *command, "-r", self.guest.gdb, *rest],
            env=self.here.env,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def count(self, program: tuple[str, ...]) -> dict[str, int]:
        """Return how many points each stage of ``program`` has."""
        if program not in self.points:
            kept = self.folder / "points"
            done = self.process("count", str(kept), program=program)
            assert done.returncode == 0, done.stderr
            stages: dict[str, int] = defaultdict(int)
            for line in kept.read_text().splitlines():
                stages[line.split()[0]] += 1
            self.points[program] = dict(stages)
        return self.points[program]

    def kill_live(self) -> None:
        """Leave probes in the guest."""
        last = self.count(GUEST_ENGINE)["trace"] - 1
        self.process("after", "trace", str(max(last // 2, 0)), program=GUEST_ENGINE)

    def recover(self, first: Probekit, second: Probekit) -> list[Result]:
        """Recover from both directories. After that each of them has nothing more to recover.

        Only the lock in its own directory says that the process had stopped the guest. For the other directory that is
        somebody's pause, which it says, and leaves what needs a guest that runs; then it is asked again.
        """
        results = [first.recover(), second.recover()]
        if "the guest is paused" in results[0].stdout:
            assert results[0].status == 1 and first is self.other, results[0].stdout
            self.counts["paused"] += 1
            results[0] = first.recover()
        for done in (first.recover(), second.recover()):
            clean = done.status == 0 and "nothing to recover" in done.stdout
            assert clean, "\n".join(one.stdout + one.stderr for one in [*results, done])
        return results

    def check(self, done: list[Result]) -> None:
        """See that the guest is as it was; what is not must have been named."""
        assert differences(self.before, self.text.read()) == []
        assert self.guest.exec("true", timeout=60).status == 0
        assert self.guest.console_problems() == []
        left = [line for line in our_memory(self.guest) if line not in self.memory]
        named = [line for one in done for line in one.stdout.splitlines() if "may be left" in line]
        self.counts["named"] += bool(named)
        assert left == [], (left, named)
        for one in done:
            assert one.status == 0 or named, one.stdout + one.stderr


@pytest.fixture
def bench(guest: Guest, homes: dict[str, str], tmp_path: Path) -> Iterator[Bench]:
    tools = [Probekit(guest.gdb, {**os.environ, **homes, "XDG_STATE_HOME": str(tmp_path / n)}) for n in ("a", "b")]
    yield Bench(guest, *tools, tmp_path)
    for tool in tools:
        tool.end_all()


@pytest.mark.timeout(36000)  # each step of it has its own limit
def test_a_fault_at_any_point(bench: Bench, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--fault-seed")
    seed = random.randrange(1 << 32) if seed is None else seed
    turns = share(bench.guest, request.config.getoption("--faults"))
    print(f"seed {seed}, {len(turns)} faults")
    for turn in turns:
        chance = random.Random(f"{seed} {turn}")
        stage = STAGES[chance.randrange(len(STAGES))]
        kind = chance.choice(KINDS)
        program = GUEST_ENGINE if stage == "recover" or chance.random() < 0.85 else STOP_ENGINE
        if stage == "recover":
            if ("recover",) not in bench.points:
                bench.kill_live()
            points = bench.count(("recover",))
            bench.kill_live()
            program = ("recover",)
        else:
            points = bench.count(program)
        number = chance.randrange(points.get(stage, 0) or 1)
        order = (bench.here, bench.other) if chance.random() < 0.5 else (bench.other, bench.here)
        where = f"seed {seed}, turn {turn}: {kind} {stage} {number} of {points.get(stage)}, {program[:2]}"
        where += f", recovered from {'its own' if order[0] is bench.here else 'another'} directory first"
        done: subprocess.CompletedProcess[str] | None = None
        try:
            done = bench.process(kind, stage, str(number), program=program)
            bench.counts["hit" if "fault: " in done.stderr else "missed"] += 1
            bench.counts[f"{stage} {kind}"] += 1
            assert "Traceback" not in done.stderr
            bench.check(bench.recover(*order))
        except BaseException as error:
            error.add_note(where)
            if done is not None:
                error.add_note(f"status {done.returncode}\n{done.stderr[-3000:]}")
            raise
    print(dict(bench.counts), {program[:2]: points for program, points in bench.points.items()})
    assert bench.counts["hit"] >= len(turns) // 2

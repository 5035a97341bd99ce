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

from probekit.session.recover import Recovered, recover
from tests.guest_fixtures import share
from tests.live.faulty import KINDS, STAGES
from tests.live.work import our_memory
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest

LIMIT = 120.0
HERE, OTHER = "here", "other"
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
    """A guest, a folder with two state directories, and the points of a whole run of each program.

    ``env``: of probekit's processes, whose state directory is the first one.
    """

    guest: Guest
    env: dict[str, str]
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
            env=self.env,
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

    def recover(self, first: str, second: str) -> list[Recovered]:
        """Recover from both directories, until neither of them has anything more to recover.

        This process does it as the command would, in a fraction of the time. Only the lock in its own directory says
        that the process had stopped the guest. For the other directory that is somebody's pause, which it says, and
        leaves what needs a guest that runs; then it is asked again.
        """
        results = [self.recover_in(first), self.recover_in(second)]
        if any("the guest is paused" in problem for problem in results[0].problems):
            assert first == OTHER, results[0]
            self.counts["paused"] += 1
            results[0] = self.recover_in(first)
        for name, done in zip((first, second), list(results), strict=True):
            if not done.clean:
                again = self.recover_in(name)
                assert again.clean, (name, results, again)
        return results

    def recover_in(self, name: str) -> Recovered:
        """Recover from one of the state directories."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("XDG_STATE_HOME", str(self.folder / name))
            return recover(self.guest.gdb)

    def check(self, done: list[Recovered]) -> None:
        """See that the guest is as it was; what is not must have been named."""
        assert differences(self.before, self.text.read()) == []
        assert self.guest.exec("true", timeout=60).status == 0
        assert self.guest.console_problems() == []
        left = [line for line in our_memory(self.guest) if line not in self.memory]
        problems = [problem for one in done for problem in one.problems]
        named = [problem for problem in problems if "may be left" in problem]
        self.counts["named"] += bool(named)
        assert left == [], (left, named)
        assert problems == named


@pytest.fixture
def bench(guest: Guest, homes: dict[str, str], tmp_path: Path) -> Bench:
    return Bench(guest, {**os.environ, **homes, "XDG_STATE_HOME": str(tmp_path / HERE)}, tmp_path)


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
        order = (HERE, OTHER) if chance.random() < 0.5 else (OTHER, HERE)
        where = f"seed {seed}, turn {turn}: {kind} {stage} {number} of {points.get(stage)}, {program[:2]}"
        where += f", recovered from {'its own' if order[0] == HERE else 'another'} directory first"
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

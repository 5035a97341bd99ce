"""Everything at once, for a while: entries, returns and thousands of instructions under a mixed load.

``--soak 600`` makes it ten minutes.
"""

from __future__ import annotations

import random

import pytest

from probekit.isa.decode import instruction_starts
from probekit.session.attach import attach
from probekit.session.options import Options
from tests.live.inprocess import trace
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

INSTRUCTIONS = 5000
FIRST = 500  # of them at a function's first instruction, where the count is known: that of its entries
MARGIN = 300.0  # seconds for all but the load itself
FORK_AND_MORE = "mixed {seconds:.0f} 4"


def _some_instructions(guest: Guest, chance: random.Random) -> tuple[list[str], list[str]]:
    """``(anywhere, first)``: kinst descriptions of instructions all over the kernel, and of first ones."""
    with attach(guest.gdb) as attachment:
        names: dict[str, int] = {}
        for function in attachment.functions:
            names[function.name] = names.get(function.name, 0) + 1
        # One description is to be one probe.
        plain = [f for f in attachment.functions if names[f.name] == 1 and f.name.replace("_", "").isalnum()]
        chosen = chance.sample(plain, 3 * INSTRUCTIONS)
        code = attachment.read_code([(f.addr, f.size) for f in chosen])
    first = [f"kinst::{function.name}:0" for function in chosen[:FIRST]]
    anywhere: list[str] = []
    for function, text in zip(chosen[FIRST:], code[FIRST:], strict=True):
        starts = instruction_starts(text or b"", function.addr)
        if len(starts) > 4 and len(anywhere) < INSTRUCTIONS - FIRST:
            anywhere.append(f"kinst::{function.name}:{chance.choice(starts[1:]) - function.addr}")
    return anywhere, first


def test_everything_at_once(guest: Guest, homes: object, request: pytest.FixtureRequest) -> None:
    seconds = float(request.config.getoption("--soak")) / 2  # the matrix shares it
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    anywhere, first = _some_instructions(guest, random.Random(seed))
    assert len(anywhere) + len(first) == INSTRUCTIONS
    script = f"""
        fbt:::entry {{ @entries[probefunc] = count(); }}
        fbt:::return {{ @returns[probefunc] = count(); }}
        {", ".join(anywhere)} {{ @anywhere = count(); }}
        {", ".join(first)} {{ @first[probefunc] = count(); }}
    """
    work = lines(guest, FORK_AND_MORE.format(seconds=seconds), seconds + MARGIN)
    done = trace(guest, script, work, options=Options(zdefs=True), limit=seconds + MARGIN)
    assert [said for said in done.trouble() if "does not match any probes that are available" not in str(said)] == [], (
        seed
    )
    assert done.stats["sites"] >= 80_000
    refused = {r.probe.name for r in done.refused if r.probe.name.provider == "kinst"}
    assert len(refused) < INSTRUCTIONS * 0.2, seed
    entries, returns = done.table("entries"), done.table("returns")
    assert sum(entries.values()) > 1_000_000 * seconds / 15, seed
    assert 0.9 < sum(returns.values()) / sum(entries.values()) < 1.1, seed
    assert done.table("anywhere")[()] > 0
    # A first instruction is executed once an entry, but for calls that were under way when probing began and ended.
    wrong = {
        key[0]: (count, entries.get(key, 0))
        for key, count in done.table("first").items()
        if key in entries and abs(count - entries[key]) > 2 * guest.smp
    }
    assert wrong == {}, seed
    assert guest.exec("true", timeout=60).status == 0

"""What one guest's kernel is found to be: preemptible or not, whose clock, and how it takes INT3."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.errors import TargetError
from probekit.guest.find_facts import _preempt_count, _preemptible, _tsc_shared, find_trap_facts, is_emulated
from probekit.guest.trap_registration import TrapFacts
from probekit.kernel.btf import Btf
from tests.kernel.fakes import BtfWriter

HOOKS = ("register_die_notifier", "unregister_die_notifier", "bpf_ksym_add", "bpf_ksym_del")


class Kernel:
    """``symbols``: address and value of each by name."""

    def __init__(self, symbols: dict[str, int], values: dict[str, int] | None = None, btf: Btf | None = None) -> None:
        self._symbols = symbols
        self._values = values or {}
        self.btf = btf
        self.symbols = self.memory = self

    def addr(self, name: str) -> int | None:
        return self._symbols.get(name)

    def u32(self, addr: int) -> int:
        return next(self._values[name] for name, at in self._symbols.items() if at == addr)

    def exception_entries(self) -> dict[int, tuple[int, int]]:
        return {0x100: (0x200, 3)}


def kernel(*names: str, btf: Btf | None = None, **values: int) -> Any:
    symbols = {name: 0x1000 + 16 * n for n, name in enumerate((*names, *values))}
    return Kernel(symbols, values, btf)


@pytest.mark.parametrize(("mode", "preemptible"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_kernel_that_chooses_at_boot_is_what_it_has_chosen(mode: int, preemptible: bool) -> None:
    assert _preemptible(kernel("preempt_schedule_irq", preempt_dynamic_mode=mode)) is preemptible


def test_a_kernel_that_was_built_so_is_preemptible_or_not() -> None:
    assert _preemptible(kernel("preempt_schedule_irq")) and not _preemptible(kernel(preempt_dynamic_mode=2))


def test_one_clock_for_all() -> None:
    assert _tsc_shared(kernel(tsc_unstable=1), emulated=True)
    assert _tsc_shared(kernel(tsc_unstable=0), emulated=False)
    assert not _tsc_shared(kernel(tsc_unstable=1), emulated=False) and not _tsc_shared(kernel(), emulated=False)


def test_who_runs_the_cpus() -> None:
    class Target:
        def __init__(self, said: str | None) -> None:
            self.said = said

        def monitor(self, command: str) -> str:
            if self.said is None:
                raise TargetError("no monitor")
            return self.said

    for said, emulated in (("kvm support: disabled", True), ("kvm support: enabled", False), (None, False)):
        target: Any = Target(said)
        assert is_emulated(target) is emulated


def types(*, head: bool = True, ksym: bool = True) -> Btf:
    w = BtfWriter()
    word, number, byte = w.int("long", 8), w.int("int", 4), w.int("char", 1)
    w.struct("notifier_block", 24, [("notifier_call", word, 0), ("next", word, 64), ("priority", number, 128)])
    if head:
        w.struct("atomic_notifier_head", 16, [("lock", number, 0), ("head", word, 64)])
    w.struct("pt_regs", 168, [("ip", word, 128 * 8), ("cs", word, 136 * 8)])
    w.struct("die_args", 40, [("regs", word, 0)])
    w.struct("pcpu_hot", 64, [("preempt_count", number, 64)])
    w.struct("exception_table_entry", 12, [("insn", number, 0), ("fixup", number, 32), ("data", number, 64)])
    if ksym:
        name = w.array(byte, 16)
        fields = [("start", word, 0), ("end", word, 64), ("name", name, 128), ("lnode", word, 256), ("prog", byte, 320)]
        inner = w.struct("bpf_ksym", 64, fields)
        w.struct(
            "bpf_prog_aux",
            200,
            [("ksym", inner, 64), ("prog", word, 640), ("num_exentries", number, 704), ("extable", word, 768)],
        )
        w.struct("bpf_prog", 56, [("aux", word, 128)])
    return Btf(w.data())


def test_int3_is_taken_by_a_die_notifier() -> None:
    found = find_trap_facts(kernel(*HOOKS, "die_chain", "search_bpf_extables", btf=types()))
    assert isinstance(found, TrapFacts)
    assert (found.int3, found.ip, found.cs, found.block.size) == (2, 128, 136, 24)
    assert found.chain == 0x1000 + 16 * 4 + 8 and found.fixups[0x100].target == 0x200
    assert found.ksym is not None and (found.ksym.start, found.ksym.end) == (0, 8) and found.ksym.aux_size == 208


@pytest.mark.parametrize("missing", ["bpf_ksym_add", "search_bpf_extables"])
def test_without_bpf_a_copy_has_no_exception_table(missing: str) -> None:
    names = [name for name in (*HOOKS, "die_chain", "search_bpf_extables") if name != missing]
    found = find_trap_facts(kernel(*names, btf=types()))
    assert isinstance(found, TrapFacts) and found.ksym is None


@pytest.mark.parametrize(
    ("names", "btf", "said"),
    [
        (HOOKS, None, "type information"),
        (HOOKS[1:], types(), "no chain of die notifiers"),
        ((*HOOKS, "__cfi_kprobe_exceptions_notify"), types(), "kCFI"),
        ((*HOOKS, "die_chain"), types(head=False), "not as expected"),
    ],
)
def test_why_int3_cannot_be_taken(names: tuple[str, ...], btf: Btf | None, said: str) -> None:
    found = find_trap_facts(kernel(*names, btf=btf))
    assert isinstance(found, str) and said in found


def test_where_the_preemption_count_is() -> None:
    assert _preempt_count(kernel("__preempt_count")) == 0x1000
    assert _preempt_count(kernel("pcpu_hot", btf=types())) == 0x1008
    assert _preempt_count(kernel("pcpu_hot")) is None and _preempt_count(kernel()) is None

"""The stub's vCPUs and gdb's threads: the map is read from target ids, and registers go by name."""

from __future__ import annotations

import pytest
from scripted_gdb import ScriptedGdb

from probekit.errors import ProtocolError, TargetError
from probekit.target.gdb_threads import GdbThreads
from probekit.target.register_layout import CORE

_NAMES = [*CORE, "st0", "", "cr3"]


def _gdb(*threads: tuple[str, str], registers: dict[str, str] | None = None) -> ScriptedGdb:
    values = {name: hex(number) for number, name in enumerate(_NAMES) if name not in ("st0", "")} | (registers or {})
    return ScriptedGdb(
        {
            "-data-list-register-names": {"register-names": _NAMES},
            "-thread-info": {"threads": [{"id": number, "target-id": text} for number, text in threads]},
            "-data-list-register-values": {
                "register-values": [
                    {"number": str(_NAMES.index(name)), "value": value} for name, value in values.items()
                ]
            },
        }
    )


def _loaded(gdb: ScriptedGdb) -> GdbThreads:
    threads = GdbThreads(gdb, "gdb:x")
    threads.load()
    return threads


TWO = (("1", "Thread 1.2 (CPU#1 [running])"), ("2", "Thread 1.1 (CPU#0 [halted ])"))


def test_a_vcpu_is_known_by_the_stubs_number_not_by_gdbs() -> None:
    gdb = _gdb(*TWO)
    threads = _loaded(gdb)
    assert threads.vcpus() == (2, 1)
    assert (threads.thread(2), threads.thread(1)) == (1, 2)
    assert (threads.vcpu_of("1"), threads.vcpu_of("2"), threads.vcpu_of("9")) == (2, 1, 2)


@pytest.mark.parametrize(("text", "vcpu"), [("Thread 0x1f", 0x1F), ("Thread 1.a", 10), ("something else", 7)])
def test_a_target_id_is_read_in_every_form(text: str, vcpu: int) -> None:
    assert _loaded(_gdb(("7", text))).vcpus() == (vcpu,)


def test_a_vcpu_that_does_not_exist_is_looked_for_once_more_and_refused() -> None:
    gdb = _gdb(*TWO)
    threads = _loaded(gdb)
    before = gdb.sent.count("-thread-info")
    with pytest.raises(TargetError, match="no vCPU 5"):
        threads.thread(5)
    assert gdb.sent.count("-thread-info") == before + 1


def test_a_thread_is_selected_only_when_another_may_be() -> None:
    gdb = _gdb(*TWO)
    threads = _loaded(gdb)
    for _ in range(2):
        threads.select(2)
    assert gdb.sent.count("-thread-select 1") == 1
    threads.deselect()
    threads.select(2)
    assert gdb.sent.count("-thread-select 1") == 2


def test_a_machine_without_vcpus_or_of_another_kind_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no vCPU"):
        _loaded(_gdb())
    gdb = _gdb(*TWO)
    gdb.answers["-data-list-register-names"] = {"register-names": ["x0", "x1", "pc"]}
    with pytest.raises(ProtocolError, match="x86-64 machine"):
        _loaded(gdb)


def test_registers_are_read_by_name_and_only_those_we_know() -> None:
    regs = _loaded(_gdb(*TWO)).read_registers(1)
    assert regs["rip"] == _NAMES.index("rip") and regs["cr3"] == _NAMES.index("cr3")
    assert "st0" not in regs.values and regs.raw == b""


def test_a_register_that_is_no_number_or_is_left_out_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="not a number"):
        _loaded(_gdb(*TWO, registers={"rip": "<unavailable>"})).read_registers(1)
    gdb = _gdb(*TWO)
    gdb.answers["-data-list-register-values"] = {"register-values": [{"number": "0", "value": "0x1"}]}
    with pytest.raises(ProtocolError, match="left registers out"):
        _loaded(gdb).read_registers(1)


def test_only_registers_that_differ_are_written_and_to_the_right_thread() -> None:
    gdb = _gdb(*TWO)
    threads = _loaded(gdb)
    threads.write_registers(1, threads.read_registers(1).replace(rip=0x1234))
    assert gdb.sent[-2:] == ["-thread-select 2", "-gdb-set var $rip = 0x1234"]

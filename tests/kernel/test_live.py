"""Against running kernels: what is found from outside is what the kernel says of itself."""

from __future__ import annotations

import base64
import hashlib
import time
from pathlib import Path

import pytest

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CArray, strip
from probekit.kernel.open_kernel import open_kernel

from .conftest import Live

pytestmark = pytest.mark.guest


def test_every_symbol_is_as_in_proc_kallsyms(live: Live) -> None:
    mine = sorted((s.addr, s.name, s.module) for s in live.kernel.symbols)
    theirs = sorted(
        (addr, name, module)
        for addr, _, name, module in live.rows
        # Not in any symbol table: trampolines that the kernel makes at run time.
        if module not in ("bpf", "__builtin__ftrace", "__builtin__kprobes")
    )
    assert mine == theirs
    assert live.kernel.module_error is None


def test_kernel_type_letters_and_order(live: Live) -> None:
    mine = [(s.addr, s.type_char, s.name) for s in live.kernel.symbols if not s.module]
    assert mine == [row[:3] for row in live.rows if not row[3]]


def test_the_release_build_id_and_version_are_the_guests_own(live: Live) -> None:
    kernel = live.kernel
    assert kernel.release == live.guest.release
    notes = bytes.fromhex(_exec_after(live, "od -An -v -tx1 /sys/kernel/notes | tr -d ' \\n'"))
    assert kernel.build_id is not None and bytes.fromhex(kernel.build_id) in notes
    assert kernel.version == _exec_after(live, "cat /proc/version").strip()


def _exec_after(live: Live, command: str) -> str:
    """The guest must run to answer; it is stopped again afterwards."""
    live.target.resume()
    try:
        return live.guest.check(command, timeout=60)
    finally:
        live.target.stop()


def test_modules_are_those_of_proc_modules(live: Live) -> None:
    listed = {}
    for line in _exec_after(live, "cat /proc/modules").splitlines():
        name, _size, _refs, _deps, state, _addr = line.split()[:6]
        listed[name] = state.lower()
    assert {m.name: m.state for m in live.kernel.modules} == listed and listed
    for module in live.kernel.modules:
        text = [s for s in live.kernel.symbols.text(module.name) if s.type_char in "tT"]
        assert sum(module.text_start <= s.addr < module.text_end for s in text) >= len(text) / 2


def test_btf_is_the_kernels_own(live: Live) -> None:
    theirs = _exec_after(live, "md5sum < /sys/kernel/btf/vmlinux").split()[0]
    assert live.kernel.btf is not None and hashlib.md5(live.kernel.btf.data).hexdigest() == theirs


def test_a_modules_types_are_those_of_sysfs(live: Live) -> None:
    names = _exec_after(live, "ls /sys/kernel/btf").split()
    for module in live.kernel.modules:
        types = live.kernel.btf_of(module.name)
        assert (types is not None) == (module.name in names)
        if types is not None:
            encoded = _exec_after(live, f"base64 /sys/kernel/btf/{module.name}")
            again = Btf(base64.b64decode(encoded), base=live.kernel.btf)
            assert types.type_count == again.type_count
            assert set(types.names("func")) == set(again.names("func"))


def test_layouts_that_never_change(live: Live) -> None:
    btf = live.kernel.btf
    assert btf is not None
    assert [f.offset for f in btf.struct("list_head").fields()] == [0, 8]
    assert btf.struct("pt_regs").size == 168 and btf.struct("pt_regs").field("ip").offset == 128
    comm = strip(btf.struct("task_struct").field("comm").type)
    assert isinstance(comm, CArray) and comm.count == 16
    function = btf.function("vfs_read")
    assert function is not None and [p.name for p in function.params] == ["file", "buf", "count", "pos"]


def test_tasks_are_those_of_proc(live: Live) -> None:
    command = "for p in /proc/[0-9]*; do echo ${p#/proc/} $(cat $p/comm 2>/dev/null); done"
    theirs = dict(line.split(maxsplit=1) for line in _exec_after(live, command).splitlines() if " " in line)
    mine = {str(t.pid): t.comm for t in live.kernel.tasks() if t.pid == t.tgid and t.pid}
    # Kernel threads change their names in /proc (kworker/...); the rest must agree.
    common = [pid for pid in theirs if pid in mine and "kworker" not in theirs[pid]]
    assert len(common) > 20 and all(theirs[pid].startswith(mine[pid][:15]) for pid in common)
    assert mine["1"] == theirs["1"] and mine["2"] == "kthreadd"
    for task in live.kernel.tasks():
        assert task.on_cpu or task.stack_start < task.saved_sp < task.stack_end
    assert sum(task.comm.startswith("swapper/") for task in live.kernel.tasks()) == live.guest.smp


def test_the_current_task_of_each_cpu_is_found(live: Live) -> None:
    kernel = live.kernel
    cpus = kernel.cpus()
    assert cpus.online == tuple(range(live.guest.smp)) and set(cpus.online) <= set(cpus.possible)
    known = {task.addr for task in kernel.tasks()}
    for cpu in cpus.online:
        area = cpus.offsets[cpu]
        assert kernel.memory.u32(area + kernel.current.cpu) == cpu
        assert kernel.memory.u64(area + kernel.current.task) in known


def test_ftrace_sites_are_nops(live: Live) -> None:
    kernel = live.kernel
    sites = kernel.ftrace_sites()
    listed = _exec_after(live, "grep -vc __probestub /sys/kernel/tracing/available_filter_functions || true")
    assert len(sites) > 30_000 and abs(len(sites) - int(listed)) < len(sites) // 10
    (text,) = kernel.read_text("")
    inside = [site for site in sites if text.holds(site, 5)]
    nops = sum(text.read(site, 5) == bytes.fromhex("0f1f440000") for site in inside)
    assert nops == len(inside)


def test_entry_text_and_the_blacklist_are_excluded_and_usual_functions_are_not(live: Live) -> None:
    kernel = live.kernel
    ranges = kernel.exclusions()
    for name in ("exc_int3", "asm_exc_int3", "__x86_return_thunk", "startup_64", "notify_die"):
        addr = kernel.symbol(name)
        assert any(item.start <= addr < item.end for item in ranges), name
    for name in ("vfs_read", "do_sys_openat2", "__x64_sys_getppid", "tcp_sendmsg"):
        addr = kernel.symbol(name)
        assert not any(item.start <= addr < item.end for item in ranges), name
    listed = _exec_after(live, "cat /sys/kernel/debug/kprobes/blacklist").splitlines()
    for line in listed:
        start = int(line.split("-")[0], 16)
        assert any(item.start <= start < item.end for item in ranges), line
    assert len(listed) > 100


def test_rewritten_and_faulting_sites(live: Live) -> None:
    kernel = live.kernel
    text = kernel.text
    (image,) = kernel.read_text("")
    table = kernel.ex_table()
    bounds = kernel.symbols.range("__start___ex_table", "__stop___ex_table")
    assert bounds is not None and len(table) >= (bounds[1] - bounds[0]) // 12
    assert all(kernel.symbols.lookup(addr) for addr in table)
    keys = [s.addr for s in kernel.jump_sites() if s.kind == "static_key" and text.start <= s.addr < text.end - 5]
    calls = [s.addr for s in kernel.jump_sites() if s.kind == "static_call" and text.start <= s.addr < text.end - 5]
    assert len(keys) > 1000 and len(calls) > 1000
    # 5- and 2-byte nops and jumps; calls, tail jumps, "xor %eax,%eax" (return 0) and nops.
    assert {image.read(addr, 5)[0] for addr in keys} <= {0x0F, 0xE9, 0x66, 0xEB}
    assert {image.read(addr, 5)[0] for addr in calls} <= {0xE8, 0xE9, 0x0F, 0x2E, 0x66, 0xC3}


def test_cache_makes_the_second_attach_fast(live: Live, private_cache: Path) -> None:
    cold = open_kernel(live.target)
    assert not cold.from_cache and private_cache.stat().st_mode & 0o777 == 0o700
    started = time.perf_counter()
    warm = open_kernel(live.target)
    seconds = time.perf_counter() - started
    assert warm.from_cache and warm.base == cold.base
    assert list(map(str, warm.symbols)) == list(map(str, cold.symbols))
    assert [s.addr for s in warm.symbols] == [s.addr for s in cold.symbols]
    assert warm.btf is not None and cold.btf is not None and warm.btf.data == cold.btf.data
    # 0.2 to 0.3 s on a quiet machine; the bound leaves room for a busy one.
    assert seconds < 2


def test_symbol_files(live: Live, tmp_path: Path) -> None:
    addrs = [s.addr for s in live.kernel.symbols if not s.module]
    good = tmp_path / "kallsyms"
    good.write_text("".join(f"{addr:016x} {letter} {name}\n" for addr, letter, name, module in live.rows if not module))
    slid = tmp_path / "System.map"
    step = 0xFFFFFFFF81000000 - live.kernel.base
    slid.write_text(
        "".join(f"{a + step if a >> 63 else a:016x} {t} {n}\n" for a, t, n, module in live.rows if not module)
    )
    for path in (good, slid):
        opened = open_kernel(live.target, symbols_file=path)
        assert [s.addr for s in opened.symbols if not s.module] == addrs
    wrong = tmp_path / "wrong"
    wrong.write_text(
        "".join(
            f"{a + 0x1234 if n not in ('_text', '_stext') else a:016x} {t} {n}\n"
            for a, t, n, module in live.rows
            if a >> 63 and not module
        )
    )
    with pytest.raises(SymbolError, match="of another kernel"):
        open_kernel(live.target, symbols_file=wrong)

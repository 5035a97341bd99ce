"""Where system calls return that end in other functions."""

from __future__ import annotations

from probekit.enabling.syscall_returns import ExitFinder, SystemCalls, final_exits, load_jump_targets
from probekit.patch.sites import ExitKind, ExitSite, FunctionExits
from probekit.providers.api import Function

_FUNCTIONS = {addr: Function(addr, 16, f"f{addr:x}", "vmlinux") for addr in range(0x1000, 0x1100, 0x10)}


def _exit(func: int, at: int, kind: ExitKind = "ret", target: int | None = None) -> ExitSite:
    return ExitSite(func + at, b"\xc3" * 5, func, kind, 1, target)


def _exits(*sites: ExitSite) -> dict[int, FunctionExits | str]:
    found: dict[int, FunctionExits | str] = {}
    for func in {site.func_addr for site in sites}:
        found[func] = FunctionExits(func, tuple(site for site in sites if site.func_addr == func), ())
    return found


def _of(exits: dict[int, FunctionExits | str]) -> ExitFinder:
    return lambda function: exits[function.addr]


def _calls(*numbered: int) -> SystemCalls:
    return SystemCalls({addr: (number,) for number, addr in enumerate(numbered)}, _FUNCTIONS.get)


def test_every_end_is_found_once() -> None:
    """A call that returns by itself, or ends in two functions, one of which ends in the other."""
    exits = _exits(
        _exit(0x1000, 4),
        _exit(0x1000, 8, "tail_jump", 0x1010),
        _exit(0x1000, 9, "cond_tail_jump", 0x1020),
        _exit(0x1010, 2, "tail_jump", 0x1020),
        _exit(0x1010, 7, "return_thunk", 0x5000),
        _exit(0x1020, 1),
    )
    sites, missed = final_exits(_FUNCTIONS[0x1000], _calls(0x1000), _of(exits))
    assert [site.addr for site in sites] == [0x1004, 0x1017, 0x1021] and missed == ()


def test_what_is_missed_is_said() -> None:
    exits = _exits(
        _exit(0x1000, 1, "tail_jump", 0x1003),
        _exit(0x1000, 2, "indirect_tail_jump"),
        _exit(0x1000, 3, "tail_jump", 0x1010),
        _exit(0x1000, 4),
    )
    exits[0x1010] = "noinstr"
    sites, missed = final_exits(_FUNCTIONS[0x1000], _calls(0x1000), _of(exits))
    assert [site.addr for site in sites] == [0x1004]
    assert [addr for addr, _ in missed] == [0x1001, 0x1002, 0x1010]
    assert missed[2][1] == "it ends in f1010: noinstr"
    # A function that no number leads to cannot be told from others by it.
    sites, missed = final_exits(_FUNCTIONS[0x1000], _calls(), _of(exits))
    assert [site.addr for site in sites] == [0x1004] and [addr for addr, _ in missed] == [0x1001, 0x1002, 0x1003]


def test_there_is_an_end_to_it() -> None:
    """Functions that end in one another, and a longer row of them than anybody writes."""
    circle = _exits(_exit(0x1000, 1, "tail_jump", 0x1010), _exit(0x1010, 1, "tail_jump", 0x1000))
    assert final_exits(_FUNCTIONS[0x1000], _calls(0x1000), _of(circle)) == ((), ())
    row = _exits(*(_exit(addr, 1, "tail_jump", addr + 16) for addr in range(0x1000, 0x10F0, 16)))
    sites, missed = final_exits(_FUNCTIONS[0x1000], _calls(0x1000), _of(row))
    assert sites == () and len(missed) == 1 and "too many functions" in missed[0][1]


def test_functions_are_learned_in_rounds() -> None:
    exits = _exits(
        _exit(0x1000, 1, "tail_jump", 0x1010), _exit(0x1010, 1, "tail_jump", 0x1020), _exit(0x1020, 1), _exit(0x1030, 1)
    )
    functions = [_FUNCTIONS[addr] for addr in (0x1000, 0x1030)]
    learned: list[list[int]] = []
    load_jump_targets(functions, _calls(0x1000), lambda found: learned.append([f.addr for f in found]), _of(exits))
    assert learned == [[0x1010], [0x1020]]


def test_a_function_that_no_program_calls_is_known_where_all_numbers_are() -> None:
    dead, native = Function(0x1000, 16, "__ia32_sys_open", "vmlinux"), Function(0x1010, 16, "__x64_sys_open", "vmlinux")
    assert SystemCalls({}, _FUNCTIONS.get, frozenset({"32-bit"})).never_called(dead)
    assert not SystemCalls({}, _FUNCTIONS.get, frozenset({"64-bit"})).never_called(dead), "its numbers are not known"
    assert not SystemCalls({0x1000: (5,)}, _FUNCTIONS.get, frozenset({"32-bit"})).never_called(dead)
    assert SystemCalls({}, _FUNCTIONS.get, frozenset({"64-bit"})).never_called(native)
    assert not SystemCalls({}, _FUNCTIONS.get, frozenset({"32-bit", "64-bit"})).never_called(_FUNCTIONS[0x1000])

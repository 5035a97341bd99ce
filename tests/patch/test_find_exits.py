"""Every form of exit on bytes written by hand, with the assembly beside them."""

from __future__ import annotations

import pytest

from probekit.patch.find_exits import exit_sites
from probekit.patch.ranges import Ranges
from probekit.patch.sites import ExitSite, FunctionExits, TextFacts

F = 0xFFFFFFFF81000000  # the function
G = 0xFFFFFFFF81008000  # another one
COLD = 0xFFFFFFFF8100C000
THUNK = 0xFFFFFFFF81010000
NOP5 = "0f1f440000"

FACTS = TextFacts(starts=frozenset({F, G, THUNK}), return_thunks=frozenset({THUNK}))


def rel32(addr: int, size: int, target: int) -> str:
    return (target - addr - size & 0xFFFFFFFF).to_bytes(4, "little").hex()


def exits(code: str, facts: TextFacts = FACTS, cold: str | None = None) -> FunctionExits:
    part = None if cold is None else (COLD, bytes.fromhex(cold))
    return exit_sites(F, bytes.fromhex(code), facts, cold_at=lambda target: part)


def reasons(found: FunctionExits) -> list[str]:
    return [reason for _, reason in found.unprobeable]


# returns


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("c3cccccccc", 1),  # ret; int3 x 4
        ("c3cccccccccccccc", 1),
        ("c2 0800 cc cc", 3),  # ret 8; int3 x 2
        ("f3c3 cccccc", 2),  # rep ret; int3 x 3
        ("c3 90909090", 1),  # ret; nop x 4
        ("c3 0f1f00 cc", 1),  # ret; nop dword ptr [rax]; int3
        ("c3 660f1f840000000000", 1),  # ret; a nop that is longer than the window
    ],
)
def test_ret(code: str, size: int) -> None:
    found = exits(NOP5 + code)
    assert found.sites == (ExitSite(F + 5, bytes.fromhex(code)[:5], F, "ret", size, None),)
    assert found.complete and not found.never_returns


@pytest.mark.parametrize(
    "code",
    [
        "c3",  # the end of the function
        "c3cccccc",  # three bytes of padding
        "c3 55 cccccc",  # ret; push rbp
        "c3 9090 e8",  # nops, then something else
    ],
)
def test_ret_without_room(code: str) -> None:
    found = exits(NOP5 + code)
    assert not found.sites
    assert any("no room" in reason for reason in reasons(found))


def test_ret_whose_padding_is_a_branch_target() -> None:
    # 05 je +3 (to 0a); 07 ret; 08 nop; 09 nop; 0a nop; 0b nop; 0c ret; int3 x 4
    found = exits(NOP5 + "7403 c3 90909090 c3cccccccc")
    assert [site.addr for site in found.sites] == [F + 0xC]
    assert found.unprobeable == ((F + 7, "a branch lands inside the 5 bytes of this return"),)


def test_ret_whose_padding_is_a_static_keys_target() -> None:
    facts = TextFacts(hidden_jumps=((F, F + 7),))
    found = exits(NOP5 + "c3 90909090", facts)
    assert reasons(found) == ["a branch lands inside the 5 bytes of this return"]
    # A jump from elsewhere, or to the return itself, is none of its business.
    assert exits(NOP5 + "c3 90909090", TextFacts(hidden_jumps=((F - 8, F + 7), (F, F + 5)))).complete


def test_return_thunk() -> None:
    code = "e9" + rel32(F + 5, 5, THUNK)
    found = exits(NOP5 + code)
    assert found.sites == (ExitSite(F + 5, bytes.fromhex(code), F, "return_thunk", 5, THUNK),)


# tail jumps


def test_tail_jump() -> None:
    code = "e9" + rel32(F + 5, 5, G)
    assert exits(NOP5 + code).sites == (ExitSite(F + 5, bytes.fromhex(code), F, "tail_jump", 5, G),)


def test_tail_jump_with_prefix() -> None:
    code = "2ee9" + rel32(F + 5, 6, G)  # cs jmp, as gcc writes before a retpoline
    assert exits(NOP5 + code).sites == (ExitSite(F + 5, bytes.fromhex(code), F, "tail_jump", 6, G),)


def test_short_tail_jump_with_padding_and_without() -> None:
    facts = TextFacts(starts=frozenset({F, F + 0x20}))
    assert exits(NOP5 + "eb19 cccccc", facts).sites == (
        ExitSite(F + 5, bytes.fromhex("eb19cccccc"), F, "tail_jump", 2, F + 0x20),
    )
    found = exits(NOP5 + "eb19 55 c3cccccccc", facts)
    assert "2-byte tail jump with live code after it" in reasons(found)[0]


def test_jump_inside_is_no_exit() -> None:
    # 05 jmp +1 (to 08); 07 nop; 08 ret
    found = exits(NOP5 + "eb01 90 c3cccccccc")
    assert [site.kind for site in found.sites] == ["ret"] and found.complete


def test_loop_to_the_first_instruction_after_the_pad_is_no_exit() -> None:
    assert exits(NOP5 + "ebfe").never_returns


def test_jump_to_the_own_pad_is_a_tail_call() -> None:
    code = "e9" + rel32(F + 5, 5, F)
    found = exits(NOP5 + code)
    assert [(site.kind, site.target) for site in found.sites] == [("tail_jump", F)]
    # Without a pad it is a loop: nothing is entered again.
    assert exits("90" + "e9" + rel32(F + 1, 5, F)).never_returns


def test_jump_into_the_middle_of_other_code() -> None:
    found = exits(NOP5 + "e9" + rel32(F + 5, 5, G + 3))
    assert not found.sites and "into the middle" in reasons(found)[0]


def test_conditional_tail_jump() -> None:
    # jne G; ret; int3 x 4
    code = "0f85" + rel32(F + 5, 6, G)
    found = exits(NOP5 + code + "c3cccccccc")
    assert found.sites == (
        ExitSite(F + 5, bytes.fromhex(code), F, "cond_tail_jump", 6, G),
        ExitSite(F + 11, bytes.fromhex("c3cccccccc"), F, "ret", 1, None),
    )


def test_conditional_return() -> None:
    found = exits(NOP5 + "0f84" + rel32(F + 5, 6, THUNK) + "c3cccccccc")
    assert [(site.kind, site.target) for site in found.sites] == [("cond_tail_jump", THUNK), ("ret", None)]


@pytest.mark.parametrize("code", ["7519", "e319", "e219"])  # jne, jrcxz, loop: rel8
def test_short_conditional_tail_jump(code: str) -> None:
    facts = TextFacts(starts=frozenset({F, F + 0x20}))
    found = exits(NOP5 + code + "c3cccccccc", facts)
    assert [site.kind for site in found.sites] == ["ret"]
    assert reasons(found) == ["a 2-byte conditional jump to another function has no room for a jump"]


def test_indirect_jump_where_it_can_only_be_a_tail_call() -> None:
    facts = TextFacts(jump_tables=False)
    # jmp rax; int3; nop; nop: what the kernel leaves of a retpoline that it does not need
    assert exits(NOP5 + "ffe0 cc 90 90", facts).sites == (
        ExitSite(F + 5, bytes.fromhex("ffe0cc9090"), F, "indirect_tail_jump", 2, None),
    )
    # jmp [rip+16] is six bytes
    assert exits(NOP5 + "ff2510000000", facts).sites[0].old == bytes.fromhex("ff2510000000")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ffe0 cccccc", "a switch inside the function or a tail call"),  # jmp rax
        ("3effe0 cccc", "a switch inside the function or a tail call"),  # notrack jmp rax
        ("ff24c500100081", "through a table"),  # jmp [rax*8 + table]
    ],
)
def test_indirect_jump_that_may_be_a_switch(code: str, reason: str) -> None:
    found = exits(NOP5 + code)
    assert not found.sites and reason in reasons(found)[0]


# cold parts


def test_cold_part_belongs_to_the_function() -> None:
    # F: 05 je cold; 0b ret; cold: 00 nop; 01 jmp F+0xb; 06 jmp G
    body = NOP5 + "0f84" + rel32(F + 5, 6, COLD) + "c3cccccccc"
    cold = "90" + "e9" + rel32(COLD + 1, 5, F + 0xB) + "e9" + rel32(COLD + 6, 5, G)
    found = exits(body, cold=cold)
    assert [(site.addr, site.kind) for site in found.sites] == [(F + 0xB, "ret"), (COLD + 6, "tail_jump")]
    assert all(site.func_addr == F for site in found.sites) and found.complete


def test_cold_part_behind_a_static_key() -> None:
    """The jump is a nop now, and will be a jump when the key is turned."""
    facts = TextFacts(starts=FACTS.starts, hidden_jumps=((F + 5, COLD),))
    found = exits(NOP5 + NOP5 + "c3cccccccc", facts, cold="e9" + rel32(COLD, 5, G))
    assert [site.addr for site in found.sites] == [F + 10, COLD]


def test_jump_to_a_foreign_cold_part() -> None:
    found = exits(NOP5 + "e9" + rel32(F + 5, 5, COLD))
    assert "into the middle" in reasons(found)[0]


# ends


def test_never_returns() -> None:
    assert exits(NOP5 + "e8" + rel32(F + 5, 5, G)).never_returns  # call panic
    assert exits(NOP5 + "0f0b").never_returns  # ud2
    assert exits(NOP5 + "f4 ebfd").never_returns  # hlt; jmp hlt


def test_falls_through() -> None:
    found = exits(NOP5 + "4889e5 90")  # mov rbp, rsp; nop
    assert found.unprobeable == ((F + 8, "falls through into the next function"),)


def test_reserved_exit() -> None:
    facts = TextFacts(starts=FACTS.starts, reserved=Ranges.of([(F + 5, F + 10)]))
    found = exits(NOP5 + "e9" + rel32(F + 5, 5, G), facts)
    assert not found.sites and "itself rewrites" in reasons(found)[0]


def test_breakpoint_in_the_code_hides_everything_after_it() -> None:
    found = exits(NOP5 + "4889e5 cc 90 c3cccccccc")
    assert not found.sites and "breakpoint of someone else" in reasons(found)[0]


def test_leaving_by_iret() -> None:
    assert "privilege" in reasons(exits(NOP5 + "48cf cccccc"))[0]


def test_iret_to_the_next_instruction_stays() -> None:
    # push $1f; iretq; 1: ret        as sync_core() serialises
    next_addr = (F + 12 & 0xFFFFFFFF).to_bytes(4, "little").hex()
    found = exits(NOP5 + "68" + next_addr + "48cf" + "c3cccccccc")
    assert found.complete and [site.addr for site in found.sites] == [F + 12]


def test_windows_never_overlap() -> None:
    # ret; int3 x 4; jmp G; jne G; ret; int3 x 4
    code = NOP5 + "c3cccccccc" + "e9" + rel32(F + 10, 5, G) + "0f85" + rel32(F + 15, 6, G) + "c3cccccccc"
    found = exits(code)
    end = F + 5
    for site in found.sites:
        assert site.addr >= end
        end = site.addr + len(site.old)
    assert len(found.sites) == 4

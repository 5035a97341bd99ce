"""Registers as every transport gives them."""

from __future__ import annotations

import pytest

from probekit.target.api import Regs


def test_replaced_registers_leave_the_others_and_the_original_as_they_are() -> None:
    regs = Regs({"rip": 1, "rax": 2}, b"raw")
    changed = regs.replace(rip=5)
    assert (changed["rip"], changed["rax"], changed.raw) == (5, 2, b"raw")
    assert regs["rip"] == 1


@pytest.mark.parametrize(("cs", "user"), [(0x10, False), (0x33, True), (0x23, True), (0x11, False), (0, False)])
def test_user_mode_is_privilege_level_3(cs: int, user: bool) -> None:
    assert Regs({"cs": cs}, b"").in_user_mode is user

"""A site that somebody else changes while it is probed: left alone and told of, and everything else is put back."""

from __future__ import annotations

import pytest

from probekit.session.recover import recover
from tests.live.inprocess import trace
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest

IDLE = "__x64_sys_swapon"  # called by nobody, so its bytes can change without care
OTHER = bytes.fromhex("0f1f440008")  # nop dword ptr [rax+rax+8]: of as many bytes as a jump


def _put(text: KernelCode, at: int, data: bytes) -> None:
    with text.guest.ram.open("r+b") as stream:
        stream.seek(text.start + at)
        stream.write(data)


def test_a_site_that_somebody_else_changed_meanwhile(guest: Guest, homes: object) -> None:
    text = KernelCode.locate(guest)
    before = text.read()
    named = guest.check(f"grep -wE '_text|{IDLE}' /proc/kallsyms").splitlines()
    where = {name: int(addr, 16) for addr, _, name, *_ in map(str.split, named)}
    function = where[IDLE] - where["_text"]

    def work() -> int:
        site = next(at for at in differences(before, text.read()) if function <= at < function + 16)
        assert text.read()[site] == 0xE9  # our jump
        _put(text, site, OTHER)
        return site

    done = trace(guest, "fbt::sys_swapon:entry, fbt::sys_getppid:, fbt::vfs_read: { @ = count(); }", work)
    site = done.work
    after = text.read()
    try:
        said = " ".join(map(str, done.trouble()))
        assert f"{where['_text'] + site:#x} was changed by somebody else and is left alone" in said
        assert after[site : site + 5] == OTHER
        assert differences(before[:site], after[:site]) == differences(before[site + 5 :], after[site + 5 :]) == []
        # They may have kept a copy of our jump, so what it leads to stays.
        assert "left behind, inert" in said
        # Nor does a recovery touch it.
        assert all("left alone" in problem for problem in recover(guest.gdb).problems)
        assert text.read() == after
    finally:
        _put(text, site, before[site : site + 5])
    assert recover(guest.gdb).problems == ()
    assert recover(guest.gdb).clean
    assert text.read() == before


@pytest.mark.parametrize("probes", ["fbt:veth::", "kinst:veth:veth_xmit:"])
def test_a_module_that_the_guest_would_unload_meanwhile(guest: Guest, homes: object, probes: str) -> None:
    """It is in use while its text is changed, and it can go afterwards as before."""
    guest.check("insmod /lib/modules/veth.ko")
    done = trace(guest, f"{probes} {{ @ = count(); }}", lambda: guest.exec("rmmod veth"))
    assert done.work.status != 0 and "unavailable" in done.work.output
    assert done.trouble() == []
    assert guest.check("cat /sys/module/veth/refcnt").strip() == "0"
    guest.check("rmmod veth")
    assert recover(guest.gdb).clean and guest.console_problems() == []

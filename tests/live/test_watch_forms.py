"""Every form of access to watched memory, element by element, on a live guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from probekit.enabling.stop_engine.watch import WatchHit
from probekit.session.attach import attach
from tests.live.codelab import CodeLab, code_lab
from vm.guest import Guest

pytestmark = pytest.mark.guest

AT = 0x100  # in the lab's data; what the code is given in RDI
FROM = 0x800  # in RSI
SEED = bytes(range(1, 65))


@pytest.fixture(scope="module")
def lab(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeLab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with attach(guest.gdb) as attachment, code_lab(attachment) as made:
            yield made


def _run(lab: CodeLab, text: str, *watch: tuple[int, int, str], at: int = AT) -> list[tuple[str, int, int, int, int]]:
    """Hits as (kind, offset in the data, size, old, new)."""
    data = lab.data.addr
    _, hits, watcher = lab.run(
        text + "\nmov eax, 1\nret", data + at, data + FROM, 0, watch=watch, fill=[(AT, SEED), (FROM, SEED)]
    )
    assert (watcher.unseen, watcher.undecoded, watcher.lost_steps) == (0, 0, 0)
    assert all(lab.code.addr <= hit.args[4] < lab.code.addr + 64 for hit in hits)
    return [_shown(hit, data) for hit in hits]


def _shown(hit: WatchHit, data: int) -> tuple[str, int, int, int, int]:
    addr, size, old, new, _ = hit.args
    return hit.site.watched.access, addr - data, size, old, new


W, R = (AT, 8, "write"), (AT, 8, "read")
FORMS = {
    "mov dword ptr [rdi], 0x55": [("write", AT, 4, 0x04030201, 0x55)],
    "mov byte ptr [rdi + 3], 0x55": [("write", AT + 3, 1, 4, 0x55)],
    "inc byte ptr [rdi]": [("write", AT, 1, 1, 2)],
    "lock inc byte ptr [rdi]": [("write", AT, 1, 1, 2)],
    "mov eax, 7\nxchg dword ptr [rdi], eax": [("write", AT, 4, 0x04030201, 7)],
    "mov eax, 3\nlock xadd byte ptr [rdi], al": [("write", AT, 1, 1, 4)],
    "mov eax, 0x04030201\nmov ecx, 9\nlock cmpxchg dword ptr [rdi], ecx": [("write", AT, 4, 0x04030201, 9)],
    "mov dword ptr [rdi], 0x04030201": [("write", AT, 4, 0x04030201, 0x04030201)],
    # Only the part that is watched.
    "mov qword ptr [rdi - 4], 0": [("write", AT, 4, 0x04030201, 0)],
    "mov qword ptr [rdi + 6], 0": [("write", AT + 6, 2, 0x0807, 0)],
    "mov dword ptr [rdi + 8], 0\nmov dword ptr [rdi - 4], 0": [],
    "mov eax, dword ptr [rdi]": [],
    # One behind the other.
    "mov word ptr [rdi], 5\nmov word ptr [rdi + 1], 6": [("write", AT, 2, 0x0201, 5), ("write", AT + 1, 2, 0x0300, 6)],
    "mov rdx, rsp\nlea rsp, [rdi + 8]\npush 0x77\nmov rsp, rdx": [("write", AT, 8, 0x0807060504030201, 0x77)],
    # Strings, one element at a time.
    "movsb": [("write", AT, 1, 1, 1)],
    "mov ecx, 3\nxor eax, eax\nrep stosb": [("write", AT + n, 1, n + 1, 0) for n in range(3)],
    "mov ecx, 1\nxor eax, eax\nrep stosb": [("write", AT, 1, 1, 0)],
    "xor ecx, ecx\nrep stosb": [],
    "mov ecx, 12\nadd rsi, 16\nrep movsb": [("write", AT + n, 1, n + 1, n + 17) for n in range(8)],
    "mov ecx, 5\nadd rdi, 7\nxor eax, eax\nstd\nrep stosb\ncld": [
        ("write", AT + n, 1, n + 1, 0) for n in (7, 6, 5, 4, 3)
    ],
    "mov ecx, 2\nmov rax, -1\nrep stosq": [("write", AT, 8, 0x0807060504030201, (1 << 64) - 1)],
    "mov ecx, 2\nsub rdi, 4\nxor eax, eax\nrep stosd": [("write", AT, 4, 0x04030201, 0)],
}


@pytest.mark.parametrize("text", FORMS)
def test_writes(lab: CodeLab, text: str) -> None:
    assert _run(lab, text, W) == FORMS[text]


READS = {
    "mov eax, dword ptr [rdi]": [("read", AT, 4, 0x04030201)],
    "mov rdi, qword ptr [rdi]": [("read", AT, 8, 0x0807060504030201)],  # its address is overwritten
    "cmp byte ptr [rdi + 7], 0": [("read", AT + 7, 1, 8)],
    "mov dword ptr [rdi], 5": [],
    "push qword ptr [rdi]\npop rdx": [("read", AT, 8, 0x0807060504030201)],
    "mov ecx, 3\nmov rsi, rdi\nadd rdi, 256\nrep movsb": [("read", AT + n, 1, n + 1) for n in range(3)],
    "mov ecx, 12\nrepe cmpsb": [("read", AT + n, 1, n + 1) for n in range(8)],
    "mov ecx, 12\nmov al, 5\nrepne scasb": [("read", AT + n, 1, n + 1) for n in range(5)],
}


@pytest.mark.parametrize("text", READS)
def test_reads(lab: CodeLab, text: str) -> None:
    assert _run(lab, text, R) == [(*hit, hit[-1]) for hit in READS[text]]


def test_an_instruction_that_reads_and_writes_fires_both(lab: CodeLab) -> None:
    assert _run(lab, "add byte ptr [rdi], 4", R, W) == [("read", AT, 1, 1, 5), ("write", AT, 1, 1, 5)]
    # From one watched range to another.
    both = _run(lab, "mov ecx, 2\nrep movsb", (AT, 8, "write"), (FROM, 8, "read"))
    assert sorted(both) == [
        ("read", FROM, 1, 1, 1),
        ("read", FROM + 1, 1, 2, 2),
        ("write", AT, 1, 1, 1),
        ("write", AT + 1, 1, 2, 2),
    ]


def test_a_string_across_a_page_boundary(lab: CodeLab) -> None:
    """The watched range and the string straddle two pages, an element does as well."""
    start = 4096 - 6
    hits = _run(lab, "mov ecx, 4\nmov rax, 0x1122334455667788\nrep stosd", (start, 12, "write"), at=start - 2)
    assert [hit[1:3] for hit in hits] == [(start, 2), (start + 2, 4), (start + 6, 4), (start + 10, 2)]
    assert [hit[3] for hit in hits] == [0, 0, 0, 0]
    assert [hit[4] for hit in hits] == [0x5566, 0x55667788, 0x55667788, 0x7788]


def test_a_long_string_is_counted_to_the_last_element(lab: CodeLab) -> None:
    """Every element of a string over three pages, with interrupts on all the while."""
    size = 300
    hits = _run(lab, f"mov ecx, {size}\nmov al, 0x5a\nrep stosb", (4096 - 150, size, "write"), at=4096 - 150)
    assert [hit[1] for hit in hits] == list(range(4096 - 150, 4096 + 150))


def test_what_no_stop_told_of_is_counted(lab: CodeLab) -> None:
    """QEMU 7.2 does not see atomic instructions on a page that is watched for reads and for writes."""
    data = lab.data.addr
    _, hits, watcher = lab.run(
        "lock inc byte ptr [rdi]\nmov byte ptr [rdi + 4], 9\nret", data + AT, watch=[R, W], fill=[(AT, SEED)]
    )
    seen = len([hit for hit in hits if hit.site.watched.access == "write"])
    assert seen + watcher.unseen == 2

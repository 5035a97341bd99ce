"""``cwd``, ``root``, ``d_path()`` and ``execargs`` in the guest, against the same on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.layout import FAULT_WORDS, FaultKind, HeaderWord
from probekit.enabling.host.dentries import path_text
from probekit.errors import GuestError, UnsupportedError
from tests.codegen.emulated_kernel import KMEM, KMEM_SIZE, PATHS, TASK, USER, USER_SIZE
from tests.codegen.machine import Machine

FILES, MEMORY, PATH = KMEM, KMEM + 0x40, KMEM + 0x200
STEP = 0x40
Tree = Sequence[Sequence[str]]
"""For each mount, from the outermost, the names below its root, the last of them the next one's mount point."""


@dataclass
class Disk:
    """A chain of mounts in a machine's memory. ``places``: mount and dentry of each directory, from the top."""

    guest: Machine
    free: int = KMEM + 0x240
    places: list[tuple[int, int]] = field(default_factory=list)

    def word(self, addr: int, value: int) -> None:
        self.guest.write(addr, value.to_bytes(8, "little"))

    def take(self, size: int = STEP) -> int:
        self.free += size
        assert self.free <= KMEM + KMEM_SIZE
        return self.free - size

    def dentry(self, parent: int, name: bytes, *, hashed: bool = True) -> int:
        at, text = self.take(), self.take(-(-len(name) // 8) * 8 + 8)
        self.guest.write(text, name + b"\0")
        self.word(at + PATHS.hashed, int(hashed))
        self.word(at + PATHS.parent, parent or at)
        self.guest.write(at + PATHS.name_size, len(name).to_bytes(4, "little"))
        self.word(at + PATHS.name, text)
        return at

    def build(self, tree: Tree) -> None:
        mount, point = 0, 0
        for names in tree:
            above, mount = mount, self.take() + PATHS.mount
            root = self.dentry(0, b"/")
            self.word(mount + PATHS.mount_root, root)
            self.word(mount + PATHS.mount_parent, (above or mount) - PATHS.mount)
            self.word(mount + PATHS.mountpoint, point or root)
            self.places.append((mount, root))
            point = root
            for name in names:
                point = self.dentry(point, name.encode())
                self.places.append((mount, point))

    def stand(self, cwd: tuple[int, int], root: tuple[int, int]) -> None:
        self.word(TASK + PATHS.fs, FILES)
        for at, place in ((FILES + PATHS.cwd, cwd), (FILES + PATHS.root, root), (PATH, cwd)):
            self.word(at + PATHS.path_mount, place[0])
            self.word(at + PATHS.path_dentry, place[1])

    def expected(self, cwd: tuple[int, int], root: tuple[int, int]) -> bytes:
        return path_text(self.guest.read, PATHS, cwd, root)


SCRIPT = "struct path; fbt::: { trace(cwd); trace(root); trace(d_path((struct path *)arg0)); }"


def made(text: str = SCRIPT, tree: Tree = (("usr", "local"), ("src",)), strsize: int | None = None) -> Disk:
    disk = Disk(Machine(text, strsize=strsize))
    disk.build(tree)
    return disk


def fire(guest: Machine) -> list[bytes]:
    """What one firing has traced; the probed function notices nothing."""
    plain, done = guest.fire_unpatched(rdi=PATH), guest.fire(rdi=PATH)
    assert (done.fault, done.bad) == (0, ())
    assert (done.regs, done.flags) == (plain.regs, plain.flags)
    (record,) = guest.drain()
    assert record.fault == 0
    plan = guest.program.clauses[0].record
    assert plan is not None
    return [record.payload[f.offset : f.offset + f.size].split(b"\0", 1)[0] for f in plan.fields]


def test_a_path_crosses_a_mount() -> None:
    disk = made()
    disk.stand(disk.places[-1], disk.places[0])
    assert fire(disk.guest) == [b"/usr/local/src", b"/", b"/usr/local/src"]


def test_a_path_is_seen_from_the_tasks_own_root() -> None:
    disk = made(tree=(("usr", "local", "src"),))
    disk.stand(disk.places[3], disk.places[1])
    assert fire(disk.guest) == [b"/local/src", b"/usr", b"/local/src"]


def test_the_root_itself_is_a_slash() -> None:
    disk = made(tree=(("usr",), ("src",)))
    disk.stand(disk.places[2], disk.places[2])
    assert fire(disk.guest) == [b"/", b"/usr", b"/"]


@pytest.mark.parametrize("test", ["cwd != root", 'root == "/"'])
def test_a_path_that_is_only_compared_is_read_too(test: str) -> None:
    """What records nothing saves fewer registers, but these."""
    disk = made(f"int n; fbt::: /{test}/ {{ n++; }}")
    disk.stand(disk.places[-1], disk.places[0])
    plain, done = disk.guest.fire_unpatched(), disk.guest.fire()
    assert (done.fault, done.bad, done.regs, done.flags) == (0, (), plain.regs, plain.flags)
    assert disk.guest.globals_() == {0: 1}


def test_a_removed_directory_says_so() -> None:
    disk = made()
    mount, parent = disk.places[-1]
    gone = (mount, disk.dentry(parent, b"gone", hashed=False))
    disk.stand(gone, disk.places[0])
    assert fire(disk.guest) == [b"/usr/local/src/gone (deleted)", b"/", b"/usr/local/src/gone (deleted)"]
    assert disk.expected(gone, disk.places[0]) == b"/usr/local/src/gone (deleted)"


def test_a_directory_in_no_tree_has_a_path() -> None:
    disk = made()
    disk.stand((disk.places[0][0], disk.dentry(0, b"[eventfd]", hashed=False)), disk.places[0])
    assert fire(disk.guest)[2] == b"[eventfd]"


def test_a_task_without_files() -> None:
    disk = made("fbt::: { trace(cwd); trace(root); }")
    disk.word(TASK + PATHS.fs, 0)
    assert fire(disk.guest) == [b"", b""]


@given(
    st.lists(st.lists(st.text("abcdé", min_size=1, max_size=40), max_size=6), min_size=1, max_size=4),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([2, 3, 8, 11, 30, 256]),
)
def test_any_tree_gives_the_hosts_path(tree: Tree, cwd: int, root: int, strsize: int) -> None:
    disk = made(tree=tree, strsize=strsize)
    here, top = disk.places[cwd % len(disk.places)], disk.places[root % len(disk.places)]
    disk.stand(here, top)
    whole = [disk.expected(here, top), disk.expected(top, (0, 0)), disk.expected(here, top)]
    assert fire(disk.guest) == [path[: strsize - 1] for path in whole]


def fault(guest: Machine) -> tuple[int, int]:
    """Kind and word of a firing that ends so."""
    done = guest.fire(rdi=PATH)
    assert (done.fault, done.bad) == (0, ())
    assert guest.word(HeaderWord.GUARD) == 0
    (record,) = guest.drain()
    return record.fault, FAULT_WORDS.unpack(record.payload)[0]


@pytest.mark.parametrize("script", ["fbt::: { trace(cwd); }", SCRIPT])
def test_a_ring_of_directories_is_a_fault(script: str) -> None:
    """Damaged memory: it ends."""
    disk = made(script)
    mount, leaf = disk.places[-1]
    disk.word(leaf + PATHS.parent, disk.dentry(leaf, b"round"))
    disk.stand((mount, leaf), disk.places[0])
    assert fault(disk.guest)[0] == FaultKind.BADADDR
    with pytest.raises(GuestError, match="no beginning"):
        disk.expected((mount, leaf), disk.places[0])


def test_a_name_that_is_too_long_is_a_fault() -> None:
    disk = made("fbt::: { trace(cwd); }")
    disk.guest.write(disk.places[-1][1] + PATHS.name_size, (256).to_bytes(4, "little"))
    disk.stand(disk.places[-1], disk.places[0])
    assert fault(disk.guest) == (FaultKind.BADADDR, disk.places[-1][1])
    with pytest.raises(GuestError, match="256 bytes"):
        disk.expected(disk.places[-1], disk.places[0])


@pytest.mark.parametrize("bad", [0, 0x1000, 0xDEAD_0000_0000_0000, 0xFFFF_8880_7777_0000])
@pytest.mark.parametrize("where", [PATHS.name, PATHS.parent])
def test_a_bad_pointer_is_a_fault(bad: int, where: int) -> None:
    disk = made("fbt::: { trace(cwd); }")
    disk.word(disk.places[-1][1] + where, bad)
    disk.stand(disk.places[-1], disk.places[0])
    assert fault(disk.guest)[0] == FaultKind.BADADDR


def test_a_path_at_a_bad_address_is_a_fault() -> None:
    guest = Machine("struct path; fbt::: { trace(d_path((struct path *)16)); }")
    assert fault(guest) == (FaultKind.BADADDR, 16)


def words(guest: Machine, text: bytes, size: int | None = None, at: int = USER + 0x100) -> None:
    """The current task's program was started with ``text``."""
    guest.write(at, text)
    for where, value in (
        (TASK + PATHS.memory, MEMORY),
        (MEMORY + PATHS.arg_start, at),
        (MEMORY + PATHS.arg_end, at + (len(text) if size is None else size)),
    ):
        guest.write(where, (value & (1 << 64) - 1).to_bytes(8, "little"))


@pytest.mark.parametrize("strsize", [2, 5, 8, 256])
@pytest.mark.parametrize("text", [b"ls\0-l\0/tmp\0", b"a\0", b"\0", b"", b"title of its own", b"a\0\0b\0\0\0"])
def test_the_words_of_a_program(text: bytes, strsize: int) -> None:
    guest = Machine("fbt::: { trace(execargs); }", strsize=strsize)
    words(guest, text)
    assert fire(guest) == [text[: strsize - 1].rstrip(b"\0").replace(b"\0", b" ")]


def test_a_kernel_thread_has_no_words() -> None:
    guest = Machine("fbt::: { trace(execargs); }")
    guest.write(TASK + PATHS.memory, bytes(8))
    assert fire(guest) == [b""]


@pytest.mark.parametrize("size", [-1, -0x100])
def test_words_that_end_before_they_begin(size: int) -> None:
    guest = Machine("fbt::: { trace(execargs); }")
    words(guest, b"x", size)
    assert fire(guest) == [b""]


def test_words_that_are_not_there() -> None:
    guest = Machine("fbt::: { trace(execargs); }")
    words(guest, b"x", 64, USER + USER_SIZE - 1)
    assert fault(guest) == (FaultKind.BADADDR, USER + USER_SIZE - 1)


@pytest.mark.parametrize("what", ["cwd", "root", "execargs", "d_path((struct path *)0)"])
def test_a_kernel_without_types_is_refused(what: str) -> None:
    with pytest.raises(UnsupportedError, match="needs the types"):
        Machine(f"struct path; fbt::: {{ trace({what}); }}", services=False)

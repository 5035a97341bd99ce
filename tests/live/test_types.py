"""Kernel types and symbols in clauses: what a script reads is what the guest says of itself."""

from __future__ import annotations

import pytest

from probekit.consumer import events as model
from probekit.errors import SymbolError
from probekit.session.attach import attach
from probekit.session.guest_types import GuestTypes
from tests.guest_fixtures import K61, only
from tests.live.inprocess import Outcome, trace
from tests.live.tool import Probekit
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest


def printed(guest: Guest, clause: str, *, ram: str | None = None) -> list[str]:
    """What one BEGIN clause prints, line by line."""
    done = trace(guest, f"BEGIN {{ {clause} }} BEGIN {{ exit(0); }}", ram=ram)
    assert done.trouble() == []
    return "".join(done.texts()).splitlines()


def stopped(guest: Guest, script: str, work: str) -> Outcome:
    """A script and some work, in the stop engine."""
    return trace(guest, script, lines(guest, work), engine="stop")


# -- variables of the kernel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ram", [None, "none"], ids=["ram-file", "stub"])
def test_variables_say_what_proc_says(guest: Guest, homes: object, ram: str | None) -> None:
    before = int(guest.check("grep '^jiffies:' /proc/timer_list | head -1").split()[1])
    found = printed(
        guest,
        r"""
        printf("%s", stringof((char *)&`linux_banner));
        printf("%s\n", ((struct uts_namespace *)&`init_uts_ns)->name.release);
        printf("%s\n", stringof(*(char **)&`saved_command_line));
        printf("%d %s\n", ((struct task_struct *)&`init_task)->pid, ((struct task_struct *)&`init_task)->comm);
        this->next = (uintptr_t)((struct task_struct *)&`init_task)->tasks.next - offsetof(struct task_struct, tasks);
        printf("%d %s\n", ((struct task_struct *)this->next)->pid, ((struct task_struct *)this->next)->comm);
        printf("%d\n", *(unsigned long *)&`jiffies);
        """,
        ram=ram,
    )
    after = int(guest.check("grep '^jiffies:' /proc/timer_list | head -1").split()[1])
    assert found[0] == guest.check("cat /proc/version").strip()
    assert found[1] == guest.check("uname -r").strip()
    assert found[2] == guest.check("cat /proc/cmdline").strip()
    assert found[3] == "0 swapper/0"
    assert found[4] == f"1 {guest.check('cat /proc/1/comm').strip()}"
    assert before < int(found[5]) < after


def test_functions_are_addresses(guest: Guest, homes: object) -> None:
    (found,) = printed(
        guest, r'printf("%a %a %x\n", (uintptr_t)`vfs_read, (uintptr_t)&`vfs_read + 4, (long)`vfs_read);'
    )
    listed = guest.check("grep ' T vfs_read$' /proc/kallsyms").split()[0]
    assert found == f"vmlinux`vfs_read vmlinux`vfs_read+0x4 {int(listed, 16):x}"


def test_addresses_are_shown_by_name(guest: Guest, homes: object) -> None:
    script = r"""
        BEGIN { sym((uintptr_t)&`vfs_read + 4); func((uintptr_t)&`vfs_read); mod((uintptr_t)&`vfs_read); }
        BEGIN { sym((uintptr_t)null_blk`null_init_hctx); mod((uintptr_t)&null_blk`null_init_hctx); }
        BEGIN { sym(1ULL << 40); exit(0); }
    """
    done = trace(guest, script)
    assert done.trouble() == []
    names = [item.text for event in done.fired() for item in event.items if isinstance(item, model.SymbolName)]
    own = ["vmlinux`vfs_read", "vmlinux`vfs_read", "vmlinux"]
    assert names == [*own, "null_blk`null_init_hctx", "null_blk", "0x10000000000"]


def test_enumerators_and_sizes(guest: Guest, homes: object) -> None:
    clause = (
        r'printf("%d %d %d %d\n", PIDTYPE_SID, sizeof (pid_t), sizeof (vmlinux`loff_t), sizeof (struct list_head));'
    )
    assert printed(guest, clause) == ["3 4 8 16"]


def test_types_of_a_module(guest: Guest, homes: object) -> None:
    clause = r"""
        printf("%d %d\n", sizeof (struct nullb), sizeof (null_blk`struct nullb));
        printf("%a\n", (uintptr_t)null_blk`null_init_hctx);
    """
    size, symbol = printed(guest, clause)
    one, two = map(int, size.split())
    assert one == two > 100
    assert symbol == "null_blk`null_init_hctx"


def test_bit_fields_of_the_descriptor_table(guest: Guest, homes: object) -> None:
    clause = r"""
        this->c = &`gdt_page.gdt[2]; this->u = &`gdt_page.gdt[6];
        printf("%d %d %d %d %x\n", this->c->l, this->c->p, this->c->s, this->c->dpl, this->c->type & 0xa);
        printf("%d %d %d %d\n", this->u->l, this->u->p, this->u->s, this->u->dpl);
    """
    # The kernel's 64-bit code segment and the user's.
    assert printed(guest, clause) == ["1 1 1 0 a", "1 1 1 3"]


def test_percpu_variables_are_those_of_the_cpu(guest: Guest, homes: object) -> None:
    own = "*(int *)&`cpu_number" if guest.check("grep -w cpu_number /proc/kallsyms || true") else "`pcpu_hot.cpu_number"
    script = (
        f"""fbt::sys_getppid:entry /execname == "syscalls"/ {{ trace(cpu); trace(`runqueues.cpu); trace({own}); }}"""
    )
    done = stopped(guest, script, "syscalls 3 0; syscalls 3 1")
    assert done.trouble() == []
    assert done.traced() == [(0, 0, 0)] * 3 + [(1, 1, 1)] * 3


# -- the task -------------------------------------------------------------------------------------------------------


def test_curthread_is_the_task(guest: Guest, homes: object) -> None:
    script = r"""
        int done;
        fbt::sys_getppid:entry /execname == "syscalls" && !done/ {
            done = 1;
            printf("%d %d %d %d %d %s %s|", curthread->pid == tid, curthread->tgid == pid, curthread->tgid,
                curthread->real_parent->tgid, curthread->cred->uid.val, curthread->comm, execname);
            printf("%d %d", curthread->mm->pgd != NULL, curthread->mm->start_stack > curthread->mm->brk);
        }
    """
    done = stopped(guest, script, "sh -c 'echo $$ $PPID; exec syscalls 3 0'")
    assert done.trouble() == []
    pid, parent = done.work.split()[:2]
    assert "".join(done.texts()) == f"1 1 {pid} {parent} 0 syscalls syscalls|1 1"


def test_curpsinfo_and_curcpu(guest: Guest, homes: object) -> None:
    script = r"""
        int done;
        fbt::sys_getppid:entry /execname == "syscalls" && !done/ {
            done = 1;
            printf("%d %d %s %d", curpsinfo->pr_pid == pid, curlwpsinfo->pr_lwpid == tid, curpsinfo->pr_fname,
                curcpu->cpu_id);
        }
    """
    done = stopped(guest, script, "syscalls 3 1")
    assert (done.trouble(), done.texts()) == ([], ["1 1 syscalls 1"])


def test_directories_and_words_of_a_program(guest: Guest, homes: object) -> None:
    """Across a mount, in a root of its own, in a directory that is gone; both engines but for the program's memory."""
    paths = 'fbt::sys_getppid:entry /execname == "syscalls"/ { printf("%s|%s", cwd, root); }'
    args = 'fbt::sys_getppid:entry /execname == "syscalls"/ { printf("%s|%s", execargs, curpsinfo->pr_psargs); }'
    work = lines(
        guest,
        """
        here=/tmp/dirs; mkdir -p $here/mnt; mount -t tmpfs none $here/mnt; mkdir -p $here/mnt/in/deep $here/gone
        cp "$(command -v syscalls)" $here/mnt/in/syscalls
        cd /; syscalls 1 0
        cd $here/mnt/in/deep; syscalls 1 0; readlink /proc/self/cwd
        cd $here/gone; rmdir $here/gone; syscalls 1 0; readlink /proc/self/cwd
        cd /; chroot $here/mnt /in/syscalls 1 0
        umount $here/mnt; rm -r $here
        """,
    )
    expected = ["/|/", "/tmp/dirs/mnt/in/deep|/", "/tmp/dirs/gone (deleted)|/", "/|/tmp/dirs/mnt"]
    for engine in ("guest", "stop"):
        done = trace(guest, paths, work, engine=engine)
        assert (done.trouble(), done.texts()) == ([], expected)
    said = [line for line in done.work.splitlines() if line.startswith("/tmp")]
    assert said == [text.partition("|")[0] for text in expected[1:3]]
    done = trace(guest, args, work)
    assert done.trouble() == []
    assert done.texts() == ["syscalls 1 0|syscalls 1 0"] * 3 + ["/in/syscalls 1 0|/in/syscalls 1 0"]


def test_paths_of_open_files(guest: Guest, homes: object) -> None:
    """What has none, as a pipe, has but the name that the kernel keeps for it, and that is empty."""
    script = r"""
        fbt::vfs_read:entry /execname == "dd"/ { self->path = d_path(&args[0]->f_path); }
        fbt::vfs_read:return /execname == "dd" && arg1 > 0/ { printf("%s", self->path); }
    """
    files = "/tmp/read.txt", "/proc/sys/kernel/ostype"
    work = "; ".join(("echo x >/tmp/read.txt", *(f"dd if={file} of=/dev/null 2>&1" for file in files)))
    done = trace(guest, script, lines(guest, f"{work}; echo y | dd of=/dev/null 2>&1; rm {files[0]}"))
    assert (done.trouble(), done.texts()) == ([], [*files, ""])


# -- args[] ---------------------------------------------------------------------------------------------------------

READ = 'execname == "dd" && args[2] == 33'
WORK = "dd if=/proc/version of=/dev/null bs=33 count=2 2>/dev/null"


def test_arguments_have_the_types_of_the_prototype(guest: Guest, homes: object) -> None:
    script = rf"""
        fbt::vfs_read:entry /{READ}/ {{
            printf("%s %d %d", stringof(args[0]->f_path.dentry->d_name.name), args[2], *args[3]);
        }}
        fbt::vfs_read:return /execname == "dd" && args[1] == 33/ {{ printf("%d %d", args[0] == arg0, args[1]); }}
    """
    done = stopped(guest, script, WORK)
    assert done.trouble() == []
    assert done.texts() == ["version 33 0", "1 33", "version 33 33", "1 33"]


def test_a_returned_error_is_negative(guest: Guest, homes: object) -> None:
    script = 'fbt::do_filp_open:return /execname == "dd"/ { trace((long)args[1]); }'
    done = stopped(guest, script, "dd if=/nosuch of=/dev/null 2>/dev/null || true")
    assert done.trouble() == []
    assert (-2,) in done.traced()  # ENOENT as an error pointer


def test_memory_is_printed(guest: Guest, homes: object) -> None:
    script = rf"""
        int n;
        fbt::vfs_read:entry /{READ} && !n/ {{ n = 1; print(*args[0]); print(args[0]); tracemem(args[0], 16); }}
    """
    done = stopped(guest, script, WORK)
    assert done.trouble() == []
    (fired,) = done.fired()
    value, pointer, raw = fired.items
    assert isinstance(value, model.TypedValue) and isinstance(pointer, model.TypedValue)
    assert value.data == pointer.data and pointer.addr is not None
    assert isinstance(raw, model.Dump) and raw.data == value.data[:16]


def test_one_clause_for_functions_that_differ(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("-x", "errtags", "-n", "fbt::vfs_read:entry,fbt::vfs_open:entry { trace(args[0]); }")
    assert done.status == 1 and "[D_ARGS_MULTI] line 1: " in done.paragraph()
    done = probekit.run("-e", "-n", "fbt::vfs_read:entry,fbt::vfs_write:entry { trace(args[2]); }")
    assert done.status == 1 or done.stderr == ""
    done = probekit.run("-e", "-n", "fbt::__x64_sys_*:entry { trace(args[0]->orig_ax); }", "--engine", "stop")
    assert done.status == 0, done.stderr


def test_the_list_shows_the_arguments(guest: Guest, probekit: Probekit) -> None:
    done = probekit.run("-l", "-v", "--json", "-n", "fbt::vfs_read:")
    entry, exit_ = done.of("listing")
    assert entry["args"] == ["struct file *", "char *", "size_t", "loff_t *"]
    assert exit_["args"] == ["int", "ssize_t"]
    text = probekit.run("-l", "-v", "-n", "fbt::vfs_read:entry").stdout
    assert "\t\targs[0]: struct file *\n" in text


# -- faults ---------------------------------------------------------------------------------------------------------


def test_a_bad_address_aborts_the_clause_and_no_more(guest: Guest, homes: object) -> None:
    script = r"""
        fbt::sys_getppid:entry /execname == "syscalls"/ { printf("never"); trace(*(int *)0x10); }
        fbt::sys_getppid:entry /execname == "syscalls"/ { printf("next"); }
        ERROR { printf("%d %x", arg4, arg5); }
    """
    done = stopped(guest, script, "syscalls 2 0")
    faults = [event for event in done.events if isinstance(event, model.Fault)]
    assert [fault.value for fault in faults] == [0x10, 0x10]
    assert sorted(done.texts()) == ["1 10", "1 10", "next", "next"]


@pytest.mark.parametrize("ram", [None, "none"], ids=["ram-file", "stub"])
@pytest.mark.parametrize(
    "address",
    [
        "0",
        "-1",
        "0x7fffffffe000",  # a user's
        "0xff00800000000000",  # not canonical, or nothing there
        "0xffffffffff600000",  # the vsyscall page's address, which no kernel table maps
        "(uintptr_t)&`_end + 0x40000000",
    ],
)
def test_addresses_that_lead_nowhere(guest: Guest, homes: object, address: str, ram: str | None) -> None:
    script = f"BEGIN {{ this->a = (uintptr_t)({address}); trace(*(char *)this->a); }} BEGIN {{ exit(0); }}"
    done = trace(guest, script, ram=ram)
    assert [type(event) for event in done.trouble()] == [model.Fault]


@pytest.mark.parametrize("ram", [None, "none"], ids=["ram-file", "stub"])
def test_devices_are_not_read(guest: Guest, homes: object, ram: str | None) -> None:
    """A register may change by being read: it is an invalid address."""
    where = "*(uintptr_t *)&`hpet_virt_address"
    done = trace(guest, f"BEGIN {{ trace({where}); trace(*(int *)({where})); }} BEGIN {{ exit(0); }}", ram=ram)
    (fault,) = done.trouble()
    assert isinstance(fault, model.Fault) and fault.value
    assert fault.value >> 63, "the guest has no HPET mapped: find another device"


# -- a kernel without types -----------------------------------------------------------------------------------------


@only(K61)
def test_without_btf_only_types_are_refused(guest: Guest, homes: object) -> None:
    with attach(guest.gdb) as attachment:
        attachment.kernel.btf = None
        types = GuestTypes(attachment)
        assert types.lacking == "this kernel carries no types (BTF)"
        assert types.tagged("struct", "task_struct", None) is None and types.enumerator("PIDTYPE_SID") is None
        found = types.symbol("jiffies", None)
        assert found is not None and found.place == "data" and found.type is None
        attachment.kernel.btf_error = SymbolError("cut off")
        assert types.lacking == "this kernel's types (BTF) are broken: cut off"

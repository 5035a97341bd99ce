#!/usr/bin/env bash
# finding: a vCPU of QEMU's TCG can go on executing code that another vCPU has rewritten, without an end
# about: QEMU 7.2 (Debian 12's qemu-system-x86), TCG, two vCPUs with a thread each (its default); seen with 10.0.2
#     and 11.1.3 too
# expected: when a CPU has learned that a number in an instruction was rewritten (one aligned store, as AMD's manual,
#     volume 2, "Cross-Modifying Code" allows) and has executed cpuid, it executes the new number; a real one does
# seen: it executes the old number a thousand times over, until the next store, after nearly every store with 7.2 and
#     10.0, and after some of them with 11.1. QEMU drops its translation before it does the store, and a vCPU that
#     runs the code translates the old bytes again in between. Since 8.1 (commit deba78709ae8) that gap is smaller.
#     With thread=single it does not happen. It hurts guests that rewrite their busy code (ftrace, kprobes, static
#     keys): Linux 6.12 with 7.2 died of an int3 that was no longer there, within a minute of switching its own
#     tracing on and off
# needs: Debian 12 on x86-64, python3, gcc, a Debian mirror (40 MB); 60 s
#
# Exits 0 when it is still so, 1 when it has changed, 3 when it could not be tried.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
sed -n '2,/^#$/s/^# //p' "$0"

not_tried() {
    [ ! -s "$work/log" ] || tail -n 5 "$work/log"
    echo "result: not tried: $*"
    exit 3
}

apt=(-q -o Debug::NoLocking=1 -o APT::Sandbox::User=)
mkdir -p "$work/debs/partial" "$work/lists/partial" "$work/root"

# unpack PACKAGE...: Debian packages, with those that they need and this machine lacks, into $work/root.
unpack() {
    set -- -y -o "Dir::Cache::archives=$work/debs" --no-install-recommends --download-only --reinstall install "$@"
    if ! apt-get "${apt[@]}" "$@" >"$work/log" 2>&1; then
        # No package lists here, or lists that are too old: fetch them, but not for the machine.
        apt+=(-o "Dir::State::lists=$work/lists")
        apt-get "${apt[@]}" update >"$work/log" 2>&1 || not_tried "no package lists"
        apt-get "${apt[@]}" "$@" >"$work/log" 2>&1 || not_tried "could not download packages"
    fi
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/root"
    done
}

# unpack_kernel METAPACKAGE: the kernel that it stands for, alone, as $work/METAPACKAGE/boot/vmlinuz-*.
unpack_kernel() {
    image=$(apt-cache "${apt[@]}" depends --important "$1" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
    mkdir "$work/$1"
    (cd "$work/$1" && apt-get "${apt[@]}" download "$image") >"$work/log" 2>&1 ||
        not_tried "could not download $1: ${image:-no such kernel}"
    dpkg-deb -x "$work/$1"/*.deb "$work/$1"
}

command -v gcc >/dev/null || not_tried "no gcc"
unpack qemu-system-x86 qemu-system-common qemu-system-data seabios
unpack_kernel linux-image-cloud-amd64
cat >"$work/qemu" <<SCRIPT
#!/bin/sh
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR=$work/root/usr/lib/x86_64-linux-gnu/qemu
exec timeout 120 $work/root/usr/bin/qemu-system-x86_64 -L $work/root/usr/share/qemu -L $work/root/usr/share/seabios \
    -nodefaults -no-user-config -display none "\$@"
SCRIPT
chmod +x "$work/qemu"
echo "versions: $("$work/qemu" --version | head -n 1)"

cat >"$work/init.c" <<'C'
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

enum { OFFSET = 3, CALLS = 1000 };

static volatile uint32_t published, checked, stop;
static unsigned lasting;
static unsigned char *code;

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static uint32_t number(void)
{
    uint32_t a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
    return ((uint32_t (*)(void))(code + OFFSET))();
}

/* Run the code all the time, and count the stores that it has not followed after CALLS calls. */
static void *run(void *unused)
{
    pin(1);
    while (!stop) {
        uint32_t expected = published, got = number();
        if (expected == checked)
            continue;
        for (int calls = 0; calls < CALLS && got != expected; calls++)
            got = number();
        lasting += got != expected;
        checked = expected;
    }
    return unused;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(void)
{
    unsigned writes = 0;
    pthread_t runner;

    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile uint32_t *immediate = (volatile uint32_t *)(code + OFFSET + 1); /* aligned */
    code[OFFSET] = 0xb8; /* mov eax, immediate */
    code[OFFSET + 5] = 0xc3; /* ret */
    pin(0);
    pthread_create(&runner, NULL, run, NULL);
    for (double end = now() + 8; now() < end;) {
        *immediate = ++writes;
        __sync_synchronize();
        published = writes;
        while (checked != writes)
            ;
        for (volatile unsigned pause = 0; pause < writes % 256; pause++)
            ;
    }
    stop = 1;
    pthread_join(runner, NULL);
    printf("writes %u lasting %u end\n", writes, lasting);
    fflush(stdout);
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
}
C
gcc -O1 -static -pthread -o "$work/init" "$work/init.c" 2>"$work/log" || not_tried "gcc"

python3 - "$work" <<'PYTHON'
import re
import subprocess
import sys
from pathlib import Path

WORK = Path(sys.argv[1])
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def archive(files):
    """An initramfs: cpio's "newc" form."""
    data = b""
    for name, mode, content in (*files, ("TRAILER!!!", 0, b"")):
        fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        data += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        data += b"\0" * (-len(data) % 4) + content
        data += b"\0" * (-len(data) % 4)
    return data


def followed(thread):
    """Whether the second vCPU has followed each store of the first."""
    console = subprocess.run(
        [WORK / "qemu", "-accel", f"tcg,thread={thread}", "-smp", "2", "-m", "512", "-no-reboot", "-serial", "stdio"]
        + ["-kernel", next(WORK.glob("linux-image-*/boot/vmlinuz-*")), "-initrd", WORK / "initramfs"]
        + ["-append", "console=ttyS0 loglevel=3 rdinit=/init panic=-1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ).stdout
    found = re.search(r"writes (\d+) lasting (\d+) end", console)
    if found is None or int(found[1]) < 100:
        print(console[-2000:])
        print("result: not tried: the guest did not come to its end")
        sys.exit(3)
    print(f"    {found[1]} stores; {found[2]} of them were not followed after 1000 calls")
    return found[2] == "0"


(WORK / "initramfs").write_bytes(archive([("init", 0o100755, (WORK / "init").read_bytes())]))
now("thread=single, every store is followed", followed("single"), True)
now("thread=multi, every store is followed", followed("multi"), False)
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON

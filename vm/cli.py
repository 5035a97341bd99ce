"""Run the commands of ``python -m vm``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from vm import bpftrace, build, guest_records, host, initramfs, kernels, module_build
from vm.errors import ExecTimeoutError, NoSuchGuestError, VmError
from vm.guest import Guest
from vm.guest_records import GuestRecord
from vm.paths import guest_dir

__all__ = ("main", "parser")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _public(record: GuestRecord) -> dict[str, object]:
    running = guest_records.is_running(record)
    state = "dead" if not running else "panicked" if Guest(record).panicked() else "running"
    return {**asdict(record), "state": state}


def _start(options: argparse.Namespace) -> int:
    append = " ".join((*options.append, *(["pti=on"] if options.pti else [])))
    guest = Guest.start(
        kernel=options.kernel,
        name=options.name,
        smp=options.smp,
        memory=options.memory,
        bpftrace=options.with_bpftrace,
        append=append,
        tcg=options.tcg,
        progress=_note,
    )
    if options.json:
        print(json.dumps(_public(guest.record)))
        return 0
    print(f"{guest.name}: Linux {guest.release}, {guest.smp} CPUs, {guest.memory} MiB, pid {guest.pid}")
    for key in ("gdb", "qmp", "qmp2", "console", "ram"):
        print(f"  {key:8}{getattr(guest, key)}")
    return 0


def _add_exec_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--timeout", type=float, default=60, help="seconds before it is killed (default 60)")
    command.add_argument(
        "--background", action="store_true", help="leave it running, its output in a file in the guest"
    )


def _exec(options: argparse.Namespace) -> int:
    if options.command[0].startswith("--"):
        # Our options may also follow the guest's name; argparse has left them in the command.
        trailing = argparse.ArgumentParser(prog="python -m vm exec NAME")
        _add_exec_options(trailing)
        trailing.add_argument("command", nargs=argparse.REMAINDER)
        options = trailing.parse_args(options.command, argparse.Namespace(**vars(options)))
        if not options.command:
            trailing.error("nothing to run")
    guest = Guest.attach(options.name)
    # One word is a script; several are a command line that the host's shell has split already.
    command = options.command[0] if len(options.command) == 1 else shlex.join(options.command)
    if options.background:
        background = guest.spawn(command)
        print(f"pid {background.pid}, output in the guest's {background.output_path}")
        return 0
    try:
        done = guest.exec(command, options.timeout)
    except ExecTimeoutError as error:
        sys.stdout.write(error.output)
        sys.stdout.flush()
        raise
    sys.stdout.write(done.output)
    return done.status


def _console(options: argparse.Namespace) -> int:
    record = guest_records.load(options.name)
    with Path(record.console).open(errors="replace") as log:
        while True:
            text = log.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            if not options.follow or not guest_records.is_running(record):
                return 0
            time.sleep(0.1)


def _list(options: argparse.Namespace) -> int:
    found = [_public(record) for record in guest_records.all_records()]
    if options.json:
        print(json.dumps(found))
        return 0
    for row in found:
        print(f"{row['name']:16} {row['state']:9} {row['release']:28} pid {row['pid']:<8} {row['gdb']}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    names = [record.name for record in guest_records.all_records()] if options.all else options.names
    for name in names:
        if not guest_dir(name).exists():
            raise NoSuchGuestError(name)
        Guest(guest_records.load(name)).stop()
        _note(f"{name}: stopped")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    host.ensure()
    names = options.kernels or [row.name for row in kernels.KERNELS]
    for name in names:
        kernel = kernels.fetch(name, refresh=options.refresh, progress=_note)
        image = initramfs.image(kernel)
        size = image.stat().st_size >> 20
        _note(f"{name}: Linux {kernel.release} ({kernel.package} {kernel.version}), initramfs {size} MiB")
    _note(f"workloads: {', '.join(build.workloads())}")
    if options.with_bpftrace:
        archive = bpftrace.archive(refresh=options.refresh, progress=_note)
        _note(f"bpftrace: {archive.stat().st_size >> 20} MiB")
    return 0


def _insmod(options: argparse.Namespace) -> int:
    Guest.attach(options.name).insmod(options.module, progress=_note)
    return 0


def _requirements(_: argparse.Namespace) -> int:
    missing = host.missing_packages()
    for name in missing:
        print(name)
    return 1 if missing else 0


def _kernels(_: argparse.Namespace) -> int:
    for row in kernels.KERNELS:
        print(f"{row.name:12} {row.package:32} {row.what}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    top = argparse.ArgumentParser(prog="python -m vm", description="Boot and use guests to trace.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    start = add("start", _start, "boot a guest and wait until it is ready")
    start.add_argument("--kernel", default="6.1-cloud", choices=[row.name for row in kernels.KERNELS])
    start.add_argument("--name", help="default: a random one")
    start.add_argument("--smp", type=int, default=2, help="CPUs (default 2)")
    start.add_argument("--memory", type=int, default=512, help="MiB (default 512)")
    start.add_argument("--with-bpftrace", action="store_true", help="with Debian's bpftrace; at least 1.5 GiB memory")
    start.add_argument("--append", action="append", default=[], metavar="ARGS", help="more kernel arguments")
    start.add_argument("--pti", action="store_true", help="force kernel page table isolation on")
    start.add_argument("--tcg", choices=["multi", "single"], help="threads (default multi; single with bpftrace)")
    start.add_argument("--json", action="store_true")

    run = add("exec", _exec, "run a shell command in a guest")
    _add_exec_options(run)
    run.add_argument("name")
    run.add_argument("command", nargs=argparse.REMAINDER)

    load = add("insmod", _insmod, "build a module of vm/modules for a guest's kernel and load it")
    load.add_argument("name")
    load.add_argument("module", choices=module_build.names())

    console = add("console", _console, "show a guest's console")
    console.add_argument("--follow", action="store_true")
    console.add_argument("name")

    listing = add("list", _list, "list the guests")
    listing.add_argument("--json", action="store_true")

    stop = add("stop", _stop, "stop guests and remove all their files on this host")
    stop.add_argument("names", nargs="*", metavar="NAME")
    stop.add_argument("--all", action="store_true")

    fetch = add("fetch", _fetch, "download kernels and build workloads ahead of time")
    fetch.add_argument("kernels", nargs="*", metavar="KERNEL")
    fetch.add_argument("--with-bpftrace", action="store_true")
    fetch.add_argument("--refresh", action="store_true", help="look for newer kernels")

    add("requirements", _requirements, "print the Debian packages that are missing; exit status 1 if any")
    add("kernels", _kernels, "print the kernel matrix")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    tree = parser()
    options = tree.parse_args(arguments)
    if options.run is _exec and not options.command:
        tree.error("exec: nothing to run")
    if options.run is _stop and bool(options.names) == options.all:
        tree.error("stop: give names, or --all")
    try:
        status: int = options.run(options)
    except VmError as error:
        _note(f"vm: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return status

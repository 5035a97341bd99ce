"""Find the QEMU process of a local target: its pid, monitor sockets and memory file, from its command line.

An *option group* is QEMU's ``kind,key=value,key=value`` (a comma in a value is
doubled). A *chardev* is a named socket that ``-gdb``, ``-qmp`` and ``-mon``
may refer to; each of them may also name the socket itself.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from probekit.errors import ProbekitError
from probekit.target.connect import TargetSpec
from probekit.target.runtime_stubs import ask_for_stub, listening, unnamed

__all__ = ("QemuProcess", "find_qemu", "only_guest", "parse_argv")

_SIZE: Final = re.compile(r"([0-9]{1,18})([kKmMgGtT]?)[bB]?")
_PROGRAM: Final = re.compile(r"qemu-system-|(qemu-)?kvm$")
_UNITS: Final = {"": 20, "k": 10, "m": 20, "g": 30, "t": 40}
_BYTE_UNITS: Final = {**_UNITS, "": 0}
_DEFAULT_GDB_PORT: Final = 1234


@dataclass(frozen=True, slots=True)
class QemuProcess:
    """What a QEMU command line says; None for what it does not.

    Paths are as written: relative ones start at the process's working directory.
    """

    pid: int | None
    """Its process ID."""
    name: str
    """The value of ``-name``, else empty."""
    gdb: str | None
    """The address of its gdb stub, ``unix:PATH`` or ``tcp:PORT``."""
    qmp: tuple[str, ...]
    """Paths of its QMP sockets."""
    memory_backend: str | None
    """The id of the backend, which is the name of its region in the memory map."""
    memory_path: str | None
    """The file that holds guest memory."""
    memory_size: int | None
    """Bytes."""
    memory_shared: bool
    """Whether another process that maps ``memory_path`` sees the guest's memory."""
    user: str = ""
    """Who runs it, when that is another user; else empty."""
    unnamed: tuple[str, ...] = ()
    """Addresses that it listens on and that its command line does not name. One may be a stub of its monitor's."""


def parse_argv(argv: Sequence[str], pid: int | None = None) -> QemuProcess:
    """Parse a QEMU command line. Nothing else is read."""
    groups = list(_groups(argv))
    chardevs = {g["id"]: g for option, g in groups if option == "chardev" and "id" in g}
    name = ""
    gdb: str | None = None
    qmp: list[str] = []
    backends: list[dict[str, str]] = []
    wanted: str | None = None
    for option, group in groups:
        match option:
            case "name":
                name = group.get("guest", group.get("", name))
            case "s":
                gdb = f"tcp:{_DEFAULT_GDB_PORT}"
            case "gdb":
                gdb = _address(group, chardevs) or gdb
            case "qmp" | "qmp-pretty":
                qmp += _unix_path(_address(group, chardevs))
            case "mon" if group.get("mode", group.get("")) == "control":
                named = chardevs.get(group.get("chardev", group.get("", "")))
                qmp += _unix_path(_socket_address(named) if named else None)
            case "object" if group.get("") in ("memory-backend-file", "memory-backend-memfd", "memory-backend-ram"):
                backends.append(group)
            case "machine" | "M":
                wanted = group.get("memory-backend", wanted)
    memory = _ram_backend(backends, wanted)
    return QemuProcess(
        pid=pid,
        name=name,
        gdb=gdb,
        qmp=tuple(dict.fromkeys(qmp)),
        memory_backend=memory.get("id"),
        memory_path=memory.get("mem-path"),
        memory_size=parse_size(memory["size"]) if "size" in memory else _ram_size(groups),
        memory_shared=memory.get("share", "off") in ("on", "yes", "true", "y"),
    )


def parse_size(text: str, *, bytes_by_default: bool = True) -> int | None:
    """Return ``512M`` in bytes; a bare number is bytes (for ``-m``: mebibytes). None when it is not a size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    return int(match[1]) << (_BYTE_UNITS if bytes_by_default else _UNITS)[match[2].lower()]


def _ram_size(groups: Sequence[tuple[str, dict[str, str]]]) -> int | None:
    for option, group in groups:
        if option == "m":
            return parse_size(group.get("size", group.get("", "")), bytes_by_default=False)
    return None


def _ram_backend(backends: Sequence[dict[str, str]], wanted: str | None) -> dict[str, str]:
    """Return the backend of the machine's RAM, the named or the only one. With several the map is not simple."""
    named = [one for one in backends if wanted is not None and one.get("id") == wanted]
    found = named or (list(backends) if len(backends) == 1 else [])
    one = found[0] if found else {}
    return one if one.get("") == "memory-backend-file" else {}


def _groups(argv: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each option with its group; the value without a key has the key ``""``."""
    index = 1
    while index < len(argv):
        word = argv[index]
        index += 1
        if not word.startswith("-") or word in ("-", "--"):
            continue
        option = word.lstrip("-")
        value = ""
        if index < len(argv) and not argv[index].startswith("-"):
            value = argv[index]
            index += 1
        yield option, _group(value)


def _group(text: str) -> dict[str, str]:
    if text.startswith("{"):
        return _json_group(text)
    group: dict[str, str] = {}
    for number, item in enumerate(part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")):
        key, equals, value = item.partition("=")
        if equals:
            group["" if number == 0 and key in ("driver", "qom-type", "backend", "type") else key] = value
        elif number == 0:
            group[""] = item
        elif item:
            # "server", "nowait", "share": a flag.
            group[key] = "on"
    return group


def _json_group(text: str) -> dict[str, str]:
    import json  # only command lines written by libvirt have it

    try:
        data = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    group = {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in data.items()}
    if "qom-type" in group:
        group[""] = group["qom-type"]
    return group


def _address(group: dict[str, str], chardevs: dict[str, dict[str, str]]) -> str | None:
    """Return ``unix:PATH`` or ``tcp:PORT`` for a device such as ``unix:/p,server``, ``tcp::1234`` or ``chardev:id``."""
    first = group.get("", "")
    scheme, _, rest = first.partition(":")
    if scheme == "chardev":
        return _socket_address(chardevs.get(rest, {}))
    if scheme == "unix" and rest:
        return f"unix:{rest}"
    port = rest.rpartition(":")[2] if scheme == "tcp" else first
    return f"tcp:{port}" if port.isdecimal() else None


def _socket_address(chardev: dict[str, str]) -> str | None:
    if chardev.get("") != "socket":
        return None
    if "path" in chardev:
        return f"unix:{chardev['path']}"
    return f"tcp:{chardev['port']}" if chardev.get("port", "").isdecimal() else None


def _unix_path(address: str | None) -> list[str]:
    return [address.removeprefix("unix:")] if address is not None and address.startswith("unix:") else []


def find_qemu(spec: TargetSpec) -> QemuProcess | None:
    """Return the local QEMU that serves ``spec``, with absolute paths, or None.

    A unix path is compared with each QEMU's command line; a TCP port also with the sockets that processes listen on
    (only root sees other users' processes).
    """
    address = _local_address(spec)
    if address is None:
        return None
    for process, found in _running():
        if address == found.gdb or address in listening(process):
            return found
    return None


def only_guest() -> tuple[str, str]:
    """Return the target, as ``-r`` takes it, and the name of the one QEMU of this host that has a gdb stub.

    The stub is one of the command line, or one that the monitor has opened since, if a QMP socket tells of it.
    Raises :class:`ProbekitError` when there is none or more than one; it lists the guests and says what to type.
    """
    everything = [_with_stub(process, found) for process, found in _running()]
    guests = [(_spec(one.gdb), _label(one)) for one in everything if one.gdb is not None]
    if len(guests) == 1:
        return guests[0]
    if guests:
        choices = "".join(f"\n  -r {spec}    {label}" for spec, label in sorted(guests))
        raise ProbekitError(f"{len(guests)} guests on this host have a gdb stub: choose one with -r{choices}")
    if everything:
        raise _no_stub(everything)
    if _others_are_hidden():
        raise ProbekitError(
            "no guest: you may not see the processes of other users, and no QEMU of yours runs on this host",
            hint="run as the user who runs QEMU, or as root; or name a gdb stub with -r",
        )
    raise ProbekitError("no guest: no QEMU runs on this host; name a gdb stub with -r, or use -r none")


def _with_stub(process: psutil.Process, found: QemuProcess) -> QemuProcess:
    """Add what a running QEMU says of a stub that is not on its command line."""
    if found.gdb is not None:
        return found
    try:
        argv = process.cmdline()
    except psutil.Error:
        return found
    places = unnamed(listening(process), argv)
    if not places:
        return found
    return replace(found, gdb=ask_for_stub(found.qmp), unnamed=tuple(sorted(places)))


def _no_stub(everything: Sequence[QemuProcess]) -> ProbekitError:
    """Return the error for guests of which none is known to have a stub."""
    closed = ", ".join(_label(one) for one in everything)
    message = f"no guest: none with a gdb stub runs on this host, but {closed}"
    maybe = [f"-r {_spec(place)}" for one in everything for place in one.unnamed]
    if maybe:
        return ProbekitError(message, hint=f"if its monitor has opened a stub, name it: {' or '.join(maybe)}")
    users = sorted({one.user for one in everything if one.user})
    if users:
        who = " or ".join(users)
        hint = f"only root and {who} can see whether its monitor has opened one; they, or you with -r, can name it"
        return ProbekitError(message, hint=hint)
    return ProbekitError(message, hint="in its monitor: gdbserver tcp:127.0.0.1:1234; then probekit -r localhost:1234")


def _others_are_hidden() -> bool:
    """Return whether this user sees no processes of others, or not what they run (proc(5), ``hidepid``)."""
    try:
        return not Path("/proc/1/cmdline").read_bytes()
    except OSError:
        return True


def _spec(gdb: str) -> str:
    return gdb.replace("tcp:", "localhost:", 1) if gdb.startswith("tcp:") else gdb


def _label(one: QemuProcess) -> str:
    name = repr(one.name)[1:-1]  # escaped: the user who started it chose the name
    who = f"pid {one.pid}, user {one.user}" if one.user else f"pid {one.pid}"
    return f"{name} ({who})" if name else who


def _running() -> Iterator[tuple[psutil.Process, QemuProcess]]:
    """Yield every QEMU of this host whose command line can be read.

    Paths are absolute, but for a process of another user whose working directory cannot be seen.
    """
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
            if not argv or not _PROGRAM.match(Path(argv[0]).name):
                continue
            found = parse_argv(argv, process.pid)
            uid = process.uids().real
            if uid != os.getuid():
                found = replace(found, user=process.username())
            with suppress(psutil.AccessDenied):
                found = _absolute(found, process.cwd())
            yield process, found
        except psutil.Error:
            continue


def _local_address(spec: TargetSpec) -> str | None:
    kind, address = spec.kind, spec.address
    if kind == "gdb":
        address = address.removeprefix("extended-remote ").removeprefix("remote ").strip()
        host, _, port = address.rpartition(":")
        if port.isdecimal():
            return f"tcp:{port}" if _is_local(host.removeprefix("tcp:")) else None
        kind, address = "unix", address.removeprefix("unix:")
    if kind == "unix":
        return f"unix:{Path(address).resolve()}"
    if kind == "tcp" and _is_local(address):
        return f"tcp:{spec.port}"
    return None


def _is_local(host: str) -> bool:
    return host in ("", "localhost", "::1", socket.gethostname()) or host.startswith("127.")


def _absolute(found: QemuProcess, folder: str) -> QemuProcess:
    def whole(path: str) -> str:
        return str((Path(folder) / path).resolve())

    gdb = found.gdb
    if gdb is not None and gdb.startswith("unix:"):
        gdb = "unix:" + whole(gdb.removeprefix("unix:"))
    return replace(
        found,
        gdb=gdb,
        qmp=tuple(whole(path) for path in found.qmp),
        memory_path=None if found.memory_path is None else whole(found.memory_path),
    )

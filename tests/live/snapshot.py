"""All executable text of a guest's kernel and modules, as it is at one moment.

Where it lies is what the guest says (/proc/kallsyms, /sys/module) and what the
modules' own files say; the bytes are read through the stub.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from elftools.elf.elffile import ELFFile

from tests.live.rawstub import RawStub
from vm import kernels
from vm.guest import Guest

__all__ = ("ModuleText", "TextSnapshot")

_EXECUTABLE = 0x4
_KERNEL = "vmlinux"
_SHOWN = 20


@dataclass(frozen=True)
class TextSnapshot:
    """``parts``: name to (address, bytes)."""

    parts: dict[str, tuple[int, bytes]]

    @property
    def kernel_start(self) -> int:
        """The address of ``_text``."""
        return self.parts[_KERNEL][0]

    @classmethod
    def take(cls, guest: Guest) -> TextSnapshot:
        """As it is now."""
        places = {**_kernel(guest), **_modules(guest)}
        texts = _read(guest, list(places.values()))
        return cls({name: (places[name][0], text) for name, text in zip(places, texts, strict=True)})

    def changes(self, guest: Guest, *, kernel: bool = True) -> list[str]:
        """What is different now, in words; empty when nothing is. ``kernel``: in its own text too, and not only in
        that of modules."""
        return _differences({name: part for name, part in self.parts.items() if kernel or name != _KERNEL}, guest)


def _differences(parts: dict[str, tuple[int, bytes]], guest: Guest) -> list[str]:
    now = _read(guest, [(addr, len(data)) for addr, data in parts.values()])
    found: list[str] = []
    for (name, (addr, before)), after in zip(parts.items(), now, strict=True):
        if before != after:
            where = [at for at in range(len(before)) if before[at] != after[at]]
            found.append(f"{name}: {len(where)} bytes")
            found += [f"{addr + at:#x}: {before[at]:02x} -> {after[at]:02x}" for at in where[:_SHOWN]]
    return found


@dataclass(frozen=True)
class ModuleText:
    """Code and marker descriptors of one module of ours. ``parts``: section to (address, bytes)."""

    parts: dict[str, tuple[int, bytes]]

    @classmethod
    def take(cls, guest: Guest, name: str, file: bytes) -> ModuleText:
        """As it is now. ``file``: what was loaded."""
        elf = ELFFile(BytesIO(file))
        places: dict[str, tuple[int, int]] = {}
        for section in elf.iter_sections():
            code = section["sh_flags"] & _EXECUTABLE and not section.name.startswith((".init", ".exit"))
            if section["sh_size"] and (code or section.name == "__pk_markers_data"):
                addr = int(guest.check(f"cat /sys/module/{name}/sections/{section.name}"), 16)
                places[section.name] = (addr, section["sh_size"])
        texts = _read(guest, list(places.values()))
        return cls({section: (places[section][0], text) for section, text in zip(places, texts, strict=True)})

    def changes(self, guest: Guest) -> list[str]:
        """What is different now, in words."""
        return _differences(self.parts, guest)


def _kernel(guest: Guest) -> dict[str, tuple[int, int]]:
    lines = guest.check("grep -E ' (_text|_etext)$' /proc/kallsyms").split("\n")
    bounds = {line.split()[2]: int(line.split()[0], 16) for line in lines if line}
    return {_KERNEL: (bounds["_text"], bounds["_etext"] - bounds["_text"])}


def _modules(guest: Guest) -> dict[str, tuple[int, int]]:
    """Executable sections of every module that is loaded from a file we know."""
    folder = kernels.fetch(guest.kernel).directory / "modules"
    script = 'for s in /sys/module/*/sections/.*text*; do test -f "$s" && echo "$s $(cat $s)"; done; true'
    found: dict[str, tuple[int, int]] = {}
    for line in guest.check(script).splitlines():
        path, text = line.split()
        module, section = path.split("/")[3], path.rpartition("/")[2]
        file = next((p for p in folder.glob("*.ko") if p.stem.replace("-", "_") == module), None)
        if file is None or section.startswith(".init"):
            continue
        with file.open("rb") as stream:
            header = ELFFile(stream).get_section_by_name(section)
            if header is not None and header["sh_flags"] & _EXECUTABLE and header["sh_size"]:
                found[f"{module}{section}"] = (int(text, 16), header["sh_size"])
    return found


def _read(guest: Guest, places: Sequence[tuple[int, int]]) -> list[bytes]:
    """Every range in one stop. With page-table isolation a vCPU in user space does not map them: try again."""
    for _ in range(50):
        with RawStub(guest.gdb) as stub:
            try:
                return [stub.read(addr, size) for addr, size in places]
            except LookupError as error:
                problem = error
        time.sleep(0.05)
    raise problem

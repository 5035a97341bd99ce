"""Names a guest, and one boot of it, so that the lock, the journals and the recovery tables agree on both."""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from pathlib import Path

from probekit.errors import ProbekitError, SymbolError
from probekit.kernel.kernel import Kernel
from probekit.target.connect import parse_spec

__all__ = ("boot_cookie", "target_key")

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
# Random at every boot with CONFIG_RANDOMIZE_MEMORY (kernel commit 0483e1fa6e09, v4.8).
_RANDOM_BASES = ("page_offset_base", "vmalloc_base", "vmemmap_base")


def target_key(spec: str) -> str:
    """Return the same name for all spellings of one target, with or without ``gdb:`` before it."""
    parsed = parse_spec(spec)
    match parsed.kind:
        case "unix":
            return f"unix:{Path(parsed.address).resolve()}"
        case "tcp":
            host = "localhost" if parsed.address in _LOOPBACK else parsed.address
            return f"tcp:{host}:{parsed.port}"
        case "gdb":
            if parsed.address.startswith("/"):
                return f"unix:{Path(parsed.address).resolve()}"
            try:
                return target_key(parsed.address)
            except ProbekitError:
                return spec
        case _:
            return spec


def boot_cookie(kernel: Kernel) -> bytes:
    """Return 16 bytes that identify this boot: a hash of its random addresses and the first task's stack canary."""
    parts = [kernel.base, *kernel.percpu_offsets[:1]]
    memory = kernel.memory
    parts += [memory.u64(addr) for name in _RANDOM_BASES if (addr := kernel.symbols.addr(name)) is not None]
    init = kernel.symbols.addr("init_task")
    if kernel.btf is not None and init is not None:
        with suppress(SymbolError):  # a kernel without CONFIG_STACKPROTECTOR has no canary
            parts.append(memory.u64(init + kernel.btf.struct("task_struct").field("stack_canary").offset))
    return hashlib.sha256(struct.pack(f"<{len(parts)}Q", *parts)).digest()[:16]

"""A gdb stub in a thread, for tests: QEMU-like or gdbsx-like, with faults on demand.

``ScriptedStub(memory=...)`` answers on one end of a socket pair; ``.stream``
is the other end. The faults are fields, read for each packet.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from probekit.target.packets import frame
from probekit.target.rsp import RspTarget
from probekit.target.transport import Stream

PAGE = 4096
QEMU_SUPPORTED = b"PacketSize=1000;qXfer:features:read+;vContSupported+;multiprocess+"
_PACKET = re.compile(rb"\$([^#]*)#(..)", re.DOTALL)


@dataclass
class Faults:
    """``nak_first``: packets refused as damaged. ``corrupt_first``: replies damaged. ``drip``: seconds a byte."""

    silent: bool = False
    greeting: bytes = b""
    nak_first: int = 0
    corrupt_first: int = 0
    delay_once: float = 0.0
    delay_on: bytes = b""
    close_on: bytes = b""
    answers: dict[bytes, bytes] = field(default_factory=dict)
    prefix_once: bytes = b""


class ScriptedStub:
    def __init__(
        self, *, qemu: bool = True, memory: dict[int, bytearray] | None = None, faults: Faults | None = None
    ) -> None:
        ours, theirs = socket.socketpair()
        self.stream = Stream(theirs, "stub")
        self.qemu = qemu
        self.memory = memory if memory is not None else {0x1000: bytearray(PAGE), 0x2000: bytearray(PAGE)}
        self.faults = faults or Faults()
        self.packets: list[bytes] = []
        self.acks = 0
        self.breaks: set[bytes] = set()
        self.running = False
        self.registers = {1: bytearray(608 if qemu else 164), 2: bytearray(608 if qemu else 164)}
        self.current = 1
        self.physical = False
        self.breaks_sent = 0
        self.unacknowledged = False
        # Somebody lets the machine run once so many packets have arrived.
        self.run_after: int | None = None
        self._sock = ours
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.stream.close()
        self._sock.close()
        self._thread.join(5)

    def push(self, payload: bytes) -> None:
        """A packet nobody asked for (a stop)."""
        self.running = False
        self.unacknowledged = True
        self._sock.sendall(frame(payload))

    def _serve(self) -> None:
        pending = b""
        try:
            if self.faults.greeting:
                self._sock.sendall(self.faults.greeting)
            while data := self._sock.recv(65536):
                if self.faults.silent:
                    continue
                pending = self._eat(pending + data)
        except OSError:
            return

    def _eat(self, data: bytes) -> bytes:
        while data:
            if self.run_after == len(self.packets) > 0:
                self.run_after = None
                self.running = True
            self.breaks_sent += data[:1] == b"\x03"
            if self.qemu and self.unacknowledged and data[:1] in b"+\x03":
                # QEMU's waits for the acknowledgement of its last reply, for which the next packet serves as well.
                self.unacknowledged = data[:1] != b"+"
                self.acks += data[:1] == b"+"
                data = data[1:]
                continue
            self.unacknowledged = False
            if self.running:
                # Any byte stops the machine, and is lost.
                data = data[1:]
                self.push(b"T02thread:p01.01;" if self.qemu else b"T02thread:1;")
                continue
            if data[:1] == b"$":
                match = _PACKET.match(data)
                if match is None:
                    return data
                data = data[match.end() :]
                self._packet(match[1])
            else:
                self.acks += data[:1] == b"+"
                data = data[1:]
        return b""

    def _packet(self, payload: bytes) -> None:
        self.packets.append(payload)
        faults = self.faults
        if faults.nak_first:
            faults.nak_first -= 1
            self._sock.sendall(b"-")
            return
        if faults.close_on and payload.startswith(faults.close_on):
            self._sock.close()
            raise OSError
        if faults.delay_once and payload.startswith(faults.delay_on):
            delay, faults.delay_once = faults.delay_once, 0.0
            time.sleep(delay)
        out = b"+"
        if faults.prefix_once:
            out, faults.prefix_once = faults.prefix_once + out, b""
        reply = next((v for k, v in faults.answers.items() if payload.startswith(k)), None)
        if reply is None:
            reply = self._reply(payload)
        if reply is not None:
            self.unacknowledged = True
            packet = frame(reply)
            if faults.corrupt_first:
                faults.corrupt_first -= 1
                self._sock.sendall(out + packet[:-2] + b"zz")
                # A stub sends its reply again when it is refused; the refusal is read by _eat as noise.
                out = b""
            self._sock.sendall(out + packet)
        else:
            self._sock.sendall(out)

    def _reply(self, p: bytes) -> bytes | None:
        table = {
            b"?": b"T05thread:p01.01;" if self.qemu else b"T05thread:1;",
            b"qfThreadInfo": b"mp01.01" if self.qemu else b"m1,2l",
            b"qsThreadInfo": b"mp01.02" if self.qemu and self.packets[-2:-1] == [b"qfThreadInfo"] else b"l",
        }
        if self.qemu:
            table |= {
                b"vCont?": b"vCont;c;C;s;S",
                b"qqemu.sstepbits": b"ENABLE=1,NOIRQ=2,NOTIMER=4",
                b"qqemu.sstep": b"0x7",
                b"qqemu.PhyMemMode": b"0",
            }
        if p in table:
            return table[p]
        match p[:1]:
            case b"m" | b"M":
                return self._access(p)
            case b"H":
                self.current = int(re.search(rb"([0-9a-f]+)$", p)[1], 16)
                return b"OK"
            case b"g":
                return self.registers[self.current].hex().encode()
            case b"G":
                self.registers[self.current] = bytearray.fromhex(p[1:].decode())
                return b"OK"
            case b"Z" | b"z":
                return self._breakpoint(p)
            case b"D":
                return b"OK"
            case b"c" | b"s":
                return self._go(p == b"s")
        if not self.qemu:
            return b""
        if p.startswith(b"qSupported"):
            return QEMU_SUPPORTED
        if p.startswith(b"vCont;"):
            return self._go(p.startswith(b"vCont;s"))
        if p.startswith(b"Qqemu.PhyMemMode:"):
            self.physical = p.endswith(b"1")
            return b"OK"
        if p[:1] == b"P":
            number, value = p[1:].split(b"=")
            n = int(number, 16)
            offset = n * 8 if n < 17 else 136 + (n - 17) * 4
            data = bytes.fromhex(value.decode())
            self.registers[self.current][offset : offset + len(data)] = data
            return b"OK"
        return b""

    def _go(self, step: bool) -> bytes | None:
        if step:
            return b"T05thread:%x;" % self.current
        self.running = True
        return None

    def _breakpoint(self, p: bytes) -> bytes:
        if not self.qemu:
            return b""
        if p[:1] == b"Z":
            self.breaks.add(p[1:])
        elif p[1:] not in self.breaks:
            return b"E22"
        else:
            self.breaks.remove(p[1:])
        return b"OK"

    def _access(self, p: bytes) -> bytes:
        head, _, body = p[1:].partition(b":")
        addr, size = (int(x, 16) for x in head.split(b","))
        if size > 2048:
            return b"E22"
        out = bytearray()
        for at in range(addr, addr + size):
            page = self.memory.get(at & -PAGE)
            if page is None:
                return b"E14"
            if p[:1] == b"M":
                page[at % PAGE] = int(body[2 * (at - addr) : 2 * (at - addr) + 2], 16)
            out.append(page[at % PAGE])
        return b"OK" if p[:1] == b"M" else out.hex().encode()


Connect = Callable[..., tuple[RspTarget, ScriptedStub]]
"""Makes a stub with the named options and connects to it: the fixture ``connect``."""

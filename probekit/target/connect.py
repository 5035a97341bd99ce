"""Connect to the :class:`~probekit.target.api.Target` that the user named with ``-r``.

======================  ======================================================
``HOST:PORT``           a stub on TCP (``tcp:HOST:PORT`` says the same)
``unix:PATH``           a stub on a unix socket
``gdb:TARGET-STRING``   through gdb: whatever its ``target remote`` takes
``none``                no target (for what needs none, as listing a script)
======================  ======================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, assert_never

from probekit.errors import ProbekitError, TargetLost
from probekit.target.api import NoteHold, Target, ignore_hold
from probekit.target.rsp import RspTarget
from probekit.target.transport import Stream, open_tcp, open_unix

__all__ = ("DEFAULT_TIMEOUT", "TargetSpec", "connect", "parse_spec")

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds for connecting and for the handshake."""

_FORMS: Final = "a target is HOST:PORT, tcp:HOST:PORT, unix:PATH, gdb:TARGET-STRING or none"


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """The parts of a target as the user wrote it."""

    text: str
    """As written."""
    kind: Literal["tcp", "unix", "gdb", "none"]
    """Which form it has."""
    address: str = ""
    """The path, the host, or what gdb is given."""
    port: int = 0
    """For TCP, else 0."""


def parse_spec(spec: str) -> TargetSpec:
    """Parse ``spec``. Raises :class:`ProbekitError`, which names the forms."""
    scheme, _, rest = spec.partition(":")
    if spec == "none":
        return TargetSpec(spec, "none")
    if scheme == "unix" and rest and "\0" not in rest:
        return TargetSpec(spec, "unix", rest)
    if scheme == "gdb" and rest.strip() and rest.isprintable():
        return TargetSpec(spec, "gdb", rest.strip())
    if scheme not in ("unix", "gdb"):
        host, _, port = spec.removeprefix("tcp:").rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if port.isascii() and port.isdecimal() and 0 < int(port) < 65536 and host.isprintable():
            return TargetSpec(spec, "tcp", host or "localhost", int(port))
    raise ProbekitError(f"not a target: {spec!r}", hint=_FORMS)


def connect(
    spec: str, timeout: float = DEFAULT_TIMEOUT, *, was_running: bool | None = None, note_hold: NoteHold = ignore_hold
) -> Target:
    """Connect to the machine that ``spec`` names, which stops it.

    ``was_running``: whether it runs now, where somebody knows (QMP); None to go by what the stub says.
    ``note_hold``: see :data:`~probekit.target.api.NoteHold`.
    Raises :class:`ProbekitError` for a bad ``spec`` and :class:`TargetError` (with a hint) when nothing answers.
    """
    parsed = parse_spec(spec)
    match parsed.kind:
        case "tcp" | "unix":
            try:
                stream = _open_stream(parsed, timeout)
                return RspTarget(stream, name=spec, timeout=timeout, was_running=was_running, note_hold=note_hold)
            except TargetLost:
                raise  # it may be left stopped
            except BaseException:
                note_hold(None)
                raise
        case "gdb":
            from probekit.target.gdbmi import GdbTarget  # imported here: pygdbmi is seldom needed

            return GdbTarget(parsed.address, name=spec, timeout=timeout, was_running=was_running, note_hold=note_hold)
        case "none":
            raise ProbekitError("this needs a target: none was chosen", hint=_FORMS)
        case _ as never:
            assert_never(never)


def _open_stream(spec: TargetSpec, timeout: float) -> Stream:
    if spec.kind == "unix":
        return open_unix(spec.address, timeout=timeout)
    return open_tcp(spec.address, spec.port, timeout=timeout)

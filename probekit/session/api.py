"""Offers the Python API: attach to a guest, run programs, read their results as plain data. See docs/api.md.

:class:`Guest` is a guest that probekit is attached to. :class:`vm.guest.Guest`, which only the tests use, is a virtual
machine that they start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from probekit.ir.build import compile_program
from probekit.probe.names import ProbeDescription
from probekit.providers.api import Probe
from probekit.session.attach import Attachment, AttachOptions
from probekit.session.attach import attach as attach_guest
from probekit.session.checks import refuse_destructive
from probekit.session.exclusive import detach_at_exit
from probekit.session.guest_types import GuestTypes
from probekit.session.options import EngineName, Options, apply_options
from probekit.session.run import Run

__all__ = ("Guest", "attach")


class Guest:
    """Represents a running guest that probekit is attached to; :func:`attach` makes it.

    It is a context manager. Leaving it detaches from the guest, which is then as it was.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Restore the guest if a trace is live, let it run and close the connection. Safe to call twice."""
        self._attachment.detach()

    @property
    def release(self) -> str:
        """The kernel's release, such as ``6.1.0-56-cloud-amd64``."""
        return self._attachment.kernel.release

    @property
    def longest_pause(self) -> float:
        """Seconds of the longest pause of the guest since attaching, or since sites were last enabled or restored."""
        return self._attachment.clock.longest

    def probes(self, description: str = "") -> Iterator[Probe]:
        """Yield the probes that match a description, as ``-l`` lists them. Some of them cannot be enabled.

        Raises :class:`probekit.probe.names.DescriptionError` for a malformed description.
        """
        wanted = ProbeDescription.parse(description)
        with self._attachment.use.turn():
            return iter(list(self._attachment.registry.match(wanted)))

    def trace(
        self,
        script: str,
        *,
        args: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        engine: EngineName = "guest",
    ) -> Run:
        """Compile a script and match its probes. Nothing changes in the guest before :meth:`Run.events` is read.

        ``args``: the values of ``$1``, ``$2`` ... ``options``: values by name, as ``-x`` takes them. ``engine``:
        ``guest`` runs clauses in the guest, ``stop`` stops the guest at each firing.
        Raises :class:`probekit.lang.diagnostics.CompileError`, :class:`probekit.session.checks.NoMatchError`,
        :class:`probekit.session.options.OptionError`, and :class:`probekit.errors.ProbekitError` for a destructive
        action without the option ``destructive``, or :class:`probekit.errors.DetachedError` after :meth:`detach`.
        """
        with self._attachment.use.turn():
            return self._trace(script, args, options or {}, engine)

    def _trace(self, script: str, args: Sequence[str], options: Mapping[str, str], engine: EngineName) -> Run:
        kernel = GuestTypes(self._attachment)
        program = compile_program(script, allow_bare=True, args=("probekit", *args), kernel=kernel)
        settings = apply_options(apply_options(Options(), program.options), options.items())
        refuse_destructive(program, settings)
        name = f"description '{script.partition('{')[0].strip()}'"
        return Run(self._attachment, program, settings, engine=engine, name=name)


def attach(
    spec: str,
    *,
    symbols: str | Path | None = None,
    cache: bool = True,
    ram: str | None = None,
    timeout: float = 5.0,
    qmp: str | None = None,
) -> Guest:
    """Attach to a guest by its gdb stub. ``spec``: the stub, in any form that ``-r`` takes (see ``probekit --help``).

    ``symbols``: an ELF, System.map or kallsyms file. ``cache``: use the symbol cache on disk. ``ram``: the guest's
    shared RAM file (found by itself for a guest of this host; ``none`` to do without). ``timeout``: seconds for
    connecting. ``qmp``: QEMU's QMP socket, which reports at once when the guest reboots or dies.
    Raises :class:`probekit.errors.ProbekitError`; the guest is then as it was.
    """
    options = AttachOptions(symbols=Path(symbols) if symbols else None, cache=cache, ram=ram, timeout=timeout, qmp=qmp)
    attachment = attach_guest(spec, options)
    detach_at_exit(attachment)
    return Guest(attachment)

"""Carries out ``probekit`` without a subcommand: runs a program, or with ``-l`` and ``-e`` lists or compiles.

arguments -> sources -> compiled (again with the guest's types, where they are needed) -> Run -> RunRenderer
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from probekit.cli.args import Arguments, UsageError
from probekit.cli.errors import ScriptError
from probekit.cli.progress import Progress, answer
from probekit.cli.prototypes import argument_types
from probekit.cli.render import RunRenderer, open_output
from probekit.cli.sources import CanMatch, Compiled, compile_sources, pragma_options, read_sources
from probekit.cli.target import NO_GUEST, attach_options, found_guest, target_of
from probekit.errors import required
from probekit.output.streams import process_output
from probekit.session.checks import NoMatchError, refuse_destructive
from probekit.session.options import EngineName, Options, apply_options, environment_options
from probekit.session.run import Run
from probekit.session.signals import Interrupts

if TYPE_CHECKING:
    from probekit.cli.victim import Victim
    from probekit.lang.kernelside import KernelSource
    from probekit.session.attach import Attachment

__all__ = ("trace",)


def trace(arguments: Arguments) -> int:
    """Carry out ``probekit`` without a subcommand. Returns the exit status."""
    with ExitStack() as outputs, ExitStack() as stack:
        return _TraceCommand(arguments, stack, outputs).run()


class _TraceCommand:
    """Carries out one command line."""

    def __init__(self, arguments: Arguments, stack: ExitStack, outputs: ExitStack) -> None:
        """Read the options and sources.

        ``stack``: closes everything that this command opens. ``outputs``: closes the output after that, because its
        reader may keep us waiting.
        """
        self._arguments = arguments
        self._stack = stack
        self._outputs = outputs
        self._options = apply_options(Options(), [*environment_options(os.environ), *arguments.options])
        self._sources = read_sources(arguments.programs, self._options)
        self._compiled: Compiled | None = None
        self._victim: Victim | None = None

    def run(self) -> int:
        """Run, list or compile. Returns the exit status."""
        arguments = self._arguments
        if not arguments.programs and not arguments.list:
            if arguments.args[:1] == ("recover",):
                raise UsageError("`recover` comes first: probekit recover -r TARGET")
            raise UsageError("no probes: give some with -n or -s")
        self._victim = self._start_victim()
        spec = target_of(arguments)
        if arguments.programs:
            self._compile_without_guest(spec)
        if arguments.compile_only and not spec:
            return 0
        spec = spec or found_guest(quiet=self._options.quiet or arguments.json)
        progress = Progress(verbose=arguments.verbose and spec != NO_GUEST, silent=arguments.json)
        interrupts = self._stack.enter_context(Interrupts(answer))
        process_output().heed(lambda: interrupts.pending)
        with interrupts.interruptible():
            guest = self._attach(spec, progress, interrupts)
            run = self._prepare(guest, progress, interrupts)
        if run is None:
            return 0
        self._stack.enter_context(run)
        compiled = required(self._compiled, "the program to run")
        renderer = RunRenderer(run, compiled, arguments, self._options, progress, argument_types(guest))
        try:
            return renderer.render(self._outputs)
        except NoMatchError as error:
            raise _no_match(error, compiled, errtags=self._options.errtags) from error

    def _prepare(self, guest: Attachment | None, progress: Progress, interrupts: Interrupts) -> Run | None:
        """Compile what needs the guest, and match the probes. Returns None when nothing runs: after ``-l``, ``-e``."""
        arguments = self._arguments
        if guest is not None and arguments.programs and self._compiled is None:
            from probekit.session.guest_types import GuestTypes

            self._compile(GuestTypes(guest))
        if arguments.list:
            self._list(guest, progress)
            return None
        compiled = required(self._compiled, "the program to run")
        run = self._make_run(compiled, guest, interrupts)
        if arguments.compile_only:
            if arguments.verbose:
                self._report_stability(compiled, run, guest)
            return None
        return run

    # -- compiling ---------------------------------------------------------------------------------------------------

    def _compile_without_guest(self, spec: str) -> None:
        """Compile. If the program may need the guest's types or symbols, leave it to a second try with the guest."""
        can_match = _host_probes() if spec == NO_GUEST and not self._arguments.list else None
        try:
            self._compile(can_match=can_match)
        except ScriptError as error:
            if not error.needs_kernel or spec in ("", NO_GUEST):
                raise

    def _compile(self, kernel: KernelSource | None = None, can_match: CanMatch | None = None) -> None:
        """Compile the program, and take the options that it sets."""
        target = self._victim.pid if self._victim is not None else None
        compiled = compile_sources(self._sources, self._arguments.args, self._options, target, kernel, can_match)
        self._compiled = compiled
        self._options = pragma_options(compiled, self._options)
        if self._arguments.disasm:
            from probekit.cli.disasm import show_program

            show_program(compiled.program)

    # -- the guest and the process of -c or -p -----------------------------------------------------------------------

    def _start_victim(self) -> Victim | None:
        arguments = self._arguments
        if arguments.command is None and arguments.pid is None:
            return None
        from probekit.cli.victim import Victim

        return self._stack.enter_context(Victim(arguments.command, arguments.pid))

    def _attach(self, spec: str, progress: Progress, interrupts: Interrupts) -> Attachment | None:
        if spec == NO_GUEST:
            return None
        from probekit.session.attach import attach

        guest = self._stack.enter_context(attach(spec, attach_options(self._arguments, progress)))
        guest.interrupts = interrupts
        return guest

    # -- listing, compiling only, running ----------------------------------------------------------------------------

    def _list(self, guest: Attachment | None, progress: Progress) -> None:
        from probekit.cli.list_probes import list_probes

        progress.done()
        program = self._compiled.program if self._compiled is not None else None
        arguments = self._arguments
        out = self._outputs.enter_context(open_output(arguments.output))
        list_probes(guest, program, out, verbose=arguments.verbose, json=arguments.json)

    def _make_run(self, compiled: Compiled, guest: Attachment | None, interrupts: Interrupts) -> Run:
        arguments, options, victim = self._arguments, self._options, self._victim

        def started() -> None:
            if arguments.disasm:
                from probekit.cli.disasm import show_code

                show_code(run.code)
            if victim is not None:
                victim.let_run()

        try:
            run = Run(
                guest,
                compiled.program,
                options,
                engine=_engine(arguments),
                interrupts=interrupts,
                started=started,
                ended=victim.has_ended if victim is not None else None,
                measure=arguments.verbose,
            )
        except NoMatchError as error:
            raise _no_match(error, compiled, errtags=options.errtags) from error
        if options.amin:
            from probekit.cli.stability import check_attributes

            check_attributes(options.amin, compiled, run.matching, errtags=options.errtags)
        if not arguments.compile_only:
            refuse_destructive(compiled.program, options)
        return run

    def _report_stability(self, compiled: Compiled, run: Run, guest: Attachment | None) -> None:
        """Write the report of ``-e -v``."""
        from probekit.cli.stability import stability_text

        types = argument_types(guest)
        out = self._outputs.enter_context(open_output(self._arguments.output))
        for source, clauses in compiled.by_source():
            out.write(stability_text(source.name, clauses, run.matching, types))


def _host_probes() -> CanMatch:
    """Return a test for whether a description matches a probe of the host."""
    from probekit.providers.registry import make_registry

    registry = make_registry(None)
    return lambda description: any(True for _ in registry.match(description))


def _engine(arguments: Arguments) -> EngineName:
    return "stop" if arguments.engine == "stop" else "guest"


def _no_match(error: NoMatchError, compiled: Compiled, *, errtags: bool) -> ScriptError:
    """Return the error in dtrace's words, with the source and the line."""
    for source, clauses in compiled.by_source():
        for clause in clauses:
            if clause.index == error.clause:
                tag = f"[{error.tag}] " if errtags else ""
                where = f"line {clause.line}: " if source.filename is not None or errtags else ""
                return ScriptError(f"{source.failed}: {tag}{where}{error.message}", hint=error.hint)
    return ScriptError(error.message, hint=error.hint)

"""Run a program and render its events; also ``-l`` and ``-e``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from probekit.cli.args import Arguments, UsageError
from probekit.cli.errors import ScriptError
from probekit.cli.progress import Progress
from probekit.cli.prototypes import ArgumentTypes, argument_types
from probekit.cli.sources import CanMatch, Compiled, ProgramText, compile_sources, pragma_options, read_sources
from probekit.consumer.bulk import Sink
from probekit.consumer.events import Attached, Message, ProbeFired
from probekit.errors import InternalError, ProbekitError
from probekit.ir.ops import Clause
from probekit.output.api import Renderer
from probekit.output.effects import HostEffects
from probekit.session.checks import NoMatchError, refuse_destructive
from probekit.session.options import Options, apply_options, environment_options
from probekit.session.run import EngineName, Trace
from probekit.session.signals import Interrupts

if TYPE_CHECKING:
    from probekit.cli.victim import Victim
    from probekit.session.attach import Attachment, AttachOptions

__all__ = ("attach_options", "found_guest", "target_of", "trace")

_NONE = "none"


def target_of(arguments: Arguments) -> str:
    """The target of ``-r`` or the environment; empty when there is none. A malformed one raises."""
    spec = arguments.remote or os.environ.get("PROBEKIT_TARGET", "")
    if spec and spec != _NONE:
        from probekit.target.connect import parse_spec

        parse_spec(spec)
    return spec


def found_guest(*, quiet: bool) -> str:
    """The target when none was named: the only guest of this host; which one it is is told unless ``quiet``."""
    from probekit.target.discovery import only_guest

    try:
        spec, name = only_guest()
    except ProbekitError as error:
        raise UsageError(str(error), error.hint) from error
    if not quiet:
        sys.stderr.write(f"probekit: guest {name}: {spec}\n")
    return spec


def attach_options(arguments: Arguments, progress: Progress) -> AttachOptions:
    """What the guest's options say."""
    from probekit.session.attach import AttachOptions

    return AttachOptions(
        symbols=Path(arguments.symbols) if arguments.symbols else None,
        cache=not arguments.no_cache,
        ram=arguments.ram,
        progress=progress,
        timeout=arguments.timeout,
        qmp=arguments.qmp,
    )


def trace(arguments: Arguments) -> int:
    """``probekit`` without a subcommand. Returns the exit status."""
    options = apply_options(Options(), [*environment_options(os.environ), *arguments.options])
    sources = read_sources(arguments.programs, options)
    if not arguments.programs and not arguments.list:
        if arguments.args[:1] == ("recover",):
            raise UsageError("`recover` comes first: probekit recover -r TARGET")
        raise UsageError("no probes: give some with -n or -s")
    with ExitStack() as stack:
        victim = _victim(arguments, stack)
        spec = target_of(arguments)
        compiled = None
        if arguments.programs:
            try:
                pid = victim.pid if victim else None
                can_match = _host_probes() if spec == _NONE and not arguments.list else None
                compiled = compile_sources(sources, arguments.args, options, pid, can_match=can_match)
            except ScriptError as error:
                # What is not known here may be the guest's: then it is compiled again once there is one.
                if not error.needs_kernel or spec in ("", _NONE):
                    raise
        return _with_target(arguments, options, sources, compiled, spec, victim, stack)


def _with_target(
    arguments: Arguments,
    options: Options,
    sources: list[ProgramText],
    compiled: Compiled | None,
    spec: str,
    victim: Victim | None,
    stack: ExitStack,
) -> int:
    if compiled is not None:
        options = _settle(arguments, options, sources, compiled)
    if arguments.compile_only and not spec:
        return 0
    spec = spec or found_guest(quiet=options.quiet or arguments.json)
    progress = Progress(verbose=arguments.verbose and spec != _NONE, silent=arguments.json)
    interrupts = stack.enter_context(Interrupts())
    guest = _attach(spec, arguments, progress, interrupts, stack)
    if guest is not None and arguments.programs and compiled is None:
        from probekit.session.guesttypes import GuestTypes

        target = victim.pid if victim else None
        compiled = compile_sources(sources, arguments.args, options, target, GuestTypes(guest))
        options = _settle(arguments, options, sources, compiled)
    if arguments.list:
        from probekit.cli.listing import list_probes

        progress.done()
        program = compiled.program if compiled is not None else None
        with _output(arguments) as out:
            list_probes(guest, program, out, verbose=arguments.verbose, json=arguments.json)
        return 0
    if compiled is None:
        raise InternalError("without -l there are programs")
    run = _prepare(arguments, options, sources, compiled, guest, interrupts, victim)
    if arguments.compile_only:
        if arguments.verbose:
            with _output(arguments) as out:
                _report_stability(sources, compiled, run, argument_types(guest), out)
        return 0
    stack.enter_context(run)
    return _Rendering(run, sources, compiled, arguments, options, progress, argument_types(guest)).run(stack)


def _host_probes() -> CanMatch:
    """Whether a description names a probe that there is without a guest."""
    from probekit.providers.registry import make_registry

    registry = make_registry(None)
    return lambda description: any(True for _ in registry.match(description))


def _settle(arguments: Arguments, options: Options, sources: list[ProgramText], compiled: Compiled) -> Options:
    """The options with those of the program, which is shown if that was asked for."""
    options = pragma_options(compiled, sources, options)
    if arguments.disasm:
        from probekit.cli.disasm import show_program

        show_program(compiled.program)
    return options


def _prepare(
    arguments: Arguments,
    options: Options,
    sources: Sequence[ProgramText],
    compiled: Compiled,
    guest: Attachment | None,
    interrupts: Interrupts,
    victim: Victim | None,
) -> Trace:
    def started() -> None:
        if arguments.disasm:
            from probekit.cli.disasm import show_code

            show_code(run.code)
        if victim is not None:
            victim.go()

    try:
        run = Trace(
            guest,
            compiled.program,
            options,
            engine=_engine(arguments),
            interrupts=interrupts,
            started=started,
            ended=victim.gone if victim is not None else None,
            measure=arguments.verbose,
        )
    except NoMatchError as error:
        raise _no_match(error, compiled, sources, errtags=options.errtags) from error
    if options.amin:
        from probekit.cli.stability import check_attributes

        check_attributes(options.amin, sources, compiled, run.matching, errtags=options.errtags)
    if not arguments.compile_only:
        refuse_destructive(compiled.program, options)
    return run


def _report_stability(
    sources: Sequence[ProgramText], compiled: Compiled, run: Trace, types: ArgumentTypes, out: TextIO
) -> None:
    from probekit.cli.stability import stability_text

    first = 0
    for source, count in zip(sources, compiled.counts, strict=True):
        if count or not source.library:
            clauses = compiled.program.clauses[first : first + count]
            out.write(stability_text(source.what, clauses, run.matching, types))
        first += count


def _engine(arguments: Arguments) -> EngineName:
    return "stop" if arguments.engine == "stop" else "guest"


def _victim(arguments: Arguments, stack: ExitStack) -> Victim | None:
    if arguments.command is None and arguments.pid is None:
        return None
    from probekit.cli.victim import Victim

    return stack.enter_context(Victim(arguments.command, arguments.pid))


def _no_match(error: NoMatchError, compiled: Compiled, sources: Sequence[ProgramText], *, errtags: bool) -> ScriptError:
    """The error in dtrace's words: which source, which line."""
    first = 0
    for source, count in zip(sources, compiled.counts, strict=True):
        if first <= error.clause < first + count:
            line = compiled.program.clauses[error.clause].line
            tag = f"[{error.tag}] " if errtags else ""
            where = f"line {line}: " if source.filename is not None or errtags else ""
            return ScriptError(f"{source.failed}: {tag}{where}{error.message}", hint=error.hint)
        first += count
    return ScriptError(error.message, hint=error.hint)


def _attach(
    spec: str, arguments: Arguments, progress: Progress, interrupts: Interrupts, stack: ExitStack
) -> Attachment | None:
    if spec == _NONE:
        return None
    from probekit.session.attach import attach

    guest = stack.enter_context(attach(spec, attach_options(arguments, progress)))
    guest.interrupts = interrupts
    return guest


@contextmanager
def _output(arguments: Arguments) -> Iterator[TextIO]:
    """Where output goes. What cannot be written is an error; a reader that went away stays a BrokenPipeError."""
    with ExitStack() as stack:
        out = sys.stdout if arguments.output is None else stack.enter_context(_opened(arguments.output))
        try:
            yield out
            out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if arguments.output is None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would try again
            raise ProbekitError(f"cannot write {arguments.output or 'the output'}: {error.strerror}") from error


def _opened(path: str) -> TextIO:
    try:
        return Path(path).open("a", encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ProbekitError(f"failed to open output file '{path}': {reason}") from error


class _Printing:
    """Text on its way to a renderer, with the line about what is going on taken away before."""

    def __init__(self, renderer: Sink, progress: Progress) -> None:
        self._renderer = renderer
        self._progress = progress

    @property
    def takes_text(self) -> bool:
        return self._renderer.takes_text

    def printed(self, text: str) -> None:
        self._progress.done()
        self._renderer.printed(text)


class _Rendering:
    """A run on its way to the output."""

    def __init__(
        self,
        run: Trace,
        sources: Sequence[ProgramText],
        compiled: Compiled,
        arguments: Arguments,
        options: Options,
        progress: Progress,
        types: ArgumentTypes,
    ) -> None:
        self._run = run
        self._argument_types = types
        self._sources = sources
        self._compiled = compiled
        self._arguments = arguments
        self._options = options
        self._progress = progress

    def run(self, stack: ExitStack) -> int:
        """Render everything; the program's exit status."""
        out = stack.enter_context(_output(self._arguments))
        effects = HostEffects(out)
        stack.callback(effects.close)
        renderer = self._renderer(out, effects)
        renderer.header()
        sink = _Printing(renderer, self._progress) if isinstance(renderer, Sink) else None
        self._run.state.listen(idle=renderer.flush, sink=sink)
        for event in self._run.events():
            self._progress.done()
            if isinstance(event, Attached):
                self._announce(event, renderer, out)
            else:
                renderer.event(event)
            if not isinstance(event, ProbeFired):
                renderer.flush()  # records come in numbers: those are seen when the next ones are waited for
        self._progress.done()
        renderer.aggregations(self._run.unprinted())
        renderer.close()
        return self._run.status & 0xFF

    def _renderer(self, out: TextIO, effects: HostEffects) -> Renderer:
        if self._arguments.json:
            from probekit.output.json_lines import JsonRenderer

            return JsonRenderer(out, effects=effects)
        options = self._options
        if options.oformat == "json":
            from probekit.output.json_document import JsonDocument

            return JsonDocument(out, effects=effects)
        from probekit.output.api import TextStyle
        from probekit.output.text import TextRenderer

        style = TextStyle(
            quiet=options.quiet,
            flow=options.flowindent,
            verbose=self._arguments.verbose,
            escape=out.isatty(),
            stack_indent=options.stackindent,
            raw_bytes=options.rawbytes,
            zoom=options.aggzoom,
            drop_tags=options.droptags,
        )
        return TextRenderer(out, sys.stderr, style, effects=effects)

    def _announce(self, event: Attached, renderer: Renderer, out: TextIO) -> None:
        """dtrace's ``description 'x' matched N probes`` for each source, and what ``-v`` adds."""
        verbose = self._arguments.verbose
        for announced in self._matched(event):
            renderer.event(announced)
            if verbose and not self._arguments.json and self._options.oformat == "text":
                from probekit.cli.stability import stability_text

                clauses = self._clauses_of(announced.what)
                out.write(stability_text(announced.what, clauses, self._run.matching, self._argument_types))
        if verbose:
            for text in _refusals(self._run):
                renderer.event(Message(text))

    def _clauses_of(self, what: str) -> Sequence[Clause]:
        first = 0
        for source, count in zip(self._sources, self._compiled.counts, strict=True):
            if source.what == what:
                return self._compiled.program.clauses[first : first + count]
            first += count
        return ()

    def _matched(self, event: Attached) -> Iterator[Attached]:
        gone = {refused.probe.id for refused in self._run.refused if not refused.partial}
        first = 0
        for source, count in zip(self._sources, self._compiled.counts, strict=True):
            own = set(range(first, first + count))
            first += count
            if source.library and not own:
                continue
            # As dtrace counts: a probe once for each clause that is enabled at it.
            matches = [(ecb.probe.id, len(own.intersection(ecb.clauses))) for ecb in self._run.matching.ecbs]
            refused = sum(times for number, times in matches if number in gone)
            total = sum(times for _, times in matches)
            yield Attached(what=source.what, probes=total - refused, refused=refused, seconds=event.seconds)


_NAMED = 10  # refused probes that are named one by one; of more only how many there are for each reason


def _refusals(run: Trace) -> Iterator[str]:
    """What cannot be enabled, and why; ``-l -v`` names them all."""
    if len(run.refused) <= _NAMED:
        yield from (f"{refused.probe.name}: {refused.reason}" for refused in run.refused)
        return
    for reason, count in Counter(refused.reason.partition(" (")[0] for refused in run.refused).most_common():
        yield f"{count} not available: {reason}"
